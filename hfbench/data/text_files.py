"""Bytes of files and streams as text."""

import codecs
from pathlib import Path

from hfbench.errors import UserError
from hfbench.plain_files import read_plain

# UTF-32 first: its mark begins as that of UTF-16 does.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SUGGESTED = (("WINDOWS-1252", "cp1252"), ("GB18030", "gb18030"))  # iconv's name and Python's
SHOWN = 60  # characters of a line in messages


def read_text(path: Path) -> str:
    """The whole file. Raises UserError as ``decode`` does and where it cannot be read."""
    try:
        content = read_plain(path)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    return decode(content, repr(str(path)), file=path)


def decode(content: bytes, name: str, *, file: Path | None = None) -> str:
    """UTF-8, or what the byte order mark says, as Excel's "Unicode text" has one (UTF-16).

    ``file``: is named in the advice. Raises UserError that names the line and the byte.
    """
    marked = ((mark, encoding) for mark, encoding in _MARKS if content.startswith(mark))
    mark, encoding = next(marked, (b"", "utf-8"))
    if not mark and b"\0" in content[:2]:
        raise UserError(
            f"{name} begins with a zero byte among its first two, as UTF-16 without a byte order "
            f"mark does: convert it, {_iconv('UTF-16LE', file)}"
        )
    try:
        return content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise _not_text(content, len(mark) + error.start, encoding, name, file) from error


def _not_text(
    content: bytes, position: int, encoding: str, name: str, file: Path | None
) -> UserError:
    if encoding != "utf-8":
        return UserError(f"{name} is not {encoding.upper()} text, as its first bytes say")
    number = content.count(b"\n", 0, position) + 1
    line_start = content.rfind(b"\n", 0, position) + 1
    line = content[line_start:].partition(b"\n")[0].rstrip(b"\r")
    place = position - line_start
    problem = f"{name}, line {number}: byte {place + 1}, 0x{content[position]:02x}, is no UTF-8"
    readings = {known: text for known, codec in _SUGGESTED if (text := _around(line, place, codec))}
    if not readings:
        return UserError(f"{problem}; write it as UTF-8")
    shown = " and ".join(f"as {known} there stands {text!r}" for known, text in readings.items())
    return UserError(f"{problem}; {shown}. Convert it, {_iconv(next(iter(readings)), file)}")


def _around(line: bytes, place: int, codec: str) -> str | None:
    """What stands around a byte in another encoding; None where the line is not of this one."""
    try:
        text = line.decode(codec)
    except UnicodeDecodeError:
        return None
    at = len(line[:place].decode(codec, "replace"))
    return text[max(0, at - SHOWN // 2) : at + SHOWN // 2]


def _iconv(encoding: str, file: Path | None) -> str:
    name = "FILE" if file is None else file.name
    return f"for instance with: iconv -f {encoding} -t UTF-8 {name} > utf8_{name}"
