"""Folders of idx files, written as the format says."""

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def idx_bytes(values: Bytes) -> bytes:
    """Two zeros, 8 for unsigned bytes, the number of dimensions, their sizes, the values."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.tobytes()


def write_idx_folder(
    folder: Path, train: tuple[Bytes, Bytes], test: tuple[Bytes, Bytes], *, zipped: bool = False
) -> Path:
    """Each split as images (count, height, width) and labels (count,)."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        for name, values in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            content = idx_bytes(values)
            path = folder / f"{prefix}-{name}"
            if zipped:
                path = path.with_name(f"{path.name}.gz")
                content = gzip.compress(content, compresslevel=1)
            path.write_bytes(content)
    return folder


def patterns(count: int, *, seed: int = 0) -> tuple[Bytes, Bytes]:
    """Images of MNIST's size that can be learnt: under noise, ten patterns of 7 × 7 squares."""
    coarse = np.random.default_rng(99).integers(0, 128, (10, 7, 7))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)[labels]
    return (images + rng.integers(0, 128, images.shape)).astype(np.uint8), labels.astype(np.uint8)
