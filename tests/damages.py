"""What may happen to a file of ours after it was written."""

import os
from collections.abc import Callable
from pathlib import Path


def flip(path: Path) -> None:
    """One bit: of JSON in a digit of a number, where it has one, else near the middle."""
    data = bytearray(path.read_bytes())
    digit = data.find(b"0.") if path.suffix == ".json" else -1
    data[digit if digit >= 0 else len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "flipped": flip,
}
