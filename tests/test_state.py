"""States: what is damaged is named and not used, what belongs to another run is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from damages import DAMAGES, flip
from torch import nn

from hfbench.errors import TrainingFailedError, UserError
from hfbench.training import state

FILES = ("model.safetensors", "parts.pt", "progress.json", "random-0.pt", "manifest.json")


def network(value: float) -> nn.Module:
    model = nn.Linear(40, 1)
    nn.init.constant_(model.weight, value)
    return model


def write(folder: Path, *, owner: str = "run", steps: tuple[int, ...] = (1, 2, 3)) -> Path:
    """States after these steps, all weights the step's number, the best one after step 1."""
    for step in steps:
        model = network(step)
        progress: dict[str, Any] = {"step": step, "epoch": 0, "best_step": 1}
        if step == 1:
            state.save_best(folder, model, owner=owner, step=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=step)
        parts = {"optimizer": optimizer}
        state.save_state(folder, Accelerator(cpu=True), model, parts, progress, owner=owner)
    return folder


def restored_step(folder: Path, *, owner: str = "run") -> int | None:
    """Of the state that is used; its weights and its optimiser are those of that step."""
    model = network(0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    parts = {"optimizer": optimizer}
    found = state.load_state(folder, Accelerator(cpu=True), model, parts, owner=owner)
    if found is None:
        return None
    step: int = found["step"]
    assert torch.equal(model.weight, torch.full((1, 40), float(step)))
    assert optimizer.param_groups[0]["lr"] == step
    return step


def newest(folder: Path) -> Path:
    return max((folder / state.STATE).iterdir())


def test_the_newest_of_two_states_is_used(tmp_path: Path) -> None:
    assert len(list((write(tmp_path) / state.STATE).iterdir())) == 2
    assert restored_step(tmp_path) == 3


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_state_is_named_and_the_one_before_is_used(
    tmp_path: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGES[damage](newest(write(tmp_path)) / name)
    assert restored_step(tmp_path) == 2
    said = capsys.readouterr().out
    assert "is damaged" in said
    assert name in said


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_state_is_damage(tmp_path: Path, name: str) -> None:
    other = write(tmp_path / "other", owner="other", steps=(1, 7))
    shutil.copy(newest(other) / name, newest(write(tmp_path / "run")) / name)
    assert restored_step(tmp_path / "run") == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_state_is_used_whose_best_parameters_are_damaged(tmp_path: Path, damage: str) -> None:
    DAMAGES[damage](write(tmp_path) / "best/step-000000001/model.safetensors")
    assert restored_step(tmp_path) is None
    with pytest.raises(TrainingFailedError, match=r"damaged.*The same command goes on"):
        state.load_best(tmp_path, network(0.0), owner="run", step=1)


def test_best_parameters_of_another_run_are_damage(tmp_path: Path) -> None:
    write(tmp_path / "other", owner="other", steps=(1,))
    shutil.rmtree(write(tmp_path / "run") / "best")
    shutil.copytree(tmp_path / "other/best", tmp_path / "run/best")
    assert restored_step(tmp_path / "run") is None
    with pytest.raises(TrainingFailedError, match="is of another run"):
        state.load_best(tmp_path / "run", network(0.0), owner="run", step=1)


def test_going_back_to_an_older_state_costs_no_whole_one(tmp_path: Path) -> None:
    """After state 3 is damaged the training goes on from 2, and ends before 3 again."""
    flip(newest(write(tmp_path)) / "parts.pt")
    state.save_best(tmp_path, network(3.0), owner="run", step=3)  # killed before its state
    assert restored_step(tmp_path) == 2
    model = network(2.5)
    parts = {"optimizer": torch.optim.SGD(model.parameters(), lr=2.5)}
    progress = {"step": 2, "epoch": 1, "best_step": 1}
    state.save_state(tmp_path, Accelerator(cpu=True), model, parts, progress, owner="run")
    flip(newest(tmp_path) / "parts.pt")
    assert restored_step(tmp_path) == 2
    assert len(list((tmp_path / "best").iterdir())) == 1


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    write(tmp_path, owner="one")
    with pytest.raises(UserError, match=r"state of another run \(one\): choose another"):
        restored_step(tmp_path, owner="two")


def test_clearing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "state/thesis.txt").write_text("mine")
    (tmp_path / "best-ever.safetensors").write_text("mine")
    (tmp_path / "state/.partial-step-000000009-epoch-000001").mkdir()
    state.clear(tmp_path, Accelerator(cpu=True))
    left = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(left) == ["best-ever.safetensors", "state/thesis.txt"]
    assert not (tmp_path / "best").exists()
