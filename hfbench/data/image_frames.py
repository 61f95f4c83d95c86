"""What becomes of the frame of an image: resized, squashed, cropped; measured, not looked up.

Images whose brightness grows from left to right, or from top to bottom, go through the processor.
The brightness of its output tells which part of the frame it shows.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from hfbench.data.cropping import share

SIZE = "image size: "  # a fact, with "width × height" behind it
# Of width and height; above rounding to whole pixels in small images.
SQUASHED = 1.05
CROPPED = 0.98  # of a side that remains; below is more than the borders' blur
_BINS = 8  # of aspect ratios, per doubling, where there are many sizes
_FEW_SIZES = 24

Values = Callable[[Image.Image], Tensor | None]  # (channels, height, width) of an image
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Frame:
    """What a processor makes of images of one size.

    Attributes:
        resized: the whole image's width and height after resizing, before cropping.
        output: width and height.
        kept: share of the width and of the height that is in the output, up to 1.
    """

    size: Size
    resized: Size
    output: Size
    kept: tuple[float, float]

    @property
    def cropped(self) -> bool:
        return min(self.kept) < CROPPED

    @property
    def squashed(self) -> bool:
        across, down = (
            after / before for after, before in zip(self.resized, self.size, strict=True)
        )
        return max(across, down) / min(across, down) > SQUASHED


def describe_frames(
    values: Values, mode: str, facts: Mapping[str, float], summary: dict[str, Any]
) -> None:
    """Add to the summary and its notes what of the images is cropped and squashed.

    Nothing where the processor gives no images (patches, colours of a palette).
    """
    sizes = {_size(name): round(n) for name, n in facts.items() if name.startswith(SIZE)}
    scale = _Scale.of(values, mode)
    if scale is None or not sizes:
        return
    common = max(sizes, key=lambda size: sizes[size])
    groups = _groups(sizes)
    frames = {group: scale.frame(max(group, key=lambda s: sizes[s])) for group in groups}
    counts = {group: sum(sizes[size] for size in group) for group in groups}
    cropped = [group for group in groups if frames[group].cropped]
    squashed = sum(counts[group] for group in groups if frames[group].squashed)
    pixels = {group: sum(w * h * sizes[w, h] for w, h in group) for group in groups}
    lost = sum(pixels[group] * (1 - math.prod(frames[group].kept)) for group in cropped)
    total = sum(counts.values())
    first = scale.frame(common)
    summary["frames"] = {
        "images": total,
        "output": list(first.output),
        "cropped": sum(counts[group] for group in cropped),
        "cropped_pixels_percent": round(100 * lost / sum(pixels.values()), 2),
        "squashed": squashed,
        "black": round(scale.black, 4),
        "white": round(scale.white, 4),
    }
    then = ""
    if first.cropped:
        then = f", of which {_shown(first.output)} remain"
    elif first.resized != first.output:
        then = f" and padded to {_shown(first.output)}"
    summary["notes"].append(
        f"images: those of {_shown(common)} pixels, the most common size, are resized to "
        f"{_shown(first.resized)}{then}; black is {scale.black:.3g} and white {scale.white:.3g}"
    )
    if cropped:
        summary["notes"].append(
            f"{summary['frames']['cropped']:,} of {total:,} images are cropped by the image "
            f"processor: {share(lost, sum(pixels.values()))} of all pixels are left out"
        )
    if squashed:
        summary["notes"].append(
            f"{squashed:,} of {total:,} images are squashed by the image processor: their width "
            "and height are not scaled alike"
        )


@dataclass(frozen=True)
class _Scale:
    """A processor with what it makes of black and white: the mean over the channels."""

    values: Values
    mode: str
    black: float
    white: float

    @classmethod
    def of(cls, values: Values, mode: str) -> "_Scale | None":
        ends = [values(Image.new(mode, (64, 64), level)) for level in ("black", "white")]
        if ends[0] is None or ends[1] is None:
            return None
        black, white = (float(_middle(end).mean()) for end in ends if end is not None)
        return None if black == white else cls(values, mode, black, white)

    def frame(self, size: Size) -> Frame:
        """Of images of this size."""
        width, height = size
        generator = np.random.default_rng(0)
        shares, output = [], []
        for length, other, axis in ((width, height, 0), (height, width, 1)):
            # Rounded at random, so that the mean over the other side is not rounded.
            ramp = np.linspace(0, 254, length) + generator.random((other, length))
            profile = self._profile(ramp if axis == 0 else ramp.T, axis)
            output.append(len(profile))
            shares.append(_share_shown(profile, length))
        resized = [round(length / part) for length, part in zip(output, shares, strict=True)]
        return Frame(
            size,
            (resized[0], resized[1]),
            (output[0], output[1]),
            (min(1.0, shares[0]), min(1.0, shares[1])),
        )

    def _profile(self, ramp: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
        """Brightness, 0 to 1, along one side: the mean over the middle half of the other."""
        image = Image.fromarray(np.floor(ramp).astype(np.uint8)).convert(self.mode)
        values = self.values(image)
        assert values is not None, "a processor gives the same kind of output for every image"
        middle = _middle(values if axis == 0 else values.mT).mean(dim=(0, 1)).numpy()
        return np.asarray((middle - self.black) / (self.white - self.black))


def _middle(values: Tensor) -> Tensor:
    """(channels, rows, columns) without the first and the last quarter of the rows, float32."""
    quarter = values.shape[1] // 4
    return values[:, quarter : values.shape[1] - quarter].float()


def _share_shown(profile: npt.NDArray[Any], length: int) -> float:
    """How much of a side the output shows, by the slope of its middle half; above 1 with padding.

    A ramp of ``length`` pixels rises by 254 / 255 over all but one of them.
    """
    quarter = len(profile) // 4
    middle = profile[quarter : len(profile) - quarter]
    if length < 2 or len(middle) < 2:
        return 1.0
    slope = np.polyfit(np.arange(len(middle)), middle, 1)[0] * 255 / 254
    shown = float(slope * len(profile) * (length - 1) / length)
    return 1.0 if shown <= 0 or abs(shown - 1) < 1 - CROPPED else shown


def _groups(sizes: Mapping[Size, int]) -> list[tuple[Size, ...]]:
    """Sizes of which one stands for all: each for itself, or like aspect ratios together."""
    if len(sizes) <= _FEW_SIZES:
        return [(size,) for size in sizes]
    found: dict[int, list[Size]] = defaultdict(list)
    for width, height in sizes:
        found[round(math.log2(width / height) * _BINS)].append((width, height))
    return [tuple(group) for group in found.values()]


def _size(fact: str) -> Size:
    width, _, height = fact.removeprefix(SIZE).partition(" × ")
    return int(width), int(height)


def _shown(size: Size) -> str:
    return f"{size[0]} × {size[1]}"
