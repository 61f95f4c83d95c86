"""What a run leaves that failed, or that a signal ended: its result says why and, after a signal,
from where it goes on. Of several processes the first that failed counts, and it alone speaks.
"""

import contextlib
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from accelerate import Accelerator

from hfbench.disk import disk_problem
from hfbench.errors import (
    HubUnreachableError,
    OtherProcessFailedError,
    TrainingFailedError,
    UserError,
    is_out_of_memory,
)
from hfbench.exits import speak_for_all
from hfbench.interrupts import (
    Interrupted,
    asked_to_end,
    ends_anyway,
    interrupted_by_all,
    signals_wait,
)
from hfbench.killed import killed
from hfbench.record import Record
from hfbench.results import Failure, Status
from hfbench.training.company import NEWS_SECONDS, Cause, Company, company, meet
from hfbench.training.divergence import DivergedError
from hfbench.training.state import last_step

OUT_OF_MEMORY_ADVICE = (
    "out of memory: lower training.batch_size (and raise training.gradient_accumulation_steps as "
    "much), or choose a strategy that trains less"
)


@contextmanager
def failing_together() -> Iterator[None]:
    """Within, all processes of the launcher end when one has failed, and one says why."""
    together = company()
    together.watch()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        cause = _first_cause(together, error)
        if cause is None and together.size > 1:
            raise interrupted_by_all(_signal(together, error)) from error
        if cause is None:
            raise
        if cause.rank == together.rank:
            speak_for_all()
            raise
        if cause.killed and together.speaks():
            speak_for_all(of_another=True)
            raise TrainingFailedError(cause.reason) from None
        raise OtherProcessFailedError(cause.reason) from error
    finally:
        together.leave()


@contextmanager
def ends_recorded(
    record: Record, accelerator: Accelerator, out_of_memory: Callable[[], None]
) -> Iterator[None]:
    """Within, a run that fails leaves its first cause, one that a signal ends ``interrupted``.

    A mistake of the user that is found before the training leaves nothing. ``out_of_memory`` is
    called where that is the cause, on the process that records it, maybe by two threads.

    Raises:
        TrainingFailedError, UserError: in place of exhausted memory, and of a disk that refuses.
    """
    together, started = company(), time.perf_counter()

    def keep(cause: Cause) -> None:
        if record.begun or not cause.mistake:
            record.update(total_seconds=time.perf_counter() - started)
            failure = Failure(cause.rank, cause.traceback)
            record.write_failure(cause.status, cause.reason, failure)
            if cause.status == "out_of_memory":
                out_of_memory()

    def say_killed(rank: int) -> str:
        predicted, hardware = record.fields["predicted"], record.fields["hardware"]
        return f"process {rank} was {killed(signal.SIGKILL, predicted, hardware)}"

    together.record, together.killed = keep, say_killed
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        cause = _first_cause(together, error)
        if cause is None:
            _record_interrupt(record, accelerator, error, _signal(together, error))
            raise
        for tracker in accelerator.trackers:
            tracker.finish()
        if cause.rank != together.rank:
            raise OtherProcessFailedError(cause.reason) from error
        if is_out_of_memory(error):
            raise TrainingFailedError(f"{OUT_OF_MEMORY_ADVICE} ({error})") from error
        if isinstance(error, Exception) and (problem := disk_problem(error)):
            raise UserError(f"{str(record.folder)!r}: {problem}") from error
        raise
    finally:
        together.record = None


def _first_cause(together: Company, error: BaseException) -> Cause | None:
    """Why all end, told and recorded; None where a signal asked for it."""
    # What the launcher sends when another process has ended does not disturb this.
    with contextlib.suppress(Interrupted), signals_wait():
        asked = isinstance(error, KeyboardInterrupt) or (
            together.size > 1 and asked_to_end() is not None
        )
        cause = together.news(NEWS_SECONDS if _may_follow(error) and not asked else 0.0)
        # That may have reached this process, or another one, only after the connection broke.
        if together.size > 1:
            asked = asked or asked_to_end() is not None or together.ended_by() is not None
        if cause is None and not asked:
            cause = together.settle(_cause(error, together.rank))
        if cause is not None:
            if together.size > 1:
                ends_anyway()
            together.tell(cause)
    return together.cause


def _may_follow(error: BaseException) -> bool:
    """Whether it may be how the end of another process shows here, such as a lost connection."""
    ours = isinstance(error, TrainingFailedError | HubUnreachableError)
    return isinstance(error, RuntimeError) and not ours and not is_out_of_memory(error)


def _cause(error: BaseException, rank: int) -> Cause:
    status: Status = "diverged" if isinstance(error, DivergedError) else "failed"
    if is_out_of_memory(error):
        status = "out_of_memory"
    return Cause(
        rank,
        status,
        f"{type(error).__name__}: {error}",
        "".join(traceback.format_exception(error)),
        mistake=isinstance(error, UserError | HubUnreachableError),
    )


def _signal(together: Company, error: BaseException) -> int:
    """Which one ends all processes; the others are told."""
    if isinstance(error, Interrupted) and error.agreed:
        return error.number
    own = error.number if isinstance(error, Interrupted) else asked_to_end() or signal.SIGINT
    return together.end_by(together.ended_by() or own)


def _record_interrupt(
    record: Record, accelerator: Accelerator, error: BaseException, number: int
) -> None:
    if accelerator.is_main_process and record.begun:
        step = last_step(record.folder)
        record.update(steps=step or 0)
        record.write("interrupted", stop_reason(number, step))
        for tracker in accelerator.trackers:
            tracker.finish()
    if isinstance(error, Interrupted) and error.agreed:
        meet()  # a launcher ends all when the first has ended


def stop_reason(number: int, step: int | None) -> str:
    """``step``: after which the last state was kept; None for none."""
    name = signal.Signals(number).name
    if step is None:
        return f"ended by {name} before a state was kept: the same command starts anew"
    return f"ended by {name}; the same command goes on after step {step}"
