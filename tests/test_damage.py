"""Files of a finished run that are not as they were written: named, never used, made whole."""

import shutil
from pathlib import Path

import pytest
import torch
from damages import DAMAGES, flip
from tiny_runs import overrides

from hfbench.choices import Choices, kept_choices
from hfbench.cli import main
from hfbench.config import load_config
from hfbench.record import damage, finished_result
from hfbench.results import RunResult
from hfbench.run import run

FILES = ("result.json", "check.safetensors", "model/model.safetensors", "model/tokenizer.json")


def arguments(checkpoint: Path, data: Path, folder: Path) -> list[str]:
    return overrides(checkpoint, data, folder, "strategy=head", "training.epochs=1")


@pytest.fixture(scope="module")
def finished(tiny_bert: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(load_config(None, arguments(tiny_bert, texts, folder), task="text_classification"))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_run_keeps_what_was_measured_for_it(finished: Path) -> None:
    kept = kept_choices(finished)
    assert kept == Choices("no", torch.get_num_threads(), None, kept.prefix, parts=1)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_run_is_not_finished(
    name: str, kind: str, folder: Path, tiny_bert: Path, texts: Path
) -> None:
    config = load_config(None, arguments(tiny_bert, texts, folder), task="text_classification")
    assert finished_result(folder, config) is not None
    DAMAGES[kind](folder / name)
    assert finished_result(folder, config) is None
    if (name, kind) != ("result.json", "deleted"):
        assert Path(name).name in str(damage(folder))


@pytest.mark.parametrize("name", ["result.json", "model/model.safetensors"])
def test_its_command_makes_it_whole(
    name: str, folder: Path, tiny_bert: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = RunResult.load(folder / "result.json")
    flip(folder / name)
    again = run(load_config(None, arguments(tiny_bert, texts, folder), task="text_classification"))
    assert f"this run is done again: '{folder / name}'" in capsys.readouterr().out
    assert again.test_metrics == before.test_metrics
    assert damage(folder) is None


@pytest.mark.parametrize("command", ["predict", "push"])
def test_no_command_uses_a_damaged_model(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(folder / "model/model.safetensors")
    what = {"predict": "good cat", "push": "hub.repo_id=user/name"}[command]
    assert main([command, str(folder), what]) == 2
    error = capsys.readouterr().err
    assert "model.safetensors' holds other bytes" in error
    assert "Repeat the run's command" in error
