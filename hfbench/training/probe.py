"""A few training samples on which two ways through a model are compared before one is trusted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfbench.training.batching import Batch, Collate, SampleSource


@dataclass(frozen=True)
class Reading:
    """How a task's samples become the model's predictions.

    Attributes:
        lengths: of every sample of a split; None where all are alike.
        predictions: of the model's output: (batch, ...).
        equal_lengths: whether only samples of one length share a batch.
    """

    collate: Collate
    lengths: Callable[[Any], Sequence[int] | None]
    predictions: Callable[[Any, Batch], Tensor]
    batch_size: int  # of forward passes without gradients
    equal_lengths: bool = False


class Probe:
    """Some samples of ``train``, the longest first and the shortest last.

    Where only samples of one length share a batch, some of the most frequent length. The model goes
    to ``device`` and into eval mode.
    """

    def __init__(
        self, model: nn.Module, train: SampleSource, reading: Reading, device: torch.device
    ) -> None:
        self.model, self.train, self.reading, self.device = model, train, reading, device
        model.to(device).eval()
        self.lengths = reading.lengths(train)
        self.indices = self._some_indices()
        self.batch = self.batch_of(self.indices)

    def batch_of(self, indices: Sequence[int]) -> Batch:
        batch = self.reading.collate([self.train[index] for index in indices])
        return {name: value.to(self.device) for name, value in batch.items()}

    def predictions(self, batch: Batch) -> Tensor:
        """(samples, ...), float32."""
        return self.reading.predictions(self.model(**batch), batch).float()

    def is_finite(self, outputs: Any) -> bool:
        """Whether the predictions are that the model's ``outputs`` for this batch hold."""
        return bool(self.reading.predictions(outputs, self.batch).isfinite().all())

    def _some_indices(self) -> list[int]:
        count, lengths = len(self.train), self.lengths
        if lengths is None:
            return list(range(min(3, count)))
        if self.reading.equal_lengths:
            usual, _ = Counter(lengths).most_common(1)[0]
            return [index for index in range(count) if lengths[index] == usual][:3]
        order = sorted(range(count), key=lambda index: -lengths[index])
        return sorted({order[0], order[count // 2], order[-1]}, key=lambda i: -lengths[i])


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest expected number."""
    return float((found - expected).abs().max() / expected.abs().max())
