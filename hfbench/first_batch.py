"""The first batch goes through the model once before the training: what does not fit is named."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hfbench.errors import UserError, is_out_of_memory
from hfbench.tasks.base import Samples, Task
from hfbench.training.undisturbed import undisturbed

SAMPLES = 2
SAME = 1e-3  # of the largest number, when a sample is answered again
# What a configuration says of a network's inputs, by the feature that it reads.
_SAID: Mapping[str, tuple[str, ...]] = {
    "pixel_values": ("image_size", "num_channels", "patch_size"),
    "input_values": ("max_length", "num_mel_bins"),
    "input_features": ("max_source_positions", "num_mel_bins"),
    "input_ids": ("vocab_size", "max_position_embeddings"),
}


def check_first_batch(
    task: Task, model: nn.Module, samples: Samples, checkpoint: str, *, labels: bool
) -> None:
    """Run the model on the first samples, on the CPU, without gradients; nothing is kept.

    ``labels``: whether the model computes its loss itself.

    Raises UserError with the shapes of the batch, what the network's configuration says, and the
    network's own words, for a batch that it cannot take, and for a network whose answers change
    from one time to the next: nothing could be said of it that its saved model gives.
    """
    batch = task.collate([samples[index] for index in range(min(SAMPLES, len(samples)))])
    if not labels:
        del batch["labels"]
    with undisturbed(model), torch.no_grad():
        try:
            answers = [task.comparable(model(**batch), batch) for _ in range(2)]
        except Exception as error:
            if isinstance(error, UserError) or is_out_of_memory(error):
                raise
            raise UserError(_refusal(task, model, batch, error, checkpoint)) from error
    off, largest = float((answers[1] - answers[0]).abs().max()), float(answers[0].abs().max())
    if off > SAME * largest:  # not of NaN, which the training names
        raise UserError(
            f"{type(model).__name__} of {checkpoint!r} answers the same samples otherwise each "
            f"time (by {off / largest:.2g} of the largest number): it draws random numbers. Set "
            "what seeds them in its config.json (Reformer: hash_seed), or choose another checkpoint"
        )


def _refusal(
    task: Task, model: nn.Module, batch: Mapping[str, Tensor], error: Exception, checkpoint: str
) -> str:
    processor = getattr(task, "processor", None)
    maker = "the data" if processor is None else type(processor).__name__
    given = ", ".join(f"{name} {_described(value)}" for name, value in batch.items())
    says = _expected(getattr(model, "config", None), batch)
    return (
        f"the network cannot take the first batch. {maker} gives {given}; "
        f"{type(model).__name__} of {checkpoint!r} {says}. It says: {type(error).__name__}: "
        f"{error}. Choose a checkpoint whose preprocessing fits its network, or correct one of the "
        "two in a local copy (--debug shows where it failed)"
    )


def _expected(config: Any, batch: Mapping[str, Tensor]) -> str:
    said = []
    timm = getattr(config, "pretrained_cfg", None)
    if timm and "input_size" in timm:
        said.append(f"input_size={list(timm['input_size'])}")
    for name in [name for feature in batch for name in _SAID.get(feature, ())]:
        value = getattr(config, name, None)
        if value is not None:
            said.append(f"{name}={value}")
    return f"is made for {', '.join(said)}" if said else "names no size in its configuration"


def _described(value: Tensor) -> str:
    shape = " × ".join(map(str, value.shape))
    return f"({shape}, {str(value.dtype).removeprefix('torch.')})"
