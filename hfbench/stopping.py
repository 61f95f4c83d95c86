"""What a run leaves that a signal ended: its result says so, and from where it goes on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator

from hfbench.interrupts import Interrupted, asked_to_end
from hfbench.record import Record
from hfbench.training.state import last_step


@contextmanager
def stops_recorded(record: Record, accelerator: Accelerator) -> Iterator[None]:
    """Within, a run that has begun and that a signal ends leaves the status ``interrupted``.

    Of several processes, one that has ended makes the others fail. Where the signal had reached
    them too, it is the reason.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        _record(record, accelerator, error)
        raise
    except Exception as error:
        number = asked_to_end()
        if number is None or accelerator.num_processes == 1:
            raise
        stopped = Interrupted(number)
        _record(record, accelerator, stopped)
        raise stopped from error


def _record(record: Record, accelerator: Accelerator, error: KeyboardInterrupt) -> None:
    agreed = isinstance(error, Interrupted) and error.agreed
    number = error.number if isinstance(error, Interrupted) else signal.SIGINT
    if accelerator.is_main_process and record.written:
        step = last_step(record.folder)
        record.update(steps=step or 0)
        record.write("interrupted", stop_reason(number, step))
        for tracker in accelerator.trackers:
            tracker.finish()
    if agreed:  # a launcher ends all when the first has ended
        accelerator.wait_for_everyone()


def stop_reason(number: int, step: int | None) -> str:
    """``step``: after which the last state was kept; None for none."""
    name = signal.Signals(number).name
    if step is None:
        return f"ended by {name} before a state was kept: the same command starts anew"
    return f"ended by {name}; the same command goes on after step {step}"
