"""An image processor as it is: in two steps where that is proven to be the same, else whole."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hfbench.data.cropping import Facts
from hfbench.errors import UserError

PIXELS = "pixel_values"
BYTES = "pixels"  # resized and cropped, before the second step
TOLERANCE = 1e-6  # of pixel values, which are about 1: rounding in another order
_STEPS = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
_PROBED_SIZES = ((64, 48), (37, 53), (300, 200))  # width, height
_SHAPE = "shape of "  # a fact, with a feature's name and its shape behind it


class ImageSteps:
    """Images to the arguments of a network.

    Most processors resize and crop bytes, then rescale and normalise each pixel. The bytes are a
    quarter as large, so they are kept and the second step follows in the batch, as long as the
    processor's own output is the same on random images of several sizes. All other processors run
    whole on every image, and everything that they make of it goes into the batch.
    """

    def __init__(self, processor: Any, mode: str, accepted: Sequence[str] | None = None) -> None:
        """``mode``: "RGB" or "L"; ``accepted``: names of the outputs to keep; None: all."""
        self.processor, self.mode, self.accepted = processor, mode, accepted
        self.two_steps = False
        generator = np.random.default_rng(0)
        probes = [
            Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)).convert(mode)
            for w, h in _PROBED_SIZES
        ]
        self.outputs = tuple(self._whole(probes[0]))
        if self.outputs == (PIXELS,) and all(hasattr(processor, step) for step in _STEPS):
            self.two_steps = all(map(self._same_in_two_steps, probes))

    def decode(self, image: Image.Image, facts: Facts) -> dict[str, Tensor]:
        """Of one image ``BYTES``, (channels, height, width), uint8, or what the processor makes."""
        found = {BYTES: self._bytes(image)} if self.two_steps else self._whole(image)
        for name, value in found.items():
            facts[f"{_SHAPE}{name}: {described_shape(value)}"] += 1
        return found

    def batch(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Arguments of the network: (batch, ...) each, ``pixel_values`` in float32.

        Raises UserError for samples of different sizes.
        """
        names = [name for name in samples[0] if name != "labels"]
        for name in names:
            shapes = {described_shape(sample[name]) for sample in samples}
            if len(shapes) > 1:
                raise self._differing(name, sorted(shapes))
        together = {name: torch.stack([sample[name] for sample in samples]) for name in names}
        if self.two_steps:
            return {PIXELS: self._normalised(together[BYTES].float())}
        return together

    def check_shapes(self, facts: Facts) -> None:
        """Raise UserError where the samples of all splits have not one size."""
        for feature in (BYTES, *self.outputs):
            start = f"{_SHAPE}{feature}: "
            found = {name: round(n) for name, n in facts.items() if name.startswith(start)}
            if len(found) > 1:
                common = sorted(found, key=lambda name: -found[name])[:3]
                shown = [f"{name.removeprefix(start)} of {found[name]:,} images" for name in common]
                raise self._differing(feature, shown)

    def values(self, image: Image.Image) -> Tensor | None:
        """``pixel_values`` of one image, (channels, height, width); None where it has no such."""
        whole = self._whole(image).get(PIXELS)
        return whole if whole is not None and whole.ndim == 3 else None

    def _differing(self, name: str, shapes: Sequence[str]) -> UserError:
        shown = "pixel_values" if name == BYTES else name
        return UserError(
            f"{type(self.processor).__name__} gives {shown} of different sizes for images of "
            f"different sizes ({', '.join(shapes)}), and they fit no batch: its settings "
            "(preprocessor_config.json of the checkpoint) fix no size. Set a size there in a local "
            "copy of the checkpoint, or make the images alike"
        )

    def _call(self, image: Image.Image, **options: Any) -> Any:
        if self.mode == "L":
            options["input_data_format"] = "channels_first"
        return self.processor(image, return_tensors="pt", **options)

    def _whole(self, image: Image.Image) -> dict[str, Tensor]:
        found = self._call(image)
        names = [name for name in found if self.accepted is None or name in self.accepted]
        return {name: torch.as_tensor(found[name])[0] for name in names}

    def _bytes(self, image: Image.Image) -> Tensor:
        pixels: Tensor = self._call(image, do_rescale=False, do_normalize=False)[PIXELS][0]
        return pixels

    def _same_in_two_steps(self, image: Image.Image) -> bool:
        whole = self._whole(image)[PIXELS]
        try:
            pixels = self._bytes(image)
        except (TypeError, ValueError, RuntimeError):  # it cannot do without its second step
            return False
        if pixels.dtype != torch.uint8 or pixels.shape != whole.shape:
            return False
        return bool((self._normalised(pixels.float()) - whole).abs().max() <= TOLERANCE)

    def _normalised(self, pixels: Tensor) -> Tensor:
        if self.processor.do_rescale:
            pixels = pixels * self.processor.rescale_factor
        if self.processor.do_normalize:
            mean, std = (
                torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
                for values in (self.processor.image_mean, self.processor.image_std)
            )
            pixels = (pixels - mean) / std
        return pixels


def described_shape(value: Tensor) -> str:
    return " × ".join(map(str, value.shape)) or "one number"
