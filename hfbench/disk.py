"""Files that are whole or absent, whatever stops the program, and where kept ones lie.

Standard library only.
"""

import os
from pathlib import Path


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
