"""Rows of numbers on disk, one for each sample: written whole or not at all, shared, bounded.

An entry is a folder named by its key. Processes that write one together write a file each; the
folder gets its name only when all of them are on the disk, with a manifest, so a name stands for a
whole entry. What was damaged since goes, and is computed anew. Standard library, numpy and torch
tensors only; nothing is unpickled.
"""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hfbench import manifest
from hfbench.disk import cache_folder, sync

LIMIT_BYTES = 20 * 2**30  # of all entries together; never more than half of what is free
ABANDONED_SECONDS = 86_400  # a folder that nobody wrote to for so long was left by a killed run
_WRITING, _GOING = ".writing", ".going"  # in the names of folders that are no entries (any more)


def entries_folder() -> Path:
    """Where entries are kept."""
    return cache_folder("prefix")


class RowWriter:
    """One process's part of an entry.

    Every row is (length, \\*tail) of one dtype; ``length`` may differ from row to row.
    """

    def __init__(self, folder: Path, part: int) -> None:
        self.folder, self.part = folder, part
        self.indices: list[int] = []
        self.lengths: list[int] = []
        self.dtype: torch.dtype | None = None
        self.tail: tuple[int, ...] = ()
        self.file = (folder / f"{part}.bin").open("wb")

    def add(
        self, indices: Sequence[int], rows: Tensor, lengths: Sequence[int] | None = None
    ) -> None:
        """``rows``: (samples, longest, \\*tail), of which ``lengths`` count; None: all.

        Raises OSError, for instance on a full disk.
        """
        rows = rows.detach().cpu().contiguous()
        lengths = [rows.shape[1]] * len(indices) if lengths is None else lengths
        self.dtype, self.tail = rows.dtype, tuple(rows.shape[2:])
        if min(lengths) == rows.shape[1]:
            self.file.write(memory_of(rows))
        else:
            for row, length in zip(rows, lengths, strict=True):
                self.file.write(memory_of(row[:length]))
        self.indices += indices
        self.lengths += lengths

    def close(self) -> None:
        """Flush to the disk. Raises OSError."""
        with self.file:
            self.file.flush()
            os.fsync(self.file.fileno())
        np.save(self.folder / f"{self.part}.npy", np.array([self.indices, self.lengths], np.int64))
        sync(self.folder / f"{self.part}.npy")


def finish(folder: Path, key: str, writer: RowWriter, *, parts: int, seconds: float) -> Path:
    """Give the whole entry its name; where another program was faster, theirs is kept if whole.

    ``seconds``: what computing all of its prefix took.

    Raises OSError, for instance where a damaged entry could not be deleted.
    """
    assert writer.dtype is not None, "an entry without rows"
    dtype = str(writer.dtype).removeprefix("torch.")
    values = {"parts": parts, "dtype": dtype, "tail": writer.tail, "seconds": seconds}
    manifest.seal(folder, {"key": key, **values})
    final = entries_folder() / key
    try:
        folder.rename(final)
    except OSError:
        if is_whole(key):
            shutil.rmtree(folder)
        else:  # a damaged one goes, unless it cannot be deleted
            folder.rename(final)
    sync(final.parent)
    return final


def start(key: str) -> Path:
    """A new folder to write an entry's parts in."""
    folder = entries_folder() / f"{key}{_WRITING}-{os.getpid()}-{time.time_ns()}"
    folder.mkdir(parents=True)
    return folder


