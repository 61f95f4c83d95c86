"""How many processor threads PyTorch should use here and now: measured, not assumed."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

STEPS, ROUNDS = 20, 3
HOPELESS = 2.0  # so many times slower in the first round: no second one
ROWS, WIDTH = 512, 256  # of the products in a small transformer
OMP_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class ThreadChoice:
    """The number of threads, and the median seconds of one probe for each number that was tried.

    ``seconds`` is empty where there was nothing to choose.
    """

    threads: int
    seconds: Mapping[int, float]


def choose_threads(work: Callable[[], object] | None = None) -> ThreadChoice:
    """Set the faster of one thread and all that PyTorch would use for ``work``.

    Threads that wait for each other at every operation lose by far when other programs keep the
    cores busy, so the answer depends on the moment. ``OMP_NUM_THREADS`` decides where it is set.
    None stands for products like those of a small transformer.
    """
    most = torch.get_num_threads()
    if OMP_THREADS in os.environ or most == 1:
        return ThreadChoice(most, {})
    seconds = _measure(work or _transformer_products(), most)
    chosen = min(seconds, key=lambda count: seconds[count])
    torch.set_num_threads(chosen)
    return ThreadChoice(chosen, seconds)


def _measure(work: Callable[[], object], most: int) -> dict[int, float]:
    times: dict[int, list[float]] = {1: [], most: []}
    for _ in range(ROUNDS):
        for threads, measured in times.items():
            measured.append(_seconds(work, threads))
        faster, slower = sorted(measured[0] for measured in times.values())
        if slower > HOPELESS * faster:
            break
    return {threads: statistics.median(measured) for threads, measured in times.items()}


def _seconds(work: Callable[[], object], threads: int) -> float:
    """Of one call, the mean of ``STEPS``."""
    torch.set_num_threads(threads)
    work()  # the first time with this number starts the threads
    started = time.perf_counter()
    for _ in range(STEPS):
        work()
    return (time.perf_counter() - started) / STEPS


def _transformer_products() -> Callable[[], object]:
    left, right = torch.ones(ROWS, WIDTH), torch.ones(WIDTH, WIDTH)
    return lambda: torch.nn.functional.gelu(left @ right)
