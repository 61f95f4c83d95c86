"""Image classification: one image to one label."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForImageClassification, TimmWrapperImageProcessor

from hfbench.data.cropping import Facts
from hfbench.data.media import DecodedSamples, Unreadable, decode_image, exif_notes
from hfbench.models import loading
from hfbench.tasks.base import Samples
from hfbench.tasks.classification import ClassificationTask, with_labels


class ImageClassification(ClassificationTask):
    """Images are resized and cropped once, to uint8; scale and normalisation follow in the batch.

    The batch equals the image processor's own output. A processor without the steps rescale and
    normalize (timm's) runs whole on every image instead.
    """

    name = "image_classification"
    modality = "image"
    model_class = AutoModelForImageClassification

    def load_processor(self) -> Any:
        channels = getattr(loading.load_config(self.config.model), "num_channels", 3)
        self.mode = "L" if channels == 1 else "RGB"
        processor = loading.load_image_processor(self.config.model)
        steps = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
        self.two_steps = all(hasattr(processor, step) for step in steps)
        return processor

    def features(
        self, rows: Dataset, title: str, *, keep: bool, unreadable: Unreadable | None = None
    ) -> Samples:
        """``pixels``: (channels, height, width), uint8; float32 for processors that run whole."""
        return DecodedSamples(
            rows,
            "image",
            title,
            feature="pixels",
            decode=self._pixels,
            keep=keep,
            unreadable=unreadable,
        )

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """``pixel_values``: (batch, channels, height, width), float32; ``labels``: (batch,)."""
        pixels = torch.stack([sample["pixels"] for sample in samples]).float()
        if self.two_steps:
            pixels = self._normalize(pixels)
        return with_labels({"pixel_values": pixels}, samples)

    def save_processor(self, folder: Path) -> None:
        # timm's data configuration lies in the model's config.json, from where it is read again
        if not isinstance(self.processor, TimmWrapperImageProcessor):
            super().save_processor(folder)

    def describe_inputs(self, facts: Facts, summary: dict[str, Any]) -> None:
        summary["notes"].extend(exif_notes(facts))

    def _pixels(self, source: str | bytes, name: str, facts: Facts) -> dict[str, Tensor]:
        image = decode_image(source, self.mode, name, facts)
        options: dict[str, Any] = {"return_tensors": "pt"}
        if self.mode == "L":
            options["input_data_format"] = "channels_first"
        if self.two_steps:
            options.update(do_rescale=False, do_normalize=False)
        return {"pixels": self.processor(image, **options)["pixel_values"][0]}

    def _normalize(self, pixels: Tensor) -> Tensor:
        if self.processor.do_rescale:
            pixels = pixels * self.processor.rescale_factor
        if self.processor.do_normalize:
            mean, std = (
                torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
                for values in (self.processor.image_mean, self.processor.image_std)
            )
            pixels = (pixels - mean) / std
        return pixels
