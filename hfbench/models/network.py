"""Small networks that start from random weights: a multi-layer perceptron and a small CNN."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hfbench.config import NetworkConfig
from hfbench.conversion import build
from hfbench.errors import UserError
from hfbench.plain_json import read_json

MODEL_TYPE = "hfbench_network"  # in config.json, where transformers has its own names
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
KERNEL = 3  # height and width of a convolution; it pads, so that only pooling makes images smaller

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


class NetworkOutput(NamedTuple):
    """What the loop and evaluation read of a model's output."""

    loss: Tensor | None  # mean over the batch; None without labels
    logits: Tensor  # (batch, num_labels), float32


class Layer(nn.Sequential):
    """One computing layer with what follows it: activation, pooling, dropout."""


class ScratchNetwork(nn.Module):
    """Layers one after the other, from grey images to one number for each label.

    ``layers`` are the blocks of the network's structure: the convolutions of a cnn, each with an
    activation and 2×2 max pooling, then the linear layers, the last one being the output.
    Parameters start as PyTorch initialises them.
    """

    base_model_prefix = ""  # everything is backbone (see models/structure.py): there is no new head
    main_input_name = "pixel_values"

    def __init__(
        self, network: NetworkConfig, *, height: int, width: int, label_names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.network, self.height, self.width = network, height, width
        self.label_names = label_names
        self.layers = nn.ModuleList(_layers(network, height, width, len(label_names)))

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> NetworkOutput:
        """``pixel_values``: (batch, 1, height, width), float32; ``labels``: (batch,), int64."""
        if self.training and self.network.shift:
            pixel_values = shifted(pixel_values, self.network.shift)
        hidden = pixel_values.flatten(1) if self.network.kind == "mlp" else pixel_values
        for layer in self.layers:
            hidden = layer(hidden)
        return NetworkOutput(None if labels is None else self.loss(hidden, labels), hidden)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A mean over the samples; ``mse`` is one over the labels too."""
        if self.network.loss == "mse":
            return F.mse_loss(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))
        return F.cross_entropy(logits, labels, label_smoothing=self.network.label_smoothing)

    def save_pretrained(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        values = {
            "model_type": MODEL_TYPE,
            "network": dataclasses.asdict(self.network),
            "height": self.height,
            "width": self.width,
            "id2label": dict(enumerate(self.label_names)),  # as transformers names them
        }
        (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / WEIGHTS_FILE)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Load what :meth:`save_pretrained` wrote, in eval mode."""
        values: dict[str, Any] = read_json(folder / CONFIG_FILE)
        loaded = cls(
            build(NetworkConfig, values["network"], "network"),
            height=values["height"],
            width=values["width"],
            label_names=tuple(values["id2label"].values()),
        )
        loaded.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return loaded.eval()


def is_network_folder(folder: Path) -> bool:
    """Whether :meth:`ScratchNetwork.save_pretrained` wrote the folder's ``config.json``."""
    values = read_json(folder / CONFIG_FILE)
    return bool(values.get("model_type") == MODEL_TYPE)


def shifted(images: Tensor, pixels: int) -> Tensor:
    """Every image moved by up to ``pixels`` in both directions, its edge repeated behind it.

    ``images``: (batch, 1, height, width). The offsets are drawn anew for each image.
    """
    batch, _, height, width = images.shape
    padded = F.pad(images, (pixels, pixels, pixels, pixels), mode="replicate")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: every possible offset
    down, right = torch.randint(2 * pixels + 1, (2, batch), device=images.device)
    rows = torch.arange(batch, device=images.device)
    return windows[rows, :, down, right]


def _layers(network: NetworkConfig, height: int, width: int, outputs: int) -> list[Layer]:
    layers = []
    activation = _ACTIVATIONS[network.activation]
    inputs = height * width
    if network.kind == "cnn":
        sizes = (1, *network.channels)
        for before, after in itertools.pairwise(sizes):
            convolution = nn.Conv2d(before, after, KERNEL, padding=KERNEL // 2)
            layers.append(Layer(convolution, activation(), nn.MaxPool2d(2)))
        halvings = 2 ** len(network.channels)
        inputs = network.channels[-1] * (height // halvings) * (width // halvings)
        if not inputs:
            raise UserError(
                f"network.channels={list(network.channels)} halves images of {width} × {height} "
                f"pixels {len(network.channels)} times: nothing is left; list fewer channels"
            )
        layers[-1].append(nn.Flatten())
    for size in network.widths:
        layer = Layer(nn.Linear(inputs, size), activation())
        if network.dropout:
            layer.append(nn.Dropout(network.dropout))
        layers.append(layer)
        inputs = size
    return [*layers, Layer(nn.Linear(inputs, outputs))]
