"""Standard streams that take every character, obey none, and may be closed while we write.

Whatever text for people contains (labels, names of files, results), no terminal is told to do
anything by it.

Standard library only, and little of it: this is loaded first.
"""

import codecs
import io
import os
import sys
from typing import TextIO

from hfbench.terminal_text import visible_beside_bars

PRINTABLE = "hfbench.printable"  # the error handler's name
_PLAIN = {
    "×": "x",
    "±": "+-",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "·": "*",
    "µ": "u",
    "μ": "u",
    "²": "2",
    "³": "3",
    "█": "#",
    "─": "-",
}


def make_streams_last() -> None:
    """Let standard output and error print anything, and lose it quietly once nobody reads.

    What their encoding lacks is written in plain letters, or as Python's escapes; what a terminal
    would obey is written in letters too (:mod:`hfbench.terminal_text`). Of closed streams
    the empty device takes the place, so that no file of ours gets their number.
    """
    codecs.register_error(PRINTABLE, _in_plain_letters)
    _open_missing()
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 (for good)
    sys.stdout = lasting(sys.stdout)
    sys.stderr = lasting(sys.stderr)


def write_out(text: str, *, for_programs: bool = False) -> None:
    """Print what a command answers; CSV and JSON in UTF-8, whatever the terminal shows.

    These leave as they are for a file or a program, and like all text for a terminal.
    """
    stream = sys.stdout
    if for_programs and isinstance(stream, io.TextIOWrapper) and stream.encoding != "utf-8":
        stream.reconfigure(encoding="utf-8")
    if for_programs and isinstance(stream, _LastingStream) and not stream.isatty():
        stream.write_as_it_is(text)
    else:
        stream.write(text)
    stream.flush()


class _LastingStream(io.TextIOWrapper):
    """A text stream whose reader may go, as ``head`` does, without ending the work."""

    def write(self, text: str) -> int:
        self.write_as_it_is(visible_beside_bars(text))
        return len(text)

    def write_as_it_is(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """What is still to be written goes nowhere; Python would fail on it again at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror, self.buffer.name) from error


def lasting(stream: TextIO | None) -> TextIO:
    """A stream over the same file as described above; None is the empty device."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, _LastingStream):
        return stream
    stream.reconfigure(errors=PRINTABLE)  # libraries may hold it
    return _LastingStream(
        stream.buffer,
        encoding=stream.encoding,
        errors=PRINTABLE,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_missing() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    plain = (_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing)
    return "".join(plain), error.end
