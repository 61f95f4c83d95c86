"""A split whose samples come with the stored output of the frozen prefix."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hfbench.training.batching import Batch, BatchSource, Collate, Sample, SampleSource
from hfbench.training.prefix.cut import STORED
from hfbench.training.prefix.store import Rows


@runtime_checkable
class DigestedSource(Protocol):
    """A split that knows whether another one has the same contents."""

    def digest(self) -> str | None:
        """Equal where all features of all samples are; None: unknown before all are read."""


@runtime_checkable
class LabelledSource(Protocol):
    """A split that knows its labels without reading its samples."""

    def labels(self) -> Sequence[Any]: ...


class StoredSamples:
    """Whole batches of ``samples`` with what is stored of each, under ``STORED``.

    Images and sounds of one size are neither read nor collated: nothing looks at their values any
    more, so a tensor of their shape without memory stands for them.
    """

    def __init__(
        self, samples: SampleSource, rows: Rows, collate: Collate, *, ragged: bool
    ) -> None:
        """``ragged``: whether the shape of a batch depends on which samples it has."""
        self.samples, self.rows, self.collate = samples, rows, collate
        self.like: Batch | None = None
        if not ragged and isinstance(samples, LabelledSource):
            self.like = {k: v[:1] for k, v in collate([samples[0]]).items() if k != "labels"}
            self.labels = torch.tensor(samples.labels())  # int64, or float32 of fractions

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """The sample itself, for those who run the whole model."""
        return self.samples[index]

    def read_batch(self, indices: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """The batch's entries and (batch, longest, ...) of the prefix, on ``device``."""
        stored = self.rows.read(indices).to(device)
        return {**self._without_prefix(indices, device), STORED: stored}

    def _without_prefix(self, indices: Sequence[int], device: torch.device) -> dict[str, Any]:
        if self.like is not None:
            batch = {
                name: torch.zeros((), dtype=value.dtype, device=device).expand(
                    len(indices), *value.shape[1:]
                )
                for name, value in self.like.items()
            }
            return {**batch, "labels": self.labels[list(indices)].to(device)}
        if isinstance(self.samples, BatchSource):
            return self.samples.read_batch(indices, device)
        batch = self.collate([self.samples[index] for index in indices])
        return {name: value.to(device) for name, value in batch.items()}


def without_stored(samples: Any) -> Any:
    """The split itself, which knows more than its batches."""
    return samples.samples if isinstance(samples, StoredSamples) else samples
