"""Files that end: no pipe, which is waited for for ever, no device, no folder in a file's place.

Standard library only.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from hfbench.errors import UserError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
# Without waiting for who writes into a pipe that took the file's place a moment ago.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_plain(path: str | Path) -> BinaryIO:
    """Open a regular file, also behind a link, to read its bytes.

    Raises OSError for anything else; its ``strerror`` says what it is.
    """
    require_plain(path)  # to open a device may already do something
    descriptor = os.open(path, _FLAGS)
    try:
        _require(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_plain(path: str | Path) -> bytes:
    """All bytes of a regular file. Raises OSError as :func:`open_plain` does."""
    with open_plain(path) as file:
        return file.read()


def require_plain(path: str | Path) -> None:
    """Raise OSError unless ``path`` is a regular file, or a link to one."""
    _require(os.stat(path), path)


def require_plain_files(folder: Path) -> None:
    """Raise UserError for the first entry of a folder that is neither a file nor a folder."""
    for path in sorted(folder.iterdir()):
        try:
            if not path.is_dir():
                require_plain(path)
        except FileNotFoundError:  # a link to nothing: whoever needs the file says that it lacks
            continue
        except OSError as error:
            raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _require(found: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
