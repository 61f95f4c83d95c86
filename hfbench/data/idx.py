"""Folders of MNIST's original idx files, gzipped or not; Fashion-MNIST's have the same names.

The format (Yann LeCun's page on MNIST): two zero bytes, a byte for the type of the values (8:
unsigned byte), a byte for the number of dimensions, each dimension as a big-endian 32-bit number,
then the values.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
from datasets import Dataset

from hfbench.errors import UserError
from hfbench.plain_files import open_plain

Bytes = npt.NDArray[np.uint8]

PREFIXES = {"train": "train", "test": "t10k"}  # split -> how the names of its files begin
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
MAX_BYTES = 2**31  # of one file, unzipped; all of extended MNIST has a quarter of it
_UNSIGNED_BYTE = 8
_GZIP_MAGIC = b"\x1f\x8b"


def holds_idx_files(folder: Path) -> bool:
    """Whether at least one of the four files is there, so that the others may be asked for."""
    names = [f"{prefix}-{kind}" for prefix in PREFIXES.values() for kind in (IMAGES, LABELS)]
    return any((folder / f"{name}{suffix}").is_file() for name in names for suffix in ("", ".gz"))


def files_of(folder: Path) -> list[Path]:
    """The four files. Raises UserError for one that is missing."""
    return [
        _find(folder, f"{prefix}-{kind}")
        for prefix in PREFIXES.values()
        for kind in (IMAGES, LABELS)
    ]


def load_idx_folder(folder: Path) -> dict[str, Dataset]:
    """The splits train and test, with the columns ``image`` (PGM bytes) and ``label`` (a number).

    Raises UserError naming the file that is missing or broken, and for counts that differ.
    """
    return {split: _load_split(folder, prefix) for split, prefix in PREFIXES.items()}


def read_idx(path: Path, *, dimensions: int) -> Bytes:
    """The values of one idx file of unsigned bytes; a name in .gz is unzipped.

    Raises UserError for another kind of file, other dimensions, and too few or too many values.
    """
    try:
        with open_plain(path) as file:
            return _values(path, _unzipped(path, file), dimensions)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{str(path)!r} is a truncated or broken gzip file ({error}); fetch it again"
        ) from error
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


def _values(path: Path, stream: BinaryIO | gzip.GzipFile, dimensions: int) -> Bytes:
    """No more is read, and nothing is unzipped, than the header says."""
    header_bytes = 4 + 4 * dimensions
    content = stream.read(header_bytes)
    magic = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if content[:4] != magic:
        hint = ""
        if content[:2] == _GZIP_MAGIC:
            hint = "; it is compressed: unzip it, or let its name end in .gz"
        raise UserError(
            f"{str(path)!r} is not an idx file of unsigned bytes in {dimensions} dimensions: it "
            f"begins with 0x{content[:4].hex()}, not with the magic number 0x{magic.hex()}{hint}"
        )
    if len(content) < header_bytes:
        raise UserError(f"{str(path)!r} is truncated: its header has {header_bytes} bytes")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    expected = header_bytes + math.prod(shape)
    sizes = " × ".join(map(str, shape))
    if expected > MAX_BYTES:
        raise UserError(
            f"{str(path)!r} is damaged or too large: its header says {sizes} values, at most "
            f"{MAX_BYTES:,} are read"
        )
    content += stream.read(expected + 1 - header_bytes)
    if len(content) != expected:
        has = f"{len(content):,}" if len(content) < expected else "more"
        problem = "truncated" if len(content) < expected else "too long"
        raise UserError(
            f"{str(path)!r} is {problem}: its header says {sizes} values, {expected:,} bytes in "
            f"all, and it has {has}; fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape)


def _unzipped(path: Path, file: BinaryIO) -> BinaryIO | gzip.GzipFile:
    if path.suffix != ".gz":
        return file
    magic = file.read(2)
    if magic != _GZIP_MAGIC:
        raise UserError(
            f"{str(path)!r} is not a gzip file: it begins with 0x{magic.hex()}; fetch it "
            "again, or drop .gz from its name if it was unzipped"
        )
    file.seek(0)
    return gzip.GzipFile(fileobj=file)


def _load_split(folder: Path, prefix: str) -> Dataset:
    image_file, label_file = (_find(folder, f"{prefix}-{kind}") for kind in (IMAGES, LABELS))
    images = read_idx(image_file, dimensions=3)
    labels = read_idx(label_file, dimensions=1)
    if len(images) != len(labels):
        raise UserError(
            f"{str(image_file)!r} holds {len(images):,} images and {str(label_file)!r} "
            f"{len(labels):,} labels: fetch both from one place"
        )
    columns = {"image": as_pgm(images), "label": pa.array(labels.astype(np.int64))}
    return Dataset(pa.table(columns))


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{str(folder)!r} lacks the file {name} or {name}.gz")


def as_pgm(images: Bytes) -> pa.Array:
    """Grey images (count, height, width) as an Arrow column of files that every reader knows.

    PGM is a short header before the bare pixels (netpbm's P5), so nothing is computed.
    """
    count, height, width = images.shape
    header = np.frombuffer(pgm_header(height, width), dtype=np.uint8)
    rows = np.empty((count, len(header) + height * width), dtype=np.uint8)
    rows[:, : len(header)] = header
    rows[:, len(header) :] = images.reshape(count, -1)
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1]), count, [None, pa.py_buffer(rows)]
    )
    return fixed.cast(pa.binary())


def pgm_header(height: int, width: int) -> bytes:
    """What stands before the pixels of a grey image with 256 levels."""
    return f"P5\n{width} {height}\n255\n".encode()
