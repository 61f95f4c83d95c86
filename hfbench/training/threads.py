"""How many processor threads PyTorch should use here and now: measured, not assumed."""

import os
import time

import torch

ROWS, WIDTH, PRODUCTS, ROUNDS = 512, 256, 20, 3


def choose_threads() -> int:
    """Set and return the faster of one thread and all that PyTorch would use.

    Threads that wait for each other at every operation lose by far when other programs keep the
    cores busy, so the answer depends on the moment. ``OMP_NUM_THREADS`` decides where it is set.
    """
    most = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or most == 1:
        return most
    seconds = {count: _seconds(count) for count in (1, most)}
    chosen = min(seconds, key=lambda count: seconds[count])
    torch.set_num_threads(chosen)
    return chosen


def _seconds(threads: int) -> float:
    """Time of products like those of a small transformer; the median of some rounds."""
    torch.set_num_threads(threads)
    left, right = torch.ones(ROWS, WIDTH), torch.ones(WIDTH, WIDTH)
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(PRODUCTS):
            torch.nn.functional.gelu(left @ right)
        rounds.append(time.perf_counter() - started)
    return sorted(rounds)[ROUNDS // 2]
