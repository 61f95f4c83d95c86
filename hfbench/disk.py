"""Files that are whole or absent, whatever stops the program, and where kept ones lie.

Standard library only.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_SIGNS = ("No space left on device", "Disk quota exceeded")  # libraries keep only the text
_TOO_LARGE_SIGN = "File too large"
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def sync(path: Path) -> None:
    """Flush a file or, where the system can open one, a folder (a rename in it) to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name, flush it to the disk, and rename it to ``path``.

    Makes missing folders. Raises OSError, and then leaves ``path`` as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def cache_folder(kind: str) -> Path:
    """``$XDG_CACHE_HOME/hfbench/<kind>`` (``~/.cache`` when unset); it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hfbench" / kind


def disk_problem(error: BaseException) -> str | None:
    """What the disk refused and what to do, if that is what ``error`` comes from; else None."""
    for cause in _causes(error):
        number, text = getattr(cause, "errno", None), str(cause)
        if number in _FULL or any(sign in text for sign in _FULL_SIGNS):
            return f"no space left on the disk: {text}; free some, or write to another disk"
        if number == errno.EFBIG or _TOO_LARGE_SIGN in text:
            return (
                f"a file would become larger than is allowed here: {text}; raise the limit "
                "(ulimit -f), or write to another disk"
            )
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return f"access is refused: {error}; change the permissions, or use another path"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
