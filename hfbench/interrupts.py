"""Ctrl-C and the signals of schedulers at any moment: one line, and 128 + signal as exit code.

While libraries are imported, before the work and after it, the process ends at once: an exception
there would come out of code that does not expect it. Within the work an :class:`Interrupted`
unwinds what is open, so that temporary files go. Between the steps of a training it waits for the
step to end (:func:`signals_wait`). A second signal ends all that too. The line comes from the one
process that speaks.

Standard library only, and little of it: this is loaded first.
"""

import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from hfbench.rank import is_main_process

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # the last: a scheduler's warning
SIGNALS = frozenset(getattr(signal, name) for name in NAMES if hasattr(signal, name))
EXIT_CODES = {128 + number: number for number in SIGNALS}
INTERRUPTED = 128 + signal.SIGINT
ONE_PRESS_SECONDS = 1.0  # a terminal and a launcher may both pass one press on
LAUNCHED_PRESS_SECONDS = 3.0  # torchrun passes on what reached it, and ends all when one has ended
STANDARD_ERROR = 2


class Interrupted(KeyboardInterrupt):
    """A signal asks this process to end.

    Attributes:
        number: of the signal.
        agreed: every process of the launcher raises this, after the same step.
    """

    def __init__(self, number: int, *, agreed: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.agreed = number, agreed


class _State:
    """Of this process, as far as its signal handler must know it."""

    process_id = 0  # that answers; forked workers of libraries do not
    speaks = True
    line = "interrupted"
    unwinds = False  # an exception reaches ``unwinding``
    waits = False  # within ``signals_wait``
    asked: int | None = None  # the first signal
    asked_at = 0.0
    said = False


_state = _State()


def answer_interrupts(*, speaks: bool | None = None) -> None:
    """From now on signals end this process as this module says; for the main thread.

    ``speaks``: whether it prints the line; by default the main process of a launcher's does. What
    came while whoever started the process let signals wait is answered now. Those that are to be
    ignored (nohup) stay ignored.
    """
    answered = {n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    _state.process_id = os.getpid()
    _state.speaks = is_main_process() if speaks is None else speaks
    for number in answered:
        signal.signal(number, _on_signal)
        # Registered first, so called last: what Python takes down then knows no handler any more.
        atexit.register(signal.signal, number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, answered)
    sys.unraisablehook = _ending_where_it_would_be_lost(sys.unraisablehook)


def asked_to_end() -> int | None:
    """The signal that reached this process first."""
    return _state.asked


def interrupted_by_all(number: int) -> Interrupted:
    """To be raised after all processes agreed to end by ``number``, which may have reached others.

    What their launcher sends when the first of them has ended is then no second signal.
    """
    _state.asked, _state.asked_at = number, time.monotonic()
    return Interrupted(number, agreed=True)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Within, a first signal is only noted (:func:`asked_to_end`); it is answered at the end."""
    _state.waits = True
    try:
        yield
    finally:
        _state.waits = False
    if _state.asked is not None:
        raise Interrupted(_state.asked)


@contextmanager
def unwinding(line: str) -> Iterator[None]:
    """Within, a signal raises Interrupted; ``line`` says what became of the work."""
    _state.line, _state.unwinds = line, True
    try:
        yield
    finally:
        _state.unwinds = False


def speak_no_more() -> None:
    """Something else says why this process ends."""
    _state.speaks = False


def ends_anyway() -> None:
    """This process ends and says why itself; its launcher's SIGTERM does not cut that short."""
    _state.speaks = False
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def say_interrupted() -> None:
    """Print the line unless it was printed, or another process prints it."""
    if _state.speaks and not _state.said:
        _state.said = True
        # A terminal has "^C" or a progress bar in that line. Not through Python's stream, which
        # the handler may have interrupted.
        start = "\n" if os.isatty(STANDARD_ERROR) else ""
        line = _state.line
        if _state.asked not in (None, signal.SIGINT):
            name = signal.Signals(_state.asked).name
            line = line.replace("interrupted", f"interrupted by {name}", 1)
        # The terminal or the program that read it may be gone, and this process ends all the same.
        with contextlib.suppress(OSError):
            os.write(STANDARD_ERROR, f"{start}hfbench: {line}\n".encode("ascii"))


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Within, signals wait; in processes started within, until they answer them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.process_id:
        _in_worker(number)
        return
    now = time.monotonic()
    again = _state.asked is not None
    if again and now - _state.asked_at < _one_press_seconds():
        return
    if not again:
        _state.asked, _state.asked_at = number, now
        if _state.waits:
            return
    if again or not _state.unwinds or _importing(frame):
        end_at_once()
    raise Interrupted(number)


def _in_worker(number: int) -> None:
    """A process that a library forked: the library knows what to do.

    One that prepares batches of a step that is to end goes on; it ends with its parent.
    """
    if _state.waits:
        _state.waits = False  # not at a second signal
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    else:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _one_press_seconds() -> float:
    return LAUNCHED_PRESS_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else ONE_PRESS_SECONDS


def end_at_once() -> NoReturn:
    """End the process now, with its line and without unwinding anything."""
    say_interrupted()
    os._exit(128 + (_state.asked or signal.SIGINT))


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
            end_at_once()
        return hook(unraisable)

    return ending
