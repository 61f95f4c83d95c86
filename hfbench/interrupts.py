"""Ctrl-C at any moment: the exit code 130 and one line, from the one process that speaks.

While libraries are imported, before the work and after it, the process ends at once: an exception
there would come out of code that does not expect it. Within the work a KeyboardInterrupt unwinds
what is open, so that temporary files go. A second press ends that too.

Standard library only, and little of it: this is loaded first.
"""

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
ONE_PRESS_SECONDS = 1.0  # a terminal and a launcher may both pass one press on
STANDARD_ERROR = 2


class _State:
    """Of this process, as far as its signal handler must know it."""

    process_id = 0  # that answers; forked workers of libraries do not
    speaks = True
    line = "interrupted"
    unwinds = False  # an exception reaches ``unwinding``
    pressed_at: float | None = None
    said = False


_state = _State()


def answer_interrupts(*, speaks: bool | None = None) -> None:
    """From now on Ctrl-C ends this process as this module says; for the main thread.

    ``speaks``: whether it prints the line; by default the main process of a launcher's does. What
    came while whoever started the process let interrupts wait is answered now. Where they are to be
    ignored (nohup), they stay ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    _state.process_id = os.getpid()
    _state.speaks = os.environ.get("RANK", "0") == "0" if speaks is None else speaks
    signal.signal(signal.SIGINT, _on_interrupt)
    # Registered first, so called last: what Python takes down then knows no handler any more.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sys.unraisablehook = _ending_where_it_would_be_lost(sys.unraisablehook)


@contextmanager
def unwinding(line: str) -> Iterator[None]:
    """Within, an interrupt is a KeyboardInterrupt; ``line`` says what became of the work."""
    _state.line, _state.unwinds = line, True
    try:
        yield
    finally:
        _state.unwinds = False


def say_interrupted() -> None:
    """Print the line unless it was printed, or another process prints it."""
    if _state.speaks and not _state.said:
        _state.said = True
        # A terminal has "^C" or a progress bar in that line. Not through Python's stream, which
        # the handler may have interrupted.
        start = "\n" if os.isatty(STANDARD_ERROR) else ""
        os.write(STANDARD_ERROR, f"{start}hfbench: {_state.line}\n".encode("ascii"))


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Within, interrupts wait; in processes started within, until they answer them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_interrupt(signal_number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.process_id:
        raise KeyboardInterrupt  # a forked worker: its library knows what to do
    now = time.monotonic()
    if _state.pressed_at is not None and now - _state.pressed_at < ONE_PRESS_SECONDS:
        return
    again = _state.pressed_at is not None
    _state.pressed_at = now
    if again or not _state.unwinds or _importing(frame):
        _end_at_once()
    raise KeyboardInterrupt


def _end_at_once() -> None:
    say_interrupted()
    os._exit(INTERRUPTED)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _ending_where_it_would_be_lost(
    hook: Callable[["sys.UnraisableHookArgs"], object],
) -> Callable[["sys.UnraisableHookArgs"], object]:
    """Python drops an exception in a finaliser or a callback: the interrupt would not end it."""

    def ending(unraisable: "sys.UnraisableHookArgs") -> object:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _end_at_once()
        return hook(unraisable)

    return ending
