"""Images and sounds as samples: decoded once where they fit into memory, else on every access."""

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from hfbench.answers import cached
from hfbench.data.cropping import Facts
from hfbench.data.orientation import upright
from hfbench.errors import UnreadableError
from hfbench.plain_files import open_plain

MEMORY_LIMIT_BYTES = 2**30  # for the decoded samples of one split

UNREADABLE_EXIF = "images with unreadable EXIF"

Decode = Callable[[str | bytes, str, Facts], Mapping[str, Tensor]]
Unreadable = dict[int, str]  # row -> why it cannot be decoded


class DecodedSamples:
    """A split of encoded images or sounds as ``{feature: tensor, ..., "labels": int}``.

    ``decode(source, name, facts)`` turns a path or bytes into the features of one sample; ``name``
    says in errors which sample it is, and what is to be said of the whole split is added to
    ``facts``. All are decoded at the start and kept if they fit into MEMORY_LIMIT_BYTES. Where
    they do not, such a split is decoded on every access. Without ``keep`` every split is like
    that. Rows without a column ``labels`` are samples without one.

    What cannot be decoded is an error. With ``unreadable``, a dictionary, it is put there (row:
    why) and is no sample; then all that is not kept is decoded once too, and which rows these are
    is remembered for later runs, with the facts.

    Attributes:
        facts: of every sample, where all were decoded.
    """

    def __init__(
        self,
        dataset: Dataset,
        column: str,
        split: str,
        *,
        feature: str,
        decode: Decode,
        keep: bool,
        unreadable: Unreadable | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """``feature``: the one whose first dimension is a sample's length.

        ``settings``: on what the facts depend beside the files; plain JSON values.
        """
        self.dataset = dataset
        self.column = column
        self.split = split
        self.feature = feature
        self.decode = decode
        self.settings = settings or {}
        self.facts = Facts(float)
        self.kept: list[dict[str, Any]] | None = None
        if keep:
            self._decode_all(unreadable)

    def _decode_all(self, unreadable: Unreadable | None) -> None:
        self.kept = []
        size_bytes = 0
        found: Unreadable = {}
        for index in range(len(self.dataset)):
            try:
                sample = self._sample(index, self.facts)
            except UnreadableError as error:
                if unreadable is None:
                    raise
                found[index] = error.reason
                continue
            size_bytes += sum(v.nbytes for v in sample.values() if isinstance(v, Tensor))
            if size_bytes > MEMORY_LIMIT_BYTES:
                self.kept = None
                break
            self.kept.append(sample)
        if unreadable is None:
            return
        if self.kept is None:
            broken, facts = self._check_from(index + 1)
            found |= broken
            self.facts = added([self.facts, facts])
        if found:
            good = np.setdiff1d(np.arange(len(self.dataset)), list(found))
            self.dataset = self.dataset.select(good)
            unreadable.update(found)

    def _check_from(self, start: int) -> tuple[Unreadable, Facts]:
        """What cannot be decoded from this row on, and the facts of the others.

        The answer is kept on this machine.

        A file that is broken later, with the same name, size and time, is an error on access.
        """

        def check() -> tuple[Unreadable, Facts]:
            found, facts = {}, Facts(float)
            rows = range(start, len(self.dataset))
            for row in tqdm(rows, desc=f"check {self.split}", leave=False, disable=None):
                try:
                    self._sample(row, facts)
                except UnreadableError as error:
                    found[row] = error.reason
            return found, facts

        digest = hashlib.sha256()
        for rows in self.dataset.select_columns([self.column]).iter(batch_size=100):
            for value in rows[self.column]:
                digest.update(f"{media_content(value).hex()} {_changed_ns(value)}\n".encode())
        return cached(
            {
                "unreadable from": start,
                "column": self.column,
                "contents": digest.hexdigest(),
                "settings": dict(self.settings),
            },
            check,
            to_json=lambda found: [list(part.items()) for part in found],
            from_json=lambda kept: (
                {int(row): str(reason) for row, reason in kept[0]},
                Facts(float, {str(name): float(value) for name, value in kept[1]}),
            ),
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._sample(index, Facts(float)) if self.kept is None else self.kept[index]

    def lengths(self) -> list[int] | None:
        """The first dimension of every feature; None when the split is not in memory."""
        return None if self.kept is None else [len(sample[self.feature]) for sample in self.kept]

    def labels(self) -> list[Any]:
        """Of every sample, without decoding any."""
        labels: list[Any] = self.dataset["labels"][:]
        return labels

    def digest(self) -> str | None:
        """Of every feature; None where decoding everything would be the price."""
        if self.kept is None:
            return None
        digest = hashlib.sha256()
        for sample in self.kept:
            for name in sorted(sample.keys() - {"labels"}):
                values = sample[name].contiguous()
                digest.update(f"{values.dtype} {tuple(values.shape)} ".encode())
                digest.update(values.numpy())
        return digest.hexdigest()

    def _sample(self, index: int, facts: Facts) -> dict[str, Any]:
        row = self.dataset[index]
        source, name = encoded(row[self.column], self.column, f"{self.split} row {index}")
        labels = {"labels": row["labels"]} if "labels" in row else {}
        return {**self.decode(source, name, facts), **labels}


def decode_image(
    source: str | bytes, mode: str, name: str, facts: Facts | None = None
) -> Image.Image:
    """A PIL image in ``mode`` ("RGB" or "L"), upright as its EXIF orientation says.

    One whose EXIF does not say it is left as it is stored, and counted in ``facts``. Of 16 bits
    the upper eight remain. Raises UnreadableError when it is missing or broken, and for
    pixels of 32 bits, whose range is unknown.
    """
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open_plain(source) as file,
            Image.open(file) as image,
        ):
            turned, readable = upright(image)
            decoded = _with_8_bits(turned).convert(mode)
    # ValueError: of Pillow too, for damaged TIFF and for too long texts in PNG
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        said = getattr(error, "strerror", None) or error  # without the path, which the name has
        raise UnreadableError(name, f"not a readable image: {said}") from error
    if facts is not None and not readable:
        facts[UNREADABLE_EXIF] += 1
    return decoded


def exif_notes(facts: Mapping[str, float]) -> list[str]:
    """For people: how many images were left as they are stored because nothing else is known."""
    count = round(facts.get(UNREADABLE_EXIF, 0))
    if not count:
        return []
    return [
        f"EXIF of {count:,} images cannot be read: they are used as stored, perhaps not upright"
    ]


def added(parts: Iterable[Mapping[str, float]]) -> Facts:
    """The facts of several splits together."""
    total = Facts(float)
    for part in parts:
        for name, value in part.items():
            total[name] += value
    return total


def _with_8_bits(image: Image.Image) -> Image.Image:
    """Grey levels from 0 to 65535 as 0 to 255: ``convert`` would make all above 255 white.

    Raises ValueError for pixels of 32 bits.
    """
    if image.mode in ("I", "F"):
        raise ValueError(
            f"pixels of 32 bits (mode {image.mode}), whose black and white are unknown; save it "
            "with 8 or 16 bits"
        )
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))


