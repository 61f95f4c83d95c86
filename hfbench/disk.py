"""Making files durable. Standard library only."""

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
