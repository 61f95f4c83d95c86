"""Commands in processes of their own, as a shell starts them, to be sent signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hfbench.interrupts import SIGNALS


@contextmanager
def started(
    arguments: list[str], *, blocked: bool = False, more: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Python with these arguments, in a process group of its own as a shell makes it.

    ``blocked``: SIGINT waits until it is answered; ``more``: of the environment.
    """

    def before_python() -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # whatever the tests were started with
        how = signal.SIG_BLOCK if blocked else signal.SIG_UNBLOCK
        signal.pthread_sigmask(how, {signal.SIGINT} if blocked else SIGNALS)

    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (more or {}),
        start_new_session=True,
        preexec_fn=before_python,
    )
    try:
        yield process
    finally:
        for left in living(process.pid):
            os.kill(left, signal.SIGKILL)
        process.communicate()


def living(session: int) -> list[int]:
    """The processes of a session, without those that have ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        state, _, _, its_session = text.rpartition(")")[2].split()[:4]
        if int(its_session) == session and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not reached():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
