"""A matrix of strategies and seeds, each run in a process of its own.

The processes are forked from a server that has imported the libraries and nothing else: a run
starts in a fraction of a second, its peak memory is its own, and a run that dies takes nothing
with it. This module does not import torch.
"""

import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path

from hfbench.config import RunConfig, StrategyConfig, replace
from hfbench.record import run_name


def run_matrix(
    config: RunConfig, strategies: Sequence[StrategyConfig], seeds: Sequence[int], folder: Path
) -> int:
    """Run what is not finished of ``strategies`` × ``seeds`` into folders below ``folder``.

    A run that fails leaves its result and the others go on; a mistake of the user ends all with
    its exit code. Returns the number of runs that failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hfbench.run"])
    total, failed = len(strategies) * len(seeds), 0
    for index, (seed, strategy) in enumerate((s, t) for s in seeds for t in strategies):
        print(f"\n[{index + 1}/{total}] {strategy.label}, seed {seed}", flush=True)
        run = replace(config, strategy=strategy, seed=seed)
        run = replace(run, output_dir=str(folder / run_name(run)))
        process = context.Process(target=_run_in_child, args=(run,))
        process.start()
        process.join()
        if process.exitcode in (2, 3, 130):
            sys.exit(process.exitcode)
        if process.exitcode != 0:
            failed += 1
            print(f"{strategy.label}, seed {seed} ended with code {process.exitcode}")
    return failed


def _run_in_child(config: RunConfig) -> None:
    from hfbench.cli import guarded
    from hfbench.run import run

    def action() -> int:
        run(config)
        return 0

    sys.exit(guarded(action))
