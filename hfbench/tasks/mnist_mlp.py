"""Small grey images to one label, by a small network from random weights: MNIST with an MLP."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hfbench.config import NetworkConfig, RunConfig
from hfbench.data.pixels import PixelSamples, load_pixels
from hfbench.data.splits import load_splits
from hfbench.models.network import ScratchNetwork
from hfbench.tasks.base import BuiltModel, TaskData
from hfbench.tasks.classification import SingleLabelTask, labels_of

MNIST_PIXELS = 28  # height and width, where the data have not been read
MNIST_LABELS = tuple("0123456789")


class MnistMlp(SingleLabelTask):
    """Images of one size, read as grey and kept as tensors; their size is the network's input."""

    name = "mnist_mlp"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.network = config.network or NetworkConfig()

    def prepare_data(self) -> TaskData:
        splits = load_splits(self.config.data, "image")
        pixels = {
            split: load_pixels(getattr(splits, split), split)
            for split in ("train", "validation", "test")
        }
        self.height, self.width = pixels["train"].shape[1:]
        self.mean, self.std = 0.0, 1.0
        if self.network.normalisation == "standard":
            self.mean, self.std = mean_and_std(pixels["train"])
        samples = {
            split: PixelSamples(
                images,
                torch.tensor(getattr(splits, split)["labels"][:]),
                mean=self.mean,
                std=self.std,
            )
            for split, images in pixels.items()
        }
        return TaskData(**samples, label_names=splits.label_names, summary=splits.summary)

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
        with torch.random.fork_rng():
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
        return {"pixel_values": pixels, "labels": labels_of(samples)}

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
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def mean_and_std(pixels: Tensor) -> tuple[float, float]:
    """Of all pixels in [0, 1]; computed from the counts of the 256 levels, exactly."""
    counts = torch.bincount(pixels.flatten(), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * levels).sum() / counts.sum()
    std = ((counts * (levels - mean).square()).sum() / counts.sum()).sqrt()
    return float(mean), float(std)
