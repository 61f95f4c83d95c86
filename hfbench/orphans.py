"""A process that a launcher or a command of ours started ends when that one is gone.

    python -m hfbench.orphans PARENT MODULE [ARGUMENT ...]

runs a module that helps the process PARENT (:func:`helper`), watched before anything is imported.

``accelerate launch`` with one process passes no signal on, and nothing passes a SIGKILL on.

Standard library only.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from hfbench.interrupts import asked_to_end, end_at_once

POLL_SECONDS = 0.5
SIGNAL_AT_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
GRACE_SECONDS = 7.0  # to end the step and to keep its state


def end_with_launcher() -> None:
    """End with the launcher that started this process, if one did; not with a shell."""
    parent = os.getppid()
    if "TORCHELASTIC_RUN_ID" in os.environ or _is_accelerate(parent):
        _end_when(lambda: os.getppid() != parent)


def end_with_command() -> None:
    """End with the command of ours that started this process through multiprocessing.

    It may be gone while the fork server, which is the parent, lives as long as its children do.
    """
    import multiprocessing

    server, command = os.getppid(), multiprocessing.parent_process()
    assert command is not None  # else nobody calls this
    _end_when(lambda: os.getppid() != server or not command.is_alive())


def helper(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours for this process, and ends with it."""
    return [sys.executable, "-m", "hfbench.orphans", str(os.getpid()), module, *arguments]


def _help(parent: int, module: str) -> None:
    """Run ``module``; it keeps nothing, so it needs no time to end, and has nothing to say."""

    def watch() -> NoReturn:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    if sys.platform == "linux":  # no thread runs while a library's call keeps Python's lock
        ctypes.CDLL(None).prctl(SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    threading.Thread(target=watch, name="parent", daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_when(alone: Callable[[], bool]) -> None:
    """End as SIGTERM asks for, and at last at once."""
    threading.Thread(target=_watch, args=(alone,), name="parent", daemon=True).start()


def _watch(alone: Callable[[], bool]) -> None:
    while not alone():
        time.sleep(POLL_SECONDS)
    if asked_to_end() is None:  # else a second signal would end it at once
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    end_at_once()


def _is_accelerate(process: int) -> bool:
    """Whether it is ``accelerate launch``; by its words where the system shows them."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:  # which it sets for its workers
        return False
    try:
        return b"accelerate" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return True


if __name__ == "__main__":
    _parent, _module = int(sys.argv[1]), sys.argv[2]
    del sys.argv[1:3]
    _help(_parent, _module)
