"""How a command ends: with one message and an exit code, whatever happened. No heavy imports."""

import atexit
import errno
import gc
import os
import sys
from collections.abc import Callable

from hfbench.errors import (
    HubUnreachableError,
    NotPublishedError,
    TrainingFailedError,
    UserError,
)


def guarded(action: Callable[[], int], *, debug: bool = False) -> int:
    """Run ``action``; a user's mistake becomes one message and the exit code 2 (hub: 3).

    Failures of ours keep their traceback; Python then exits with 1.
    """
    _collect_rarely()
    try:
        return action()
    except (UserError, HubUnreachableError, TrainingFailedError, NotPublishedError) as error:
        if debug:
            raise
        return _report(str(error), error.exit_code)
    except Exception as error:
        if debug or not _is_disk_full(error):
            raise
        return _report(f"no space left on the disk: {error}; free some or change output_dir", 2)
    except KeyboardInterrupt:
        return _report("interrupted; the same command continues", 130)


def _collect_rarely() -> None:
    """Spare the garbage collector PyTorch's many lasting objects: 1 to 2 s of each command.

    While imports make them they would be looked at again and again, and once more at the end.
    """
    gc.set_threshold(10_000, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def _report(message: str, exit_code: int) -> int:
    rank = os.environ.get("RANK", "0")
    where = "" if rank == "0" else f" (process {rank})"
    print(f"hfbench: error{where}: {message}", file=sys.stderr)
    return exit_code


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, says so (safetensors has only its text)."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def to_stdout(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # "| head" has read enough; Python would fail again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
