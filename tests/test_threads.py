"""The number of threads follows what is measured."""

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from hfbench.training.threads import ThreadChoice, choose_threads


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def work_that_takes(milliseconds: dict[int, float]) -> Callable[[], None]:
    return lambda: time.sleep(milliseconds[torch.get_num_threads()] / 1000)


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ({1: 4.0, 4: 2.5}, 4),
        ({1: 2.5, 4: 4.0}, 1),  # as on a machine whose cores are busy
        ({1: 1.0, 4: 30.0}, 1),
    ],
)
def test_the_faster_number_of_threads_is_set(
    four_threads: None, milliseconds: dict[int, float], chosen: int
) -> None:
    choice = choose_threads(work_that_takes(milliseconds))
    assert choice.threads == torch.get_num_threads() == chosen
    for threads, seconds in choice.seconds.items():  # of one call; sleeping is never shorter
        assert milliseconds[threads] / 1000 <= seconds < milliseconds[threads] / 1000 + 0.01


def test_a_hopeless_number_is_not_tried_again(four_threads: None) -> None:
    started = time.perf_counter()
    choose_threads(work_that_takes({1: 1.0, 4: 50.0}))
    assert time.perf_counter() - started < 2.5  # three rounds of four threads would take 3.15


def test_the_environment_decides_where_it_is_set(
    four_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choose_threads(work_that_takes({1: 0.0, 4: 50.0})) == ThreadChoice(4, {})
