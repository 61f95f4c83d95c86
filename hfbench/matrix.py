"""A matrix of strategies and seeds, each run in a process of its own.

The processes are forked from a server that has imported the libraries and nothing else: a run
starts in a fraction of a second, its peak memory is its own, and a run that dies takes nothing
with it. This module does not import torch.
"""

import contextlib
import dataclasses
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, Literal, TextIO

from hfbench.claim import compared
from hfbench.config import RunConfig, StrategyConfig
from hfbench.errors import StartAgainError
from hfbench.exits import guarded
from hfbench.expectation import Durations
from hfbench.interrupts import EXIT_CODES, INTERRUPTED, Interrupted, interrupts_wait
from hfbench.keeping import keep_best
from hfbench.killed import record_killed
from hfbench.processes import lives
from hfbench.record import finished_result, run_name
from hfbench.spelling import COMPARE
from hfbench.start import prepare_child
from hfbench.status import remark, working
from hfbench.streams import lasting

FULL_DISK = 5  # how a run says that the disk took no more; to others a failed run
START_AGAIN = 6  # how a run says that it is to be started again, with smaller batches
PATIENCE_SECONDS = 30.0  # for a run that was interrupted to end its step and to keep its state
ORPHAN_SECONDS = 10.0  # within which a run ends whose server is gone
SERVER_GONE = 255  # what multiprocessing then says of it