def encoded(value: Any, column: str, name: str) -> tuple[str | bytes, str]:
    """What to decode of a column's value, and ``name`` with the file's name if it has one.

    Raises UnreadableError when there is nothing to decode.
    """
    source, path = media_source(value), media_path(value)
    name = f"{name} ({path})" if path else name
    if source is None:
        raise UnreadableError(name, f"empty: column {column!r} holds neither bytes nor a path")
    return source, name


def media_source(value: Any) -> str | bytes | None:
    """What to decode of a column's value: bytes if it has any, else a path; None without."""
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        value = value["bytes"]
    return value if isinstance(value, bytes) else media_path(value)


def media_path(value: Any) -> str | None:
    """The path in a column's value, also beside bytes; None without one."""
    if isinstance(value, Mapping):
        value = value.get("path")
    return str(value) if isinstance(value, (str, Path)) else None


def _changed_ns(value: Any) -> int | None:
    source = media_source(value)
    if not isinstance(source, str) or not Path(source).is_file():
        return None
    return Path(source).stat().st_mtime_ns


def media_content(value: Any) -> bytes:
    """Equal for equal contents, without reading files: of those name and size."""
    source = media_source(value)
    if isinstance(source, bytes):
        return hashlib.sha256(source).digest()
    if source is not None and Path(source).is_absolute() and Path(source).is_file():
        return f"{Path(source).name} {Path(source).stat().st_size}".encode()
    return str(source).encode()
