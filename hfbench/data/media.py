"""Images and sounds as samples: decoded once where they fit into memory, else on every access."""

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from hfbench.errors import UserError

MEMORY_LIMIT_BYTES = 2**30  # for the decoded samples of one split

Decode = Callable[[str | bytes, str], Tensor]


class DecodedSamples:
    """A split of encoded images or sounds as ``{feature: tensor, "labels": int}``.

    ``decode(source, name)`` turns a path or bytes into the feature of one sample; ``name`` says
    in errors which sample it is. All are decoded at the start and kept if they fit into
    MEMORY_LIMIT_BYTES. Decoding stops where they do not; such a split is decoded on every access,
    and a broken file behind that row shows only then. Without ``keep`` every split is like that.
    Rows without a column ``labels`` are samples without one.
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
    ) -> None:
        self.dataset = dataset
        self.column = column
        self.split = split
        self.feature = feature
        self.decode = decode
        self.kept: list[dict[str, Any]] | None = None
        if keep:
            self._decode_all()

    def _decode_all(self) -> None:
        self.kept = []
        size_bytes = 0
        for index in range(len(self.dataset)):
            sample = self._sample(index)
            size_bytes += sample[self.feature].nbytes
            if size_bytes > MEMORY_LIMIT_BYTES:
                self.kept = None
                break
            self.kept.append(sample)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._sample(index) if self.kept is None else self.kept[index]

    def lengths(self) -> list[int] | None:
        """The first dimension of every feature; None when the split is not in memory."""
        return None if self.kept is None else [len(sample[self.feature]) for sample in self.kept]

    def labels(self) -> list[int]:
        """Of every sample, without decoding any."""
        labels: list[int] = self.dataset["labels"][:]
        return labels

    def digest(self) -> str | None:
        """Of every feature; None where decoding everything would be the price."""
        if self.kept is None:
            return None
        digest = hashlib.sha256()
        for sample in self.kept:
            values = sample[self.feature].contiguous()
            digest.update(f"{values.dtype} {tuple(values.shape)} ".encode())
            digest.update(values.numpy())
        return digest.hexdigest()

    def _sample(self, index: int) -> dict[str, Any]:
        row = self.dataset[index]
        source, name = encoded(row[self.column], self.column, f"{self.split} row {index}")
        labels = {"labels": row["labels"]} if "labels" in row else {}
        return {self.feature: self.decode(source, name), **labels}


def decode_image(source: str | bytes, mode: str, name: str) -> Image.Image:
    """A PIL image in ``mode`` ("RGB" or "L"), upright as its EXIF orientation says.

    Raises UserError when it is missing or broken.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return ImageOps.exif_transpose(image).convert(mode)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} is not a readable image: {error}") from error


def encoded(value: Any, column: str, name: str) -> tuple[str | bytes, str]:
    """What to decode of a column's value, and ``name`` with the file's name if it has one.

    Raises UserError when there is nothing to decode.
    """
    path: str | None = None
    source: str | bytes | None = None
    if isinstance(value, Mapping):
        path = value.get("path")
        source = value["bytes"] if value.get("bytes") is not None else path
    elif isinstance(value, (str, Path)):
        source = path = str(value)
    elif isinstance(value, bytes):
        source = value
    name = f"{name} ({path})" if path else name
    if source is None:
        raise UserError(f"{name}: column {column!r} holds neither bytes nor a path")
    return source, name
