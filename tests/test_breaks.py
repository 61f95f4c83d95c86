"""A training saves and ends by the clock, and after the step in which a signal came."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from test_fit import samples, tiny_bert, train

from hfbench import interrupts
from hfbench.training import state

NOW = 1e-9


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps after which a state was saved."""
    steps: list[int] = []
    save = state.save_state

    def counted(folder: Path, accelerator: Accelerator, *rest: Any, owner: str) -> None:
        steps.append(rest[-1]["step"])
        save(folder, accelerator, *rest, owner=owner)

    monkeypatch.setattr(state, "save_state", counted)
    return steps


@pytest.mark.parametrize(("minutes", "steps"), [(NOW, [1, 2, 3, 3]), (10.0, [3]), (None, [3])])
def test_states_are_saved_by_the_clock(
    tmp_path: Path, kept: list[int], minutes: float | None, steps: list[int]
) -> None:
    """Three steps, and the end of the epoch."""
    train(tiny_bert(), samples(12), tmp_path, epochs=1, save_minutes=minutes)
    assert kept == steps


def test_a_budget_of_time_ends_the_training_with_an_evaluation(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 3, "max_minutes": NOW}
    result = train(
        tiny_bert(), samples(12), tmp_path, evaluate=lambda model: {"loss": 1.0}, **options
    )
    assert (len(result.step_losses), result.total_steps, len(result.history)) == (1, 9, 1)
    assert result.history[0].epoch == pytest.approx(1 / 3)
    again = train(tiny_bert(), samples(12), tmp_path, **options)
    assert (len(again.step_losses), again.total_steps) == (1, 9)


def test_a_budget_that_suffices_changes_nothing(tmp_path: Path) -> None:
    result = train(tiny_bert(), samples(12), tmp_path, epochs=1, max_minutes=60)
    assert (len(result.step_losses), result.total_steps) == (3, None)


class _Signalled(list[Any]):
    """Data during whose reading a signal comes."""

    at = 0

    def __getitem__(self, index: Any) -> Any:
        self.at -= 1
        if self.at == 0:
            interrupts._on_signal(interrupts.signal.SIGTERM, None)
        return super().__getitem__(index)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process answered signals; none has come before or is left."""
    monkeypatch.setattr(interrupts._state, "process_id", interrupts.os.getpid())
    monkeypatch.setattr(interrupts._state, "asked", None)
    monkeypatch.setattr(interrupts._state, "unwinds", True)


@pytest.mark.parametrize("read", [6, 9, 17, 24])
def test_a_signal_lets_the_step_end_and_the_training_goes_on_bit_for_bit(
    tmp_path: Path, answering: None, read: int
) -> None:
    """In the first epoch, in its last step, and in the second one; with dropout."""
    through = tiny_bert(dropout=0.1)
    torch.manual_seed(3)
    expected = train(through, samples(12), tmp_path / "through", epochs=2)

    broken = tiny_bert(dropout=0.1)
    torch.manual_seed(3)
    data = _Signalled(samples(12))
    data.at = read
    with pytest.raises(interrupts.Interrupted) as caught:
        train(broken, data, tmp_path / "run", epochs=2)
    assert caught.value.number == interrupts.signal.SIGTERM
    assert state.last_step(tmp_path / "run") == (read - 1) // 4 + 1

    interrupts._state.asked = None
    resumed = tiny_bert(dropout=0.1)
    torch.manual_seed(99)
    actual = train(resumed, samples(12), tmp_path / "run", epochs=2)
    assert actual.step_losses == expected.step_losses
    for a, b in zip(resumed.parameters(), through.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_signal_in_an_evaluation_does_not_wait_for_it(tmp_path: Path, answering: None) -> None:
    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        interrupts._on_signal(interrupts.signal.SIGTERM, None)
        pytest.fail("the evaluation went on")

    with pytest.raises(interrupts.Interrupted):
        train(tiny_bert(), samples(12), tmp_path, epochs=1, evaluate=evaluate)
    assert state.last_step(tmp_path) is None
