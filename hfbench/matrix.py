"""A matrix of strategies and seeds, each run in a process of its own.

The processes are forked from a server that has imported the libraries and nothing else: a run
starts in a fraction of a second, its peak memory is its own, and a run that dies takes nothing
with it. This module does not import torch.
"""

import contextlib
import dataclasses
import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from hfbench.config import RunConfig, StrategyConfig
from hfbench.exits import guarded
from hfbench.record import finished_result, run_name


def plan_matrix(
    config: RunConfig, strategies: Sequence[StrategyConfig], seeds: Sequence[int], folder: Path
) -> list[RunConfig]:
    """One configuration for each of ``strategies`` × ``seeds``, in folders below ``folder``.

    What a frozen prefix gives is kept for the runs to come, and strategies that train many blocks
    come before those that train few: each goes on from the shorter prefix of the one before it.
    """
    cache: Literal["off", "always"] = "off" if config.cache == "off" else "always"
    runs = [
        dataclasses.replace(config, strategy=strategy, seed=seed, cache=cache)
        for seed in seeds
        for strategy in sorted(strategies, key=_trained_blocks, reverse=True)
    ]
    return [dataclasses.replace(run, output_dir=str(folder / run_name(run))) for run in runs]


def _trained_blocks(strategy: StrategyConfig) -> float:
    """Of the last blocks, how many train; infinite where the first one may train too."""
    if strategy.name == "head":
        return 0
    return (strategy.n if strategy.name == "last_n" else strategy.last_n) or math.inf


def run_matrix(runs: Sequence[RunConfig], *, debug: bool = False, log: Path | None = None) -> int:
    """Run what is not finished; returns the number of runs that failed.

    Before the first of them every strategy is tried on the network's shapes: a mistake in one is
    to be known before hours are spent on the others. A run that fails leaves its result and the
    others go on; a mistake of the user ends all with its exit code. ``debug`` shows the traceback
    of a mistake. ``log`` takes the reports of the runs; progress and errors then go to standard
    error, and nothing to standard output.
    """
    titles = sys.stdout if log is None else sys.stderr
    context = multiprocessing.get_context("forkserver")
    if runs:
        context.set_forkserver_preload(_libraries(runs[0]))
    waiting = [run for run in runs if finished_result(Path(str(run.output_dir)), run) is None]
    if waiting:  # a failure of ours is shown and left to the runs
        _in_child(context, _check_in_child, waiting, debug)
    failed = 0
    for index, run in enumerate(runs):
        title = f"[{index + 1}/{len(runs)}] {run.strategy.label}, seed {run.seed}"
        folder = Path(str(run.output_dir))
        if finished_result(folder, run) is not None:
            print(f"{title}: {folder} holds this run already", file=titles)
            continue
        print(f"\n{title}", file=titles, flush=True)
        failed += _in_child(context, _run_in_child, run, debug, log) != 0
    return failed


def _in_child(context: Any, target: Callable[..., None], *arguments: Any) -> int | None:
    """The exit code of ``target`` in a process; a mistake of the user ends this one with it."""
    process = context.Process(target=target, args=arguments)
    process.start()
    process.join()
    if process.exitcode in (2, 3, 130):
        sys.exit(process.exitcode)
    code: int | None = process.exitcode
    return code


def _libraries(run: RunConfig) -> list[str]:
    """Modules that every run of a matrix imports sooner or later, for seconds each time."""
    # PyTorch's optimisers import its compiler when the first of them is made.
    modules = ["hfbench.run", f"hfbench.tasks.{run.task}", "torch._dynamo"]
    if run.network is None:
        modules += ["transformers.modeling_utils", "transformers.processing_utils", "peft"]
    return modules


def _check_in_child(runs: Sequence[RunConfig], debug: bool) -> None:
    from hfbench.preparation import check_strategy

    def action() -> int:
        for run in {run.strategy: run for run in runs}.values():
            check_strategy(run)
        return 0

    sys.exit(guarded(action, debug=debug))


def _run_in_child(config: RunConfig, debug: bool, log: Path | None) -> None:
    from hfbench.run import run

    def action() -> int:
        run(config)
        return 0

    with contextlib.ExitStack() as stack:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            reports = stack.enter_context(log.open("a", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(reports))
        code = guarded(action, debug=debug)
    sys.exit(code)