class Rows:
    """An entry, open for reading; it may be deleted meanwhile without harm.

    What it holds was checked by :func:`is_whole`.
    """

    def __init__(self, key: str) -> None:
        """Raises OSError or DamagedError for an entry that is gone or has changed meanwhile."""
        folder = entries_folder() / key
        with contextlib.suppress(PermissionError):  # of another user, or read-only
            os.utime(folder)  # the entries used longest ago are deleted first
        values = manifest.read_manifest(folder)["about"]
        self.dtype: torch.dtype = getattr(torch, values["dtype"])
        self.tail = tuple(values["tail"])
        self.seconds: float = values["seconds"]  # that computing it took
        self.step_bytes: int = math.prod(self.tail) * self.dtype.itemsize
        tables = [np.load(folder / f"{part}.npy") for part in range(values["parts"])]
        count = sum(table.shape[1] for table in tables)
        self.lengths: npt.NDArray[np.int64] = np.zeros(count, np.int64)
        self._part, self._offset = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._files: list[int] = []
        try:
            self._open(folder, tables)
        except BaseException:
            self.close()
            raise

    def _open(self, folder: Path, tables: Sequence[npt.NDArray[np.int64]]) -> None:
        for part, (indices, lengths) in enumerate(tables):
            ends = np.cumsum(lengths) * self.step_bytes
            self.lengths[indices], self._part[indices] = lengths, part
            self._offset[indices] = ends - lengths * self.step_bytes
            self._files.append(os.open(folder / f"{part}.bin", os.O_RDONLY))
            size = os.fstat(self._files[-1]).st_size
            if size != (ends[-1] if len(ends) else 0):
                raise manifest.DamagedError(f"{folder}: {part}.bin has {size} bytes")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def size_bytes(self) -> int:
        """Of all rows."""
        total: int = self.lengths.sum().item()
        return total * self.step_bytes

    def read(self, indices: Sequence[int]) -> Tensor:
        """(samples, longest length, \\*tail), short rows filled with zeros."""
        wanted = np.asarray(indices)
        lengths = self.lengths[wanted]
        longest = int(lengths.max())
        short = bool((lengths != longest).any())
        rows = (torch.zeros if short else torch.empty)(
            (len(wanted), longest, *self.tail), dtype=self.dtype
        )
        places = memory_of(rows)
        stride = longest * self.step_bytes
        for row, (part, offset, length) in enumerate(
            zip(self._part[wanted], self._offset[wanted], lengths * self.step_bytes, strict=True)
        ):
            place = places[row * stride : row * stride + length]
            if os.preadv(self._files[part], [place], offset) != length:
                raise OSError(f"the frozen prefix of sample {indices[row]} could not be read whole")
        return rows

    def close(self) -> None:
        for descriptor in self._files:
            os.close(descriptor)
        self._files = []


def is_whole(key: str) -> bool:
    """Whether there is an entry of this name, every byte of which is as it was written.

    One that is damaged is named, and deleted: it is computed anew.
    """
    folder = entries_folder() / key
    if not folder.is_dir():
        return False
    try:
        about = manifest.check(folder)
    except manifest.DamagedError as error:
        problem = str(error)
    else:
        if about["key"] == key:
            return True
        problem = f"{str(folder)!r} is the entry {about['key']} under another name"
    print(f"frozen prefix: what is stored was damaged ({problem}) and is computed anew")
    delete(folder)
    return False


def find(key: str) -> Rows | None:
    """The entry of this name, that :func:`is_whole`; None where it is gone."""
    try:
        return Rows(key)
    except (OSError, manifest.DamagedError):
        return None


def delete(folder: Path) -> None:
    """Take an entry away at once, its name first: nobody finds half of it."""
    going = folder.with_name(f"{folder.name}{_GOING}-{os.getpid()}-{time.time_ns()}")
    with contextlib.suppress(OSError):  # another program may be deleting it too
        folder.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, to read and to write."""
    values: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(values)


def make_room(size_bytes: int) -> str | None:
    """Delete abandoned folders and the entries used longest ago until ``size_bytes`` fit.

    Why they cannot be stored, or None.
    """
    folder = entries_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        entries = sorted(_entries(), key=lambda entry: entry[1])
        _tidy(folder)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    kept_bytes = sum(size for _, _, size in entries)
    limit = min(LIMIT_BYTES, kept_bytes + free // 2)
    if size_bytes > limit:
        return f"{size_bytes / 2**30:.1f} GiB do not fit beside the rest in {folder}"
    for entry, _, entry_bytes in entries:
        if kept_bytes + size_bytes <= limit:
            break
        delete(entry)
        kept_bytes -= entry_bytes
    return None


def _tidy(folder: Path) -> None:
    """Remove what nobody finished to write or to delete."""
    for left in (*folder.glob(f"*{_WRITING}-*"), *folder.glob(f"*{_GOING}-*")):
        if time.time() - _last_use(left) > ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _entries() -> Iterator[tuple[Path, float, int]]:
    """(folder, last use, bytes) of every whole entry; what others put there is none."""
    for entry in entries_folder().iterdir():
        if _WRITING not in entry.name and _GOING not in entry.name and entry.is_dir():
            with contextlib.suppress(FileNotFoundError):  # deleted by another program
                yield entry, _last_use(entry), sum(f.stat().st_size for f in entry.iterdir())


def _last_use(folder: Path) -> float:
    """Seconds since 1970; of a folder that is gone: now."""
    with contextlib.suppress(FileNotFoundError):
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return time.time()
