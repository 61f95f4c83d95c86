"""``--dry-run``: the plan of exactly this run, and nothing trained."""

import json
from pathlib import Path

import pytest
from tiny_runs import overrides

from hfbench.cli import recipe_main


def test_a_dry_run_shows_the_plan_and_leaves_nothing(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """60 texts, 48 to train on: 6 batches of 8, 3 windows of 2, 2 epochs."""
    arguments = overrides(
        tiny_bert,
        texts,
        tmp_path / "run",
        "strategy=last_1",
        "training.gradient_accumulation_steps=2",
        "training.warmup_ratio=0.5",
    )
    assert recipe_main("text_classification", None, [*arguments, "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "steps 6, of which 3 warm-up; 3 an epoch, 16 of 48 samples a step" in shown
    assert "strategy last_1" in shown  # the parameter report
    assert "GFLOP forward" in shown
    assert f"folder {tmp_path / 'run'} (new)" in shown
    assert "Nothing was trained" in shown
    assert not (tmp_path / "run").exists()


def test_the_share_of_padding_is_said_before_training(
    tiny_bert: Path,
    images: Path,
    tiny_vit: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One batch of 24 texts of 4 tokens and 24 of 8, with [CLS] and [SEP]: a quarter is padding."""
    rows = [{"text": "good cat", "label": "a"}, {"text": "bad dog sleeps one . .", "label": "b"}]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(map(json.dumps, rows * 30)))
    arguments = overrides(tiny_bert, texts, tmp_path / "run", "training.batch_size=48")
    shown = []
    for grouped in ("true", "false"):
        more = [*arguments, f"training.group_by_length={grouped}", "--dry-run"]
        assert recipe_main("text_classification", None, more) == 0
        lines = capsys.readouterr().out.splitlines()
        shown += [line for line in lines if line.startswith("padding: ")]
    assert shown == [
        "padding: 25.0 % of the tokens in training batches, 25.0 % without grouping",
        "padding: 25.0 % of the tokens in training batches, 25.0 % when grouped",
    ]
    arguments = overrides(tiny_vit, images, tmp_path / "run", "--dry-run")
    assert recipe_main("image_classification", None, arguments) == 0
    assert "padding: " not in capsys.readouterr().out


def test_a_dry_run_knows_a_finished_run(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = overrides(tiny_bert, texts, tmp_path / "run", "training.max_steps=1")
    assert recipe_main("text_classification", None, arguments) == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    capsys.readouterr()
    assert recipe_main("text_classification", None, [*arguments, "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "holds this run, finished: nothing would be done" in shown
    assert "steps 1, of which 0 warm-up" in shown
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))


def test_a_dry_run_finds_the_mistakes_of_the_run(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = overrides(tiny_bert, texts, tmp_path / "run", "strategy=last_9", "--dry-run")
    assert recipe_main("text_classification", None, arguments) == 2
    assert "3 blocks" in capsys.readouterr().err
