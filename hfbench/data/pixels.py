"""Every image of a split in one tensor, for networks that are fed without a reader."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from hfbench.data.cropping import Facts
from hfbench.data.idx import Bytes, pgm_header
from hfbench.data.media import Unreadable, decode_image, encoded
from hfbench.errors import UnreadableError, UserError


def load_pixels(
    dataset: Dataset,
    split: str,
    unreadable: Unreadable | None = None,
    facts: Facts | None = None,
) -> Tensor:
    """The column ``image`` as grey levels: (images, height, width), uint8.

    What :func:`decode_image` says of them is added to ``facts``. Images that are missing or broken
    are left out and go to ``unreadable``; without it they are an error.

    Raises UserError for an image of another size than the first, and where none can be read.
    """
    values = dataset["image"][:]
    images: dict[int, Bytes] = {}
    for row, value in enumerate(values):
        try:
            image = _decoded(value, split, row, facts)
        except UnreadableError as error:
            if unreadable is None:
                raise
            unreadable[row] = error.reason
            continue
        if row == 0 and (pixels := _bare_pixels(values, *image.shape)) is not None:
            return torch.from_numpy(pixels)
        first = next(iter(images), row)
        if image.shape != images.setdefault(first, image).shape:
            raise UserError(
                f"{split} row {row} has {_size(image)} pixels and row {first} "
                f"{_size(images[first])}: this network needs images of one size"
            )
        images[row] = image
    if not images:
        raise UserError(f"no image of {split} can be read")
    return torch.from_numpy(np.stack(list(images.values())))


def _bare_pixels(values: list[Any], height: int, width: int) -> Bytes | None:
    """All pixels at once where every image is bytes with the same PGM header, else None."""
    header = pgm_header(height, width)
    size = len(header) + height * width
    if not all(isinstance(v, bytes) and len(v) == size and v.startswith(header) for v in values):
        return None
    rows = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), size)
    return rows[:, len(header) :].reshape(-1, height, width).copy()


def _decoded(value: Any, split: str, row: int, facts: Facts | None) -> Bytes:
    source, name = encoded(value, "image", f"{split} row {row}")
    return np.asarray(decode_image(source, "L", name, facts))


def _size(image: Bytes) -> str:
    return f"{image.shape[1]} × {image.shape[0]}"


class PixelSamples:
    """A split in memory as tensors; whole batches are index slices of them.

    The tensors move to the device of the first batch that is read and stay there, as bytes: a
    batch becomes float32 when it is read.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        *,
        mean: float,
        std: float,
        facts: Mapping[str, float] | None = None,
    ) -> None:
        """``pixels``: (samples, height, width), uint8; ``labels``: (samples,), int64.

        ``mean`` and ``std`` are what is subtracted from, then divides, pixels in [0, 1]; ``facts``
        what decoding had to say.
        """
        self.facts = facts or {}
        self.pixels, self.labels = pixels.unsqueeze(1), labels
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``pixel_values``: (1, height, width), float32; ``labels``: int."""
        values = normalised(self.pixels[index], self.mean, self.std)
        return {"pixel_values": values, "labels": int(self.labels[index])}

    def read_batch(self, indices: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """``pixel_values``: (batch, 1, height, width), float32; ``labels``: (batch,), int64."""
        if self.pixels.device != device:
            self.pixels, self.labels = self.pixels.to(device), self.labels.to(device)
        chosen = torch.tensor(indices, device=device)
        pixels = self.pixels.index_select(0, chosen)
        return {
            "pixel_values": normalised(pixels, self.mean, self.std),
            "labels": self.labels.index_select(0, chosen),
        }


def normalised(pixels: Tensor, mean: float, std: float) -> Tensor:
    """Bytes as float32: divided by 255 as torchvision's ToTensor does, then centred and scaled."""
    values = pixels / 255
    return values if (mean, std) == (0.0, 1.0) else values.sub_(mean).div_(std)
