"""Files that are whole or absent, whatever stops the program, and where kept ones lie.

Standard library only.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from hfbench.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_SIGNS = ("No space left on device", "Disk quota exceeded")  # libraries keep only the text
_TOO_LARGE_SIGN = "File too large"
_IN_THE_WAY = {errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}


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


def check_place(path: Path, named: str, kind: Literal["file", "folder"]) -> None:
    """Raise UserError now, rather than after the work, where ``path`` could not be written.

    ``named``: the option and what the user gave it.
    """
    path = path.absolute()
    existing = next(place for place in (path, *path.parents) if os.path.exists(place))
    if existing == path and path.is_dir() != (kind == "folder"):
        other = "folder" if path.is_dir() else "file"
        raise UserError(f"{named} is a {other}: give a {kind}")
    if existing != path and not existing.is_dir():
        raise UserError(f"{named} cannot be made: {str(existing)!r} is a file; give another path")
    if not os.access(existing, os.W_OK):
        raise UserError(
            f"{named} cannot be written: {str(existing)!r} does not permit it; give a path in a "
            "folder of yours"
        )


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
    if isinstance(error, OSError):
        return _unusable_path(error)
    return None


def is_full(error: BaseException) -> bool:
    """Whether a full disk, a quota or a limit on files is what ``error`` comes from."""
    signs = (*_FULL_SIGNS, _TOO_LARGE_SIGN)
    return any(
        getattr(cause, "errno", None) in {*_FULL, errno.EFBIG}
        or any(sign in str(cause) for sign in signs)
        for cause in _causes(error)
    )


def _unusable_path(error: OSError) -> str | None:
    """In words, where the error is not about our own program but about what lies there."""
    name = error.filename
    if not isinstance(name, str):
        return None
    in_the_way = error.errno == errno.EEXIST and not os.path.isdir(name)
    if error.errno not in _IN_THE_WAY and not in_the_way:
        return None
    reason = "it is a file" if in_the_way else error.strerror
    return f"{name!r} cannot be used: {reason}; {_remedy(Path(name))}"


def _remedy(path: Path) -> str:
    libraries = os.environ.get("HF_HOME") or cache_folder("").parent / "huggingface"
    for variable, folder in (("HF_HOME", Path(libraries)), ("XDG_CACHE_HOME", cache_folder(""))):
        if path.is_relative_to(folder):
            return f"set {variable} to a folder that you may write"
    return "use another path, or change what lies there"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
