"""Which of several ways is the fastest, measured so that other programs do not decide it."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from hfbench.errors import NotMeasuredError, measuring
from hfbench.training.company import told_by_main

T = TypeVar("T")

MIN_ROUNDS, MAX_ROUNDS = 3, 15
ROUND_SECONDS = 0.5  # no further round begins after so long


def measured_for_all(measure: Callable[[], T], *, is_main: bool) -> T:
    """What the main process measures, on every process: they should compute alike.

    Raises NotMeasuredError on all of them where it fails.
    """
    found: T | NotMeasuredError | None = None
    if is_main:
        try:
            with measuring("it cannot be measured"):
                found = measure()
        except NotMeasuredError as error:  # the others wait for an answer
            found = error
    found = told_by_main(found)
    if isinstance(found, NotMeasuredError):
        raise found
    assert found is not None
    return found


def medians(ways: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Median seconds of one call of each, in interleaved rounds.

    On a CPU one thread is measured, by the time that the processor gave to it: threads that wait
    for each other beside other programs say more about these than about the work.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for work in ways.values():
            _seconds(device, work)  # the first time makes caches and chooses kernels
        started = time.perf_counter()
        for round_ in range(MAX_ROUNDS):
            if round_ >= MIN_ROUNDS and time.perf_counter() - started > ROUND_SECONDS:
                break
            for name, work in ways.items():
                times[name].append(_seconds(device, work))
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(measured) for name, measured in times.items()}


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Of the processor on a CPU, by the clock elsewhere."""
    # Windows counts a process's time in steps of 16 ms.
    of_processor = device.type == "cpu" and sys.platform != "win32"
    now = time.process_time if of_processor else time.perf_counter
    started = now()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return now() - started
