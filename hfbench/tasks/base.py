"""The contract between a task and the one training loop."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from hfbench.config import RunConfig


class Samples(Protocol):
    """A split: features of one sample by its index, the same on every access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclass(frozen=True)
class TaskData:
    """The three splits as features.

    Attributes:
        label_names: position = label's number; empty for tasks without labels.
        summary: source, split sizes, columns, labels, notes, fingerprint; goes into the result.
    """

    train: Samples
    validation: Samples
    test: Samples
    label_names: tuple[str, ...]
    summary: dict[str, Any]


@dataclass(frozen=True)
class BuiltModel:
    """A model in float32 and the names of its parameters that no checkpoint gave."""

    model: nn.Module
    new_parameters: frozenset[str]


class Task(ABC):
    """What is learnt. Call ``prepare_data`` first; the rest relies on it.

    The loop only does ``outputs = model(**collate(samples))`` and uses ``outputs.loss``, a mean
    over ``loss_units(batch)``, and ``predictions(outputs, batch)``. How other kinds of task fit:

    - speech recognition (CTC): ``labels`` (batch, longest transcript) padded with -100; a model
      whose CTC loss is a mean over samples (``ctc_loss_reduction="mean"`` divides each sample by
      its length first), so ``loss_units`` is the number of samples; ``predictions`` are the
      greedy token indices (batch, frames), ``compute_metrics`` gives word error rates with
      ``greater_is_better = False``.
    - causal language modelling: ``labels`` are the input tokens with -100 on padding;
      ``loss_units`` counts the predicted tokens, ``(labels[:, 1:] != -100).sum()``; ``predictions``
      are the summed loss and the token count of each sample (batch, 2), so that the perplexity is
      exp(sum / sum) and no logits are kept.
    - a multi-layer perceptron from scratch: ``build_model`` makes it without a checkpoint and
      every parameter is new; its ``forward(pixel_values, labels)`` returns loss and logits.
    """

    name: ClassVar[str]
    primary_metric: ClassVar[str]
    greater_is_better: ClassVar[bool] = True

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def prepare_data(self) -> TaskData:
        """Load, label, split and preprocess the data, once. Raises UserError for bad data."""

    @abstractmethod
    def build_model(self, data: TaskData) -> BuiltModel:
        """The checkpoint with a head for ``data``; random weights for the strategy ``scratch``."""

    @abstractmethod
    def build_on_meta(self, *, num_labels: int) -> nn.Module:
        """The same network without memory for its weights, from the configuration alone."""

    @abstractmethod
    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Samples as the model's arguments, padded to one length; always with ``labels``."""

    def sample_lengths(self, split: Samples) -> list[int] | None:
        """Tokens or audio samples of every sample; evaluation puts like lengths into one batch.

        None where all are alike, or where they are not known without decoding everything.
        """
        return None

    @abstractmethod
    def loss_units(self, batch: Mapping[str, Tensor]) -> int:
        """Over how many samples or tokens the model's loss of this batch is a mean."""

    @abstractmethod
    def predictions(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """What evaluation keeps of every sample: (batch, ...), float32 or integer."""

    @abstractmethod
    def compute_metrics(
        self, predictions: npt.NDArray[Any], references: npt.NDArray[np.integer[Any]]
    ) -> dict[str, Any]:
        """Plain numbers and lists over a whole split; ``primary_metric`` is among the keys."""

    @abstractmethod
    def save_processor(self, folder: Path) -> None:
        """Write what turns raw input into features beside the saved model."""
