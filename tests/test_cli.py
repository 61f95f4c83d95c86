"""The command line: a matrix of runs, its comparison, its exit codes."""

import json
from pathlib import Path

import pytest
import yaml
from result_factory import make_result

from hfbench.cli import main, recipe_main, split_strategies
from hfbench.results import RunResult, load_all


@pytest.fixture
def config(tmp_path: Path, tiny_bert: Path) -> Path:
    rows = [{"text": f"good cat {i}", "label": "up"} for i in range(30)]
    rows += [{"text": f"bad dog sleeps {i}", "label": "down"} for i in range(30)]
    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "config.yaml"
    values = {
        "task": "text_classification",
        "model": {"checkpoint": str(tiny_bert)},
        "data": {"source": str(data)},
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3},
    }
    path.write_text(yaml.safe_dump(values))
    return path


def test_compare_runs_what_is_missing_and_prints_table_and_image(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    arguments = ["compare", "--config", str(config), "--output", str(output)]
    assert main([*arguments, "--strategies", "scratch,last_1", "--seeds", "0"]) == 0
    first = {result.run_id: result for result in load_all(output)}
    assert {(r.strategy, r.seed) for r in first.values()} == {("scratch", 0), ("last_1", 0)}

    capfd.readouterr()
    assert main([*arguments, "--strategies", "scratch,last_1", "--seeds", "0,1"]) == 0
    second = {result.run_id: result for result in load_all(output)}
    assert len(second) == 4
    assert first.items() <= second.items()  # not run again
    printed = capfd.readouterr().out
    assert printed.count("holds this run already") == 2
    assert "4 runs (2 strategies × 2 seeds), 2 finished; the others take about" in printed
    assert "3 of 4 runs done; the others take about" in printed
    assert "were not run alike" not in printed
    assert "standard deviation" in printed
    images = list(output.glob("*.png"))
    assert len(images) == 1
    assert images[0].read_bytes().startswith(b"\x89PNG")

    assert main(["compare", str(output), "--format", "markdown"]) == 0
    assert "| last_1 |" in capfd.readouterr().out


def test_an_image_of_several_folders_is_in_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        make_result(name).save(tmp_path / name / "result.json")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(["compare", "../a", "../b"]) == 0
    assert len(list(here.glob("*.png"))) == 1
    assert main(["compare", "../a", "../b", "--output", "images"]) == 0
    assert len(list(here.glob("images/*.png"))) == 1
    assert main(["compare", "../a"]) == 0
    assert [len(list(tmp_path.glob(f"{name}/*.png"))) for name in ("a", "b")] == [1, 0]


def test_a_strategy_and_a_seed_of_the_file_are_not_what_a_comparison_runs(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text() + "strategy: last_1\nseed: 7\n")
    assert main(["compare", "--config", str(config), "--strategies", "lats_2"]) == 2
    printed = capsys.readouterr().err
    assert "--strategies decide, not the file's strategy last_1" in printed
    assert "--seeds decide, not the file's seed 7" in printed


def test_a_run_that_fails_does_not_stop_the_others(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    arguments = ["compare", "--config", str(config), "--output", str(output)]
    arguments += ["--strategies", "lora:learning_rate_factor=1e35,head"]
    assert main([*arguments, "training.warmup_ratio=0"]) == 1
    status = {result.strategy: result.status for result in load_all(output)}
    assert sorted(status.values()) == ["diverged", "succeeded"]
    assert "the training loss became" in " ".join(capfd.readouterr().out.split())


def test_a_mistake_ends_the_matrix_before_anything_is_trained(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    arguments = ["compare", "--config", str(config), "--output", str(output)]
    assert main([*arguments, "--strategies", "full,lats_2"]) == 2
    assert "lats_2" in capfd.readouterr().err
    assert main([*arguments, "--seeds", "one"]) == 2
    assert "'one' is not a list of numbers" in capfd.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare"], "needs --config FILE, or folders"),
        (["compare", "/nowhere/at-all"], "'/nowhere/at-all' does not exist"),
        (["compare", "--config", "/nowhere.yaml"], "'/nowhere.yaml' does not exist"),
        (["compare", "seed=1"], "needs --config FILE"),
        (["compare", "runs", "--seeds", "1"], "belong to --config FILE"),
        (["compare", "--config", "c.yaml", "seed=1"], "sets seed itself: use --seeds"),
        (["compare", "--config", "c.yaml", "strategy.r=4"], "use --strategies"),
    ],
)
def test_a_wrong_command_line_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_an_empty_folder_of_results_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path)]) == 2
    assert "there is no result.json below" in capsys.readouterr().err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="does not exist"):
        recipe_main("text_classification", None, ["--config", "/nowhere.yaml", "--debug"])


def test_strategies_are_split_between_their_options() -> None:
    text = "full,lora:r=4,targets=all_linear,last_2,blocks:0+3,lora:last_n=2"
    assert split_strategies(text) == [
        "full",
        "lora:r=4,targets=all_linear",
        "last_2",
        "blocks:0+3",
        "lora:last_n=2",
    ]


def test_results_are_readable_after_a_compare(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    arguments = ["compare", "--config", str(config), "--output", str(output)]
    assert main([*arguments, "--strategies", "bitfit", "--seeds", "0,1"]) == 0
    printed = capfd.readouterr().out
    assert "2 runs (1 strategy × 2 seeds), none finished; how long they take" in printed
    result = RunResult.load(output / "bitfit_seed0" / "result.json")
    assert result.status == "succeeded"
    assert result.parameters is not None
    assert result.parameters.trainable < result.parameters.total
