"""The section ``network`` of a configuration: a small network from scratch.

No large library, as :mod:`hfbench.config`.
"""

from dataclasses import dataclass
from typing import Literal

from hfbench.conversion import check
from hfbench.errors import UserError


@dataclass(frozen=True)
class NetworkConfig:
    """A small network that starts from random weights, and what it learns by."""

    kind: Literal["mlp", "cnn"] = "mlp"
    widths: tuple[int, ...] = (256, 128, 64)  # of the hidden linear layers, from input to output
    channels: tuple[int, ...] = (16, 32)  # of a cnn's convolutions; each halves height and width
    activation: Literal["relu", "sigmoid", "tanh", "gelu"] = "relu"
    dropout: float = 0.0  # after every hidden linear layer
    shift: int = 0  # pixels by which training images are moved at random
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"  # mse: to the one-hot label
    label_smoothing: float = 0.0  # of cross_entropy
    normalisation: Literal["unit", "standard"] = "unit"  # pixels in [0, 1], or of mean 0 and std 1

    @property
    def label(self) -> str:
        """The layers, as results name them: ``mlp-256-128-64-relu``, ``cnn-16-32-mlp-64-relu``."""
        sizes = [("mlp", self.widths)]
        if self.kind == "cnn":
            sizes.insert(0, ("cnn", self.channels))
        parts = [str(part) for kind, numbers in sizes for part in (kind, *numbers)]
        return "-".join([*parts, self.activation])

    def __post_init__(self) -> None:
        for key in ("widths", "channels"):
            numbers = getattr(self, key)
            check(f"network.{key}", list(numbers), all(n >= 1 for n in numbers), "numbers >= 1")
        for key in ("dropout", "label_smoothing"):
            check(f"network.{key}", getattr(self, key), 0 <= getattr(self, key) < 1, "in [0, 1)")
        check("network.shift", self.shift, self.shift >= 0, ">= 0")
        if self.kind == "cnn" and not self.channels:
            raise UserError("network.channels=[] leaves a cnn without convolutions: use kind mlp")
        if self.loss == "mse" and self.label_smoothing:
            raise UserError(
                f"network.label_smoothing={self.label_smoothing} belongs to cross_entropy, not to "
                "network.loss=mse"
            )
