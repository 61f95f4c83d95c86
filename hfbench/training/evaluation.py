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
    """

    predictions: npt.NDArray[Any]
    references: npt.NDArray[Any]
    loss: float


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
    bare.eval()
    _share_buffers(bare, accelerator)
    batches_of_all = like_batches(
        len(data), batch_size, lengths, slack=0.0 if equal_lengths else 1.0
    )
    rank, num_processes = accelerator.process_index, accelerator.num_processes
    mine = [Share(indices) for indices in batches_of_all[rank::num_processes]]
    parts: list[_Part] = []
    bar = tqdm(total=len(mine), desc=title, **progress_options(accelerator.is_main_process))
    with torch.no_grad(), bar:
        device = accelerator.device
        batches = load_batches(data, mine, collate, device=device, num_workers=num_workers)
        for share, batch in zip(mine, batches, strict=True):
            units = loss_units(batch)
            on_device = {key: value.to(device) for key, value in batch.items()}
            outputs = bare(**on_device)
            parts.append(
                _Part(
                    indices=share.indices,
                    predictions=keep(outputs, on_device).cpu().numpy(),
                    references=batch["labels"].cpu().numpy(),
                    loss_sum=float(outputs.loss.float()) * units,
                    units=units,
                )
            )
            bar.update()
    everything = gather_object(parts) if accelerator.num_processes > 1 else parts
    return _in_order(everything, len(data))


@torch.no_grad()
def _share_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process those of the main one: each has statistics of batches of its own."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.to(accelerator.device)))


@dataclass(frozen=True)
class _Part:
    """What one batch gave."""

    indices: tuple[int, ...]
    predictions: npt.NDArray[Any]
    references: npt.NDArray[Any]
    loss_sum: float
    units: int


def _in_order(parts: list[_Part], size: int) -> Predictions:
    indices = np.concatenate([np.asarray(part.indices) for part in parts])
    position = np.argsort(indices)
    assert np.array_equal(indices[position], np.arange(size)), "a sample was missed or seen twice"
    return Predictions(
        predictions=_stack([part.predictions for part in parts])[position],
        references=_stack([part.references for part in parts])[position],
        loss=sum(part.loss_sum for part in parts) / sum(part.units for part in parts),
    )


def _stack(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
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
