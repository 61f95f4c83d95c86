"""Mistakes that are known before a large library is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from hfbench.config import load_config, parse_strategy
from hfbench.early_checks import TASK_NAMES, check_early
from hfbench.errors import UserError
from hfbench.tasks import TASKS

CONFIGS = Path(__file__).parents[1] / "recipes" / "configs"
HEAVY = ("torch", "transformers", "datasets", "numpy", "accelerate", "peft")


def check(*overrides: str, strategies: str = "full") -> None:
    settings = ["task=text_classification", "model.checkpoint=bundled/bert-tiny", *overrides]
    check_early(load_config(None, settings), [parse_strategy(text) for text in strategies.split()])


@pytest.mark.parametrize(
    ("checkpoint", "strategies", "message"),
    [
        (
            "bundled/bert-tiny",
            "full last_9",
            "'last_9' needs 9 blocks.*has 6 blocks, numbered 0 to 5",
        ),
        ("bundled/gpt-tiny", "first_99", "'first_99' needs 99 blocks"),
        ("google-bert/bert-large-uncased", "last_24 last_25", "'last_25' needs 25 .* has 24"),
        ("bundled/bert-tiny", "blocks:0+6", "needs 7 blocks"),
        ("bundled/bert-tiny", "lora:last_n=7", "'lora:last_n=7' needs 7 blocks"),
        ("bundled/bert-tny", "full", "not bundled .did you mean 'bundled/bert-tiny'"),
        ("./nowhere", "full", "'./nowhere' does not exist"),
    ],
)
def test_a_wrong_depth_or_checkpoint_is_known(
    checkpoint: str, strategies: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(f"model.checkpoint={checkpoint}", strategies=strategies)


def test_what_only_the_libraries_know_is_left_to_them(tmp_path: Path) -> None:
    check(strategies="last_6 first_6 blocks:0+5 lora:last_n=6 head")
    check("model.checkpoint=somebody/on-the-hub", strategies="last_99")
    (tmp_path / "config.json").write_text('{"model_type": "swin", "num_hidden_layers": 4}')
    check(f"model.checkpoint={tmp_path}", strategies="last_12")  # hierarchical
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b", "label": 1}\n')
    check(f"data.source={tmp_path / 'rows.jsonl'}", "data.label_column=label")
    (tmp_path / "old.csv").write_bytes("Größe,label\n".encode("latin-1"))
    check(f"data.source={tmp_path / 'old.csv'}", "data.label_column=x")


@pytest.mark.parametrize("name", ["reviews.csv", "train.csv", "train.tsv"])
def test_a_wrong_column_is_known_by_the_first_line(name: str, tmp_path: Path) -> None:
    separator = "\t" if name.endswith("tsv") else ","
    (tmp_path / name).write_text(
        f'\ufeff\n"text"{separator}label\n' if separator == "," else f"text{separator}label\n",
        encoding="utf-8",
    )
    source = tmp_path / name if name == "reviews.csv" else tmp_path
    check(f"data.source={source}", "data.text_column=text", "data.label_column=label")
    for column in ("data.label_column=lable", "data.label_columns=[label, lable]"):
        message = rf"lable' is not a column of '.*{name}' .did you mean 'label'.*names: text, label"
        with pytest.raises(UserError, match=message):
            check(f"data.source={source}", column)


def test_a_wrong_task_is_known() -> None:
    assert list(TASK_NAMES) == list(TASKS)
    with pytest.raises(UserError, match="did you mean 'text_classification'"):
        check("task=text_clasification")


def test_no_large_library_is_loaded_to_find_mistakes() -> None:
    """In a process of its own, four mistakes one after the other."""
    mistakes = [
        ["--strategies", "last_9"],
        ["--strategies", "lats_2"],
        ["trainig.epochs=3"],
        ["model.checkpoint=bundled/bert-tny"],
    ]
    config = CONFIGS / "demo_text.yaml"
    code = (
        "import sys; from hfbench.cli import main\n"
        f"for more in {mistakes}:\n"
        f"    assert main(['compare', '--config', {str(config)!r}, *more]) == 2\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    errors = done.stderr.splitlines()
    assert "needs 9 blocks" in errors[0]
    assert "did you mean 'last_2'" in errors[1]
    assert "did you mean 'training'" in errors[2]
    assert "did you mean 'bundled/bert-tiny'" in errors[3]
