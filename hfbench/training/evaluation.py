"""Evaluation that sees every sample exactly once, on any number of processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm

from hfbench.training.batching import (
    Batch,
    Collate,
    SampleSource,
    Share,
    like_batches,
    load_batches,
)
from hfbench.training.progress import progress_options

PADDING = -100  # fills rows that are shorter than those of another batch


@dataclass(frozen=True)
class Predictions:
    """Outputs for a whole split, in the order of the split.

    Attributes:
        predictions: (num_samples, ...), what the task keeps of each sample, e.g. float32 logits.
        references: (num_samples, ...), the labels.
        loss: mean over all loss units (samples; tokens for language modelling).
        batches: in which they were computed, for whoever computes some of them again.
    """

    predictions: npt.NDArray[Any]
    references: npt.NDArray[Any]
    loss: float
    batches: tuple["BatchLoss", ...]


@dataclass(frozen=True)
class BatchLoss:
    """One batch of an evaluation: which samples, the sum of their losses, over how many units."""

    indices: tuple[int, ...]
    loss_sum: float
    units: int


def predict_split(
    model: nn.Module,
    data: SampleSource,
    *,
    collate: Collate,
    loss_units: Callable[[Batch], int],
    keep: Callable[[Any, Batch], Tensor],
    batch_size: int,
    accelerator: Accelerator,
    lengths: Sequence[int] | None = None,
    equal_lengths: bool = False,
    num_workers: int = 0,
    title: str = "evaluate",
) -> Predictions:
    """Run ``model`` in eval mode over ``data``, shared among the processes.

    Samples of like ``lengths`` share a batch, with ``equal_lengths`` of one length. The bare model
    runs, not its distributed wrapper, so processes may read different numbers of batches; all of
    them with the buffers of the main one, which are those that are saved.
    """
    bare = accelerator.unwrap_model(model)
    _share_buffers(bare, accelerator)
    batches_of_all = like_batches(
        len(data), batch_size, lengths, slack=0.0 if equal_lengths else 1.0
    )
    rank, num_processes = accelerator.process_index, accelerator.num_processes
    mine = [Share(indices) for indices in batches_of_all[rank::num_processes]]
    device = accelerator.device
    batches = load_batches(data, mine, collate, device=device, num_workers=num_workers)
    parts: list[PredictedBatch] = []
    bar = tqdm(total=len(mine), desc=title, **progress_options(accelerator.is_main_process))
    with bar:
        for share, batch in zip(mine, batches, strict=True):
            parts.append(predict_batch(bare, share.indices, batch, loss_units, keep, device))
            bar.update()
    everything = gather_object(parts) if accelerator.num_processes > 1 else parts
    return _in_order(everything, len(data))


@torch.no_grad()
def predict_batch(
    model: nn.Module,
    indices: tuple[int, ...],
    batch: Batch,
    loss_units: Callable[[Batch], int],
    keep: Callable[[Any, Batch], Tensor],
    device: torch.device,
) -> "PredictedBatch":
    """What ``model`` gives for one batch in eval mode; ``indices``: of its samples in the split."""
    model.eval()
    units = loss_units(batch)
    on_device = {key: value.to(device) for key, value in batch.items()}
    outputs = model(**on_device)
    return PredictedBatch(
        predictions=keep(outputs, on_device).cpu().numpy(),
        references=batch["labels"].cpu().numpy(),
        loss=BatchLoss(indices, float(outputs.loss.float()) * units, units),
    )


@torch.no_grad()
def _share_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process those of the main one: each has statistics of batches of its own."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.to(accelerator.device)))


@dataclass(frozen=True)
class PredictedBatch:
    """What one batch gave: (batch, ...) predictions and references."""

    predictions: npt.NDArray[Any]
    references: npt.NDArray[Any]
    loss: BatchLoss


def _in_order(parts: list[PredictedBatch], size: int) -> Predictions:
    indices = np.concatenate([np.asarray(part.loss.indices) for part in parts])
    position = np.argsort(indices)
    assert np.array_equal(indices[position], np.arange(size)), "a sample was missed or seen twice"
    return Predictions(
        predictions=stack([part.predictions for part in parts])[position],
        references=stack([part.references for part in parts])[position],
        loss=mean_loss([part.loss for part in parts]),
        batches=tuple(part.loss for part in parts),
    )


def mean_loss(batches: Sequence[BatchLoss]) -> float:
    """Over all loss units of the batches."""
    return sum(batch.loss_sum for batch in batches) / sum(batch.units for batch in batches)


def stack(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Concatenate along the samples; shorter rows (of another batch) are filled with -100."""
    widest = np.max([array.shape[1:] for array in arrays], axis=0)
    return np.concatenate(
        [
            np.pad(
                array,
                [(0, 0), *((0, int(w) - h) for w, h in zip(widest, array.shape[1:], strict=True))],
                constant_values=PADDING,
            )
            for array in arrays
        ]
    )
