"""Evaluation that sees every sample exactly once, on any number of processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm

from hfbench.training.batching import Batch, Collate, SampleSource, Share, load_batches
from hfbench.training.progress import progress_options


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
    length: Callable[[Any], int] | None = None,
    title: str = "evaluate",
) -> Predictions:
    """Run ``model`` in eval mode over ``data``, shared among the processes.

    Samples are grouped by ``length`` so that little is padded. The bare model runs, not its
    distributed wrapper, so processes may read different numbers of batches.
    """
    bare = accelerator.unwrap_model(model)
    bare.eval()
    order = list(range(len(data)))
    if length is not None:
        order.sort(key=lambda index: -length(data[index]))
    chunks = [tuple(order[i : i + batch_size]) for i in range(0, len(order), batch_size)]
    mine = [
        Share(chunk) for chunk in chunks[accelerator.process_index :: accelerator.num_processes]
    ]
    kept: list[tuple[tuple[int, ...], npt.NDArray[Any], npt.NDArray[Any], float, int]] = []
    bar = tqdm(total=len(mine), desc=title, **progress_options(accelerator.is_main_process))
    with torch.inference_mode(), bar:
        for share, batch in zip(mine, load_batches(data, mine, collate), strict=True):
            units = loss_units(batch)
            on_device = {key: value.to(accelerator.device) for key, value in batch.items()}
            with accelerator.autocast():
                outputs = bare(**on_device)
            kept.append(
                (
                    share.indices,
                    keep(outputs, on_device).cpu().numpy(),
                    batch["labels"].numpy(),
                    float(outputs.loss.float()) * units,
                    units,
                )
            )
            bar.update()
    everything = gather_object(kept) if accelerator.num_processes > 1 else kept
    return _in_order(everything, len(data))


def _in_order(
    kept: list[tuple[tuple[int, ...], npt.NDArray[Any], npt.NDArray[Any], float, int]], size: int
) -> Predictions:
    indices = np.concatenate([np.asarray(item[0]) for item in kept])
    position = np.argsort(indices, kind="stable")
    assert np.array_equal(indices[position], np.arange(size)), "a sample was missed or seen twice"
    units = sum(item[4] for item in kept)
    return Predictions(
        predictions=np.concatenate([item[1] for item in kept])[position],
        references=np.concatenate([item[2] for item in kept])[position],
        loss=sum(item[3] for item in kept) / units,
    )