def plan_matrix(
    config: RunConfig, strategies: Sequence[StrategyConfig], seeds: Sequence[int], folder: Path
) -> list[RunConfig]:
    """One configuration for each of ``strategies`` × ``seeds``, in folders below ``folder``.

    What a frozen prefix gives is kept for the runs to come, and strategies that train many blocks
    come before those that train few: each goes on from the shorter prefix of the one before it.
    """
    cache: Literal["off", "always"] = "off" if config.cache == "off" else "always"
    training = dataclasses.replace(config.training, oom=config.training.oom or "retry")
    usual = dataclasses.replace(config, cache=cache, training=training)
    runs = [
        dataclasses.replace(usual, strategy=strategy, seed=seed)
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
    others go on, also where the disk takes no more for one of them; a mistake of the user ends all
    with its exit code. The parameters are listed once a strategy, by the first run that succeeds.
    ``debug`` shows the traceback of a mistake. ``log`` takes the reports of the runs; progress and
    errors then go to standard error, and nothing to standard output.

    Raises UserError where another process makes runs in the same folders.
    """
    with compared({Path(str(run.output_dir)).parent for run in runs}):
        return _run_all(runs, debug, log)


def _run_all(runs: Sequence[RunConfig], debug: bool, log: Path | None) -> int:
    titles = sys.stdout if log is None else sys.stderr
    context = multiprocessing.get_context("forkserver")
    if runs:
        context.set_forkserver_preload(_libraries(runs[0]))
    known = {run: finished_result(Path(str(run.output_dir)), run) for run in runs}
    waiting = [run for run, result in known.items() if result is None]
    durations = Durations()
    for result in filter(None, known.values()):
        durations.add(result.strategy, result.total_seconds)
    print(_overview(runs, waiting, durations), file=titles, flush=True)
    if waiting:  # a failure of ours is shown and left to the runs
        with working("loading the libraries and trying every strategy on the network's shapes"):
            _in_child(context, _check_in_child, waiting, debug)
    failed, reported = 0, set()
    for index, run in enumerate(runs):
        title = f"[{index + 1}/{len(runs)}] {run.strategy.label}, seed {run.seed}"
        if known[run] is not None:
            print(f"{title}: {run.output_dir} holds this run already", file=titles)
            continue
        print(f"\n{title}", file=titles, flush=True)
        started = time.perf_counter()
        brief = run.strategy in reported
        code: int | None = START_AGAIN
        while code == START_AGAIN:  # in a process whose memory is whole
            code = _in_child(context, _run_in_child, run, brief, debug, log)
        if code is not None and code < 0:
            print(f"hfbench: error: {title}: {record_killed(run, -code)}", file=sys.stderr)
        failed += code != 0
        _keep(runs, titles)
        if code == 0:  # a run that failed may not have come to its list
            reported.add(run.strategy)
            durations.add(run.strategy.label, time.perf_counter() - started)
        if left := [later for later in runs[index + 1 :] if known[later] is None]:
            print(_progress(runs, left, durations), file=titles, flush=True)
    if not waiting:
        _keep(runs, titles)
    return failed


def _keep(runs: Sequence[RunConfig], titles: TextIO) -> None:
    """After each run, so that never more than two models are there."""
    if runs and runs[0].output.keep == "best" and (done := keep_best(runs)) is not None:
        print(done, file=titles, flush=True)


def _overview(runs: Sequence[RunConfig], left: Sequence[RunConfig], durations: Durations) -> str:
    """``6 runs (3 strategies × 2 seeds), 1 finished; the others take about 4 min``."""
    strategies, seeds = (len(set(values)) for values in zip(*map(_place, runs), strict=True))
    text = f"{_number(len(runs), 'run')} ({_number(strategies, 'strategy', 'strategies')} × "
    text += f"{_number(seeds, 'seed')}), {len(runs) - len(left) or 'none'} finished"
    if not left:
        return text
    expected = durations.left([run.strategy.label for run in left])
    if expected is None:
        return f"{text}; how long they take is known when the first has ended"
    return f"{text}; the others take {expected}"


def _progress(runs: Sequence[RunConfig], left: Sequence[RunConfig], durations: Durations) -> str:
    text = f"{len(runs) - len(left)} of {len(runs)} runs done"
    expected = durations.left([run.strategy.label for run in left])
    return text if expected is None else f"{text}; the others take {expected}"


def _place(run: RunConfig) -> tuple[StrategyConfig, int]:
    return run.strategy, run.seed


def _number(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _in_child(context: Any, target: Callable[..., None], *arguments: Any) -> int | None:
    """The exit code of ``target`` in a process.

    A mistake of the user ends this process with it, and an interrupt of either ends both.
    """
    ours, theirs = context.Pipe()
    process = context.Process(target=_begin, args=(theirs, target, *arguments))
    try:
        resource_tracker.ensure_running()  # which would end the wait
        with interrupts_wait():  # the server's and its children's too, until they can answer
            forkserver.ensure_running()
        with ours, theirs:
            process.start()
            ours.send(None)
            process.join()
    except KeyboardInterrupt as error:
        _end(process, error.number if isinstance(error, Interrupted) else signal.SIGINT)
        _end_server()
        raise
    code: int | None = process.exitcode
    if code == SERVER_GONE:  # its run sees that too, and ends
        _wait_for(process.pid, ORPHAN_SECONDS)
    if code in EXIT_CODES:
        raise Interrupted(EXIT_CODES[code])
    if code in (2, 3):
        sys.exit(code)
    return code


def _begin(start: Any, target: Callable[..., None], *arguments: Any) -> None:
    """In the child: once its parent knows it, so that none is left behind by an interrupt."""
    prepare_child()
    try:
        start.recv()
    except EOFError:
        sys.exit(INTERRUPTED)
    target(*arguments)


def _end(process: Any, number: int) -> None:
    """Pass the signal on: it may have reached this process alone."""
    if process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        _wait_for(process.pid, PATIENCE_SECONDS)


def _wait_for(process_id: int, seconds: float) -> None:
    """Until it has ended; then end it. Its server, which knows, may be gone."""
    patience = time.monotonic() + seconds
    while lives(process_id) and time.monotonic() < patience:
        time.sleep(0.05)
    if lives(process_id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def _end_server() -> None:
    """At once: it may be loading libraries for seconds more, and hold our standard error open."""
    server: Any = forkserver
    if (number := server._forkserver._forkserver_pid) is not None:
        os.kill(number, signal.SIGKILL)


def _libraries(run: RunConfig) -> list[str]:
    """Modules that every run of a matrix imports sooner or later, for seconds each time."""
    # PyTorch's optimisers import its compiler when the first of them is made.
    modules = ["hfbench.quiet", "hfbench.run", f"hfbench.tasks.{run.task}", "torch._dynamo"]
    if run.network is None:
        modules += ["transformers.modeling_utils", "transformers.processing_utils", "peft"]
    return modules


def _check_in_child(runs: Sequence[RunConfig], debug: bool) -> None:
    def action() -> int:
        from hfbench.preparation import check_strategy

        for run in {run.strategy: run for run in runs}.values():
            check_strategy(run)
        return 0

    sys.exit(guarded(action, debug=debug, spelling=COMPARE))


def _run_in_child(config: RunConfig, brief: bool, debug: bool, log: Path | None) -> None:
    def action() -> int:
        from hfbench.run import run

        try:
            run(config, brief=brief)
        except StartAgainError as error:
            remark(str(error))
            return START_AGAIN
        return 0

    with contextlib.ExitStack() as stack:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            reports = stack.enter_context(log.open("a", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(lasting(reports)))
        code = guarded(action, debug=debug, spelling=COMPARE, full_disk=FULL_DISK)
    sys.exit(code)
