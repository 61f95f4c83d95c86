"""Which trained models stay on the disk."""

from dataclasses import replace
from pathlib import Path

import pytest
from predict_calls import Captured, refusal
from result_factory import make_result
from tiny_runs import overrides

from hfbench.claim import claimed
from hfbench.cli import main
from hfbench.config import RunConfig, load_config, parse_strategy
from hfbench.errors import UserError
from hfbench.keeping import keep_best, remove_model
from hfbench.manifest import checksum, files_below, listed
from hfbench.matrix import plan_matrix
from hfbench.record import damage, finished_result, run_id
from hfbench.results import RunResult
from hfbench.run import run

CONFIG = '{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}'


def saved(config: RunConfig, best_validation: float | None, test: float) -> Path:
    folder = Path(str(config.output_dir))
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"w" * 1000)
    (folder / "check.safetensors").write_bytes(b"c" * 500)
    files = [*files_below(folder / "model"), folder / "check.safetensors"]
    make_result(
        config.strategy.label,
        accuracy=test,
        run_id=run_id(config),
        best_validation=best_validation,
        saved_files=listed(folder, files),
    ).save(folder / "result.json")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[RunConfig]:
    strategies = [parse_strategy(name) for name in ("full", "last_2", "head")]
    return plan_matrix(load_config(None, ["output.keep=best"]), strategies, [0], tmp_path)


def models(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders if (folder / "model").exists()]


def test_the_best_on_validation_stays_whatever_the_test_split_says(runs: list[RunConfig]) -> None:
    values = ((0.7, 0.9), (0.8, 0.5), (0.8, 0.99))  # of equals the first
    folders = [saved(run, *value) for run, value in zip(runs, values, strict=True)]
    assert keep_best(runs) == (
        "output.keep=best: the model of last_2_seed0 stays, 2 others were removed (0.0 MB)"
    )
    assert models(folders) == ["last_2_seed0"]
    for run_, folder in zip(runs, folders, strict=True):
        assert damage(folder) is None
        assert finished_result(folder, run_) is not None
    assert keep_best(runs) is None


def test_what_no_run_wrote_and_what_was_not_validated_stays(runs: list[RunConfig]) -> None:
    folders = [saved(run, value, 0.5) for run, value in zip(runs, (0.9, 0.8, None), strict=True)]
    own = folders[1] / "model" / "my_only_copy.pt"
    own.write_text("mine")
    keep_best(runs)
    assert own.read_text() == "mine"
    assert not (folders[1] / "model" / "model.safetensors").exists()
    assert (folders[2] / "model" / "model.safetensors").exists()


def test_a_name_that_leaves_the_folder_removes_nothing(
    runs: list[RunConfig], tmp_path: Path
) -> None:
    folders = [saved(run, value, 0.5) for run, value in zip(runs, (0.9, 0.8, 0.7), strict=True)]
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("")
    result = RunResult.load(folders[1] / "result.json")
    listed_too = {**(result.saved_files or {}), "../thesis.txt": [0, checksum(thesis)]}
    replace(result, saved_files=listed_too).save(folders[1] / "result.json")
    assert "no file inside" in str(damage(folders[1]))
    keep_best(runs)
    assert thesis.exists()


def test_nothing_is_removed_through_a_link(runs: list[RunConfig], tmp_path: Path) -> None:
    folders = [saved(run, value, 0.5) for run, value in zip(runs, (0.9, 0.8, 0.7), strict=True)]
    mine = (folders[1] / "model").rename(tmp_path / "mine")
    (folders[1] / "model").symlink_to(mine)
    assert "is a link" in str(damage(folders[1]))
    keep_best(runs)
    assert (mine / "model.safetensors").exists()
    assert models(folders[2:]) == []


def test_a_run_in_which_another_process_works_keeps_its_model(runs: list[RunConfig]) -> None:
    folders = [saved(run, value, 0.5) for run, value in zip(runs, (0.9, 0.8, 0.7), strict=True)]
    with claimed(folders[1], run_id(runs[1])):
        assert f"that of {folders[1].name} too: process " in str(keep_best(runs))
    assert models(folders) == [folders[0].name, folders[1].name]


def test_the_best_may_have_been_removed_before(runs: list[RunConfig]) -> None:
    folders = [saved(run, value, 0.5) for run, value in zip(runs, (0.9, 0.8, 0.7), strict=True)]
    remove_model(folders[0], "output.keep=none")
    assert "nothing is removed, because the model of the best run full_seed0" in str(
        keep_best(runs)
    )
    assert models(folders) == [folders[1].name, folders[2].name]


def test_smaller_may_be_better(runs: list[RunConfig]) -> None:
    folders = [saved(run, value, 0.5) for run, value in zip(runs, (0.9, 0.2, 0.8), strict=True)]
    for folder in folders:
        text = (folder / "result.json").read_text()
        assert '"greater_is_better": true' in text
        result = RunResult.load(folder / "result.json").to_dict() | {"greater_is_better": False}
        RunResult.from_dict(result).save(folder / "result.json")
    keep_best(runs)
    assert models(folders) == ["last_2_seed0"]


@pytest.mark.usefixtures("own_cache")
def test_a_run_without_its_model_is_finished_until_the_model_is_wanted(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "run"
    options = overrides(tiny_bert, texts, folder, "strategy=head", "training.epochs=1")
    config = load_config(None, [*options, "output.keep=none"], task="text_classification")
    result = run(config)
    assert result.saved_check is not None  # it was saved and compared
    assert result.saved_bytes
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".safetensors") == []
    assert not (folder / "model").exists()
    assert f"result without model in {folder}" in capsys.readouterr().out
    run(config)
    assert "holds this run already" in capsys.readouterr().out
    what_to_do = "output.keep=none removed it. Repeat the run's command with output.keep=all"
    assert what_to_do in refusal(capsys, folder, "a text")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(CONFIG)
    assert what_to_do in refusal(capsys, folder, "a text")  # left by a process that was killed
    assert main(["push", str(folder), "hub.repo_id=me/it"]) == 2
    assert what_to_do in capsys.readouterr().err
    again = run(load_config(None, options, task="text_classification"))
    assert "done again: its model was removed (output.keep=none)" in capsys.readouterr().out
    assert again.test_metrics == result.test_metrics
    assert (folder / "model" / "model.safetensors").is_file()


def test_what_is_published_cannot_be_removed() -> None:
    with pytest.raises(UserError, match=r"output\.keep=none .* hub\.push"):
        load_config(None, ["output.keep=none", "hub.push=true", "hub.repo_id=me/it"])
