"""Small grey images to one label, by a small network from random weights: MNIST with an MLP."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn

from hfbench.config import NetworkConfig, RunConfig
from hfbench.data.cropping import Facts
from hfbench.data.media import DecodedSamples, Unreadable, decode_image, exif_notes
from hfbench.data.pixels import PixelSamples, load_pixels, normalised
from hfbench.errors import UserError
from hfbench.models.network import ScratchNetwork
from hfbench.tasks.base import Answer, BuiltModel, PredictingTask, Samples, TaskData
from hfbench.tasks.classification import LabelTask, with_labels

MNIST_PIXELS = 28  # height and width, where the data have not been read
MNIST_LABELS = tuple("0123456789")
PROCESSOR_FILE = "preprocessor_config.json"


class MnistMlp(LabelTask, PredictingTask):
    """Images of one size, read as grey and kept as tensors; their size is the network's input."""

    name = "mnist_mlp"
    modality = "image"
    answer_name = "label"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.network = config.network or NetworkConfig()

    def prepare_data(self) -> TaskData:
        data = replace(self.config.data, problem_type="single_label_classification")
        return self.load_data(data, "image", self._read)

    def _read(self, rows: Dataset, role: str, unreadable: Unreadable) -> PixelSamples:
        """One split; of train, which comes first, also the size of the images and their mean."""
        facts = Facts(float)
        pixels = load_pixels(rows, role, unreadable, facts)
        if role == "train":
            self.height, self.width = pixels.shape[1:]
            self.mean, self.std = 0.0, 1.0
            if self.network.normalisation == "standard":
                self.mean, self.std = mean_and_std(pixels)
        labels = torch.tensor(rows["labels"][:])
        if unreadable:
            labels = labels[[row for row in range(len(rows)) if row not in unreadable]]
        return PixelSamples(pixels, labels, mean=self.mean, std=self.std, facts=facts)

    def describe_inputs(self, facts: Facts, summary: dict[str, Any]) -> None:
        summary["notes"].extend(exif_notes(facts))

    def build_model(self, data: TaskData) -> BuiltModel:
        model = ScratchNetwork(
            self.network, height=self.height, width=self.width, label_names=data.label_names
        )
        return BuiltModel(model, frozenset(name for name, _ in model.named_parameters()))

    def build_on_meta(self, *, num_labels: int) -> nn.Module:
        """For images of MNIST's size."""
        with torch.device("meta"):
            return self.network_for_mnist(tuple(map(str, range(num_labels))))

    def network_for_mnist(self, label_names: tuple[str, ...]) -> ScratchNetwork:
        """The configured network for images of MNIST's size."""
        return ScratchNetwork(
            self.network, height=MNIST_PIXELS, width=MNIST_PIXELS, label_names=label_names
        )

    def step_probe(self, device: torch.device | str = "cpu") -> Callable[[], object]:
        """Forward and backward passes of the network on images of MNIST's size."""
        with torch.random.fork_rng([]):  # made on the CPU
            network = self.network_for_mnist(MNIST_LABELS).to(device)
        size = self.config.training.batch_size
        images = torch.full((size, 1, MNIST_PIXELS, MNIST_PIXELS), 0.5, device=device)
        labels = torch.zeros(size, dtype=torch.int64, device=device)

        def step() -> None:
            network(images, labels).loss.backward()

        return step

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """``pixel_values``: (batch, 1, height, width), float32; ``labels``: (batch,), int64."""
        pixels = torch.stack([sample["pixel_values"] for sample in samples])
        return with_labels({"pixel_values": pixels}, samples)

    def load_processor(self) -> Any:
        raise UserError(f"{self.name} starts from no checkpoint, so there is no image processor")

    def processor_of(self, folder: Path) -> Any:
        """What ``save_processor`` wrote."""
        values = json.loads((folder / PROCESSOR_FILE).read_text(encoding="utf-8"))
        self.height, self.width = values["size"]["height"], values["size"]["width"]
        (self.mean,), (self.std,) = values["image_mean"], values["image_std"]
        return values

    def features(self, rows: Dataset, title: str, *, keep: bool) -> Samples:
        """``pixel_values``: (1, height, width), float32; images of another size are resized."""
        return DecodedSamples(
            rows, "image", title, feature="pixel_values", decode=self._pixels, keep=keep
        )

    def _pixels(self, source: str | bytes, name: str, facts: Facts) -> dict[str, Tensor]:
        image = decode_image(source, "L", name, facts)
        if image.size != (self.width, self.height):
            image = image.resize((self.width, self.height))
        pixels = torch.from_numpy(np.array(image)).unsqueeze(0)
        return {"pixel_values": normalised(pixels, self.mean, self.std)}

    def answer(self, model: nn.Module, batch: Mapping[str, Tensor], count: int) -> list[Answer]:
        names = dict(enumerate(cast(ScratchNetwork, model).label_names))
        return self.problem.answers(self.predictions(model(**batch), batch), names, count)

    def save_processor(self, folder: Path) -> None:
        """As an image processor of transformers reads it."""
        values = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": self.height, "width": self.width},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": self.network.normalisation == "standard",
            "image_mean": [self.mean],
            "image_std": [self.std],
        }
        text = json.dumps(values, indent=2) + "\n"
        (folder / PROCESSOR_FILE).write_text(text, encoding="utf-8")


def mean_and_std(pixels: Tensor) -> tuple[float, float]:
    """Of all pixels in [0, 1]; computed from the counts of the 256 levels, exactly."""
    counts = torch.bincount(pixels.flatten(), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * levels).sum() / counts.sum()
    std = ((counts * (levels - mean).square()).sum() / counts.sum()).sqrt()
    return float(mean), float(std)
