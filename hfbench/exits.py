"""How a command ends: with one message and an exit code, whatever happened. No heavy imports."""

import atexit
import gc
import sys
import time
import traceback
from collections.abc import Callable

from hfbench import quiet  # noqa: F401 (silences libraries)
from hfbench.disk import disk_problem, is_full
from hfbench.errors import (
    HubUnreachableError,
    NotPublishedError,
    OtherProcessFailedError,
    TrainingFailedError,
    UserError,
)
from hfbench.interrupts import INTERRUPTED, Interrupted, say_interrupted, unwinding
from hfbench.rank import is_main_process, is_one_of_several, rank
from hfbench.spelling import Spelling, spelled

MAIN_FIRST_SECONDS = 3.0
WORK_GOES_ON = "interrupted; the same command continues"


class _Speech:
    for_all = False  # the processes of the launcher know that this one says why they end
    of_another = False


_speech = _Speech()


def speak_for_all(*, of_another: bool = False) -> None:
    """What is said at the end of this process no other says; it may be about another."""
    _speech.for_all, _speech.of_another = True, of_another


def guarded(
    action: Callable[[], int],
    *,
    debug: bool = False,
    interrupted: str = "interrupted",
    spelling: Spelling = (),
    full_disk: int = 2,
) -> int:
    """Run ``action``; a user's mistake becomes one message and the exit code 2 (hub: 3).

    ``interrupted`` says after a signal what became of the work, ``spelling`` how the command has
    its user write the keys that messages name. ``full_disk`` is the exit code where the disk took
    no more, whatever was being written. Failures of ours keep their traceback; Python then exits
    with 1.
    """
    _collect_rarely()
    try:
        with unwinding(interrupted):
            code = action()
            sys.stdout.flush()
        return code
    except (UserError, HubUnreachableError, TrainingFailedError, NotPublishedError) as error:
        if debug:
            raise
        code = full_disk if is_full(error) else error.exit_code
        return _report(spelled(str(error), spelling), code)
    except OtherProcessFailedError as error:
        return error.exit_code
    except Exception as error:
        problem = disk_problem(error)
        if problem is not None and not debug:
            return _report(problem, full_disk if is_full(error) else 2)
        if not is_one_of_several():
            raise
        traceback.print_exc()
        return _report(f"{type(error).__name__}: {error}", 1)
    except KeyboardInterrupt as error:
        say_interrupted()
        return 128 + error.number if isinstance(error, Interrupted) else INTERRUPTED


def _collect_rarely() -> None:
    """Spare the garbage collector PyTorch's many lasting objects: 1 to 2 s of each command.

    While imports make them they would be looked at again and again, and once more at the end.
    """
    gc.set_threshold(10_000, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def _report(message: str, exit_code: int) -> int:
    own = is_one_of_several() and not _speech.of_another
    where = f" (process {rank()})" if own else ""
    if not is_main_process() and not _speech.for_all:
        time.sleep(MAIN_FIRST_SECONDS)  # if it says the same, its launcher ends this process
    print(f"hfbench: error{where}: {message}", file=sys.stderr)
    return exit_code
