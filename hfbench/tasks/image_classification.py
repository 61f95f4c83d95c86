"""Image classification: one image to one label."""

import inspect
import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForImageClassification, TimmWrapperImageProcessor

from hfbench.data.cropping import Facts
from hfbench.data.image_frames import SIZE, describe_frames
from hfbench.data.media import DecodedSamples, Unreadable, decode_image, exif_notes
from hfbench.errors import UserError
from hfbench.models import loading
from hfbench.tasks.base import Samples
from hfbench.tasks.classification import ClassificationTask, with_labels
from hfbench.tasks.image_steps import PIXELS, ImageSteps


class ImageClassification(ClassificationTask):
    """Images go through the checkpoint's image processor, as :class:`ImageSteps` says."""

    name = "image_classification"
    modality = "image"
    model_class = AutoModelForImageClassification

    def load_processor(self) -> Any:
        self.settings = loading.load_config(self.config.model)
        self.mode = "L" if getattr(self.settings, "num_channels", 3) == 1 else "RGB"
        processor = loading.load_image_processor(self.config.model)
        self.steps = ImageSteps(processor, self.mode)
        if self.steps.outputs != (PIXELS,):
            self.steps = ImageSteps(processor, self.mode, self._accepted(processor))
        return processor

    def _accepted(self, processor: Any) -> list[str]:
        """Which of the processor's outputs the network takes. Raises UserError for none."""
        network: Any = loading.build_on_meta(self.settings, self.model_class)
        arguments = inspect.signature(network.forward).parameters
        accepted = [name for name in self.steps.outputs if name in arguments]
        if not accepted:
            raise UserError(
                f"checkpoint {self.config.model.checkpoint!r}: {type(processor).__name__} gives "
                f"{', '.join(self.steps.outputs)}, and {type(network).__name__} reads "
                f"{network.main_input_name}; they do not belong together"
            )
        return accepted

    def features(
        self, rows: Dataset, title: str, *, keep: bool, unreadable: Unreadable | None = None
    ) -> Samples:
        """As :meth:`ImageSteps.decode` gives them."""
        return DecodedSamples(
            rows,
            "image",
            title,
            feature="pixels",
            decode=self._decode,
            keep=keep,
            unreadable=unreadable,
            settings={
                "mode": self.mode,
                "processor": json.dumps(self.processor.to_dict(), default=str, sort_keys=True),
            },
        )

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """``pixel_values``: (batch, channels, height, width), float32; ``labels``: (batch,).

        Of processors that do more: whatever they make of an image and the network takes.
        """
        return with_labels(self.steps.batch(samples), samples)

    def save_processor(self, folder: Path) -> None:
        # timm's data configuration lies in the model's config.json, from where it is read again
        if not isinstance(self.processor, TimmWrapperImageProcessor):
            super().save_processor(folder)

    def describe_inputs(self, facts: Facts, summary: dict[str, Any]) -> None:
        """Raises UserError for images that become of different sizes."""
        self.steps.check_shapes(facts)
        describe_frames(self.steps.values, self.mode, facts, summary)
        made = self._named_size()
        output = summary.get("frames", {}).get("output")
        if output is not None and made is not None and list(made) != output:
            summary["notes"].append(
                f"the network gets {output[0]} × {output[1]} pixels, and its configuration names "
                f"{made[0]} × {made[1]}"
            )
        summary["notes"].extend(exif_notes(facts))

    def _named_size(self) -> tuple[int, int] | None:
        """Width and height that the network's configuration names; None where it names none."""
        timm = getattr(self.settings, "pretrained_cfg", None) or {}
        size = timm.get("input_size", [0])[1:] or getattr(self.settings, "image_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, list | tuple) and len(size) == 2:
            return int(size[1]), int(size[0])
        return None

    def _decode(self, source: str | bytes, name: str, facts: Facts) -> dict[str, Tensor]:
        image = decode_image(source, self.mode, name, facts)
        facts[f"{SIZE}{image.width} × {image.height}"] += 1
        return self.steps.decode(image, facts)
