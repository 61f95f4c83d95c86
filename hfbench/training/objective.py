"""What the loop must know of a task, and what a training gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from hfbench.results import EpochRecord
from hfbench.training.batching import Batch, Collate


def _train_everything(model: nn.Module) -> None:
    model.train()


@dataclass(frozen=True)
class Objective:
    """What the loop must know of a task.

    Attributes:
        collate: samples -> batch with ``labels``.
        loss_units: over how many units (samples, tokens) the batch's loss is a mean.
        evaluate: validation metrics of the model; None when there is nothing to validate on.
        metric: the validation metric that chooses the best epoch.
        train_mode: puts the model into training mode (frozen parts stay in eval mode).
        is_head: says of a parameter name whether it has the head's learning rate.
        rate_factor: by what the learning rate of a parameter is multiplied.
        decays: whether weight decay and penalties may pull a parameter towards 0.
        trains: whether a parameter trains in an epoch already; None: all do, from the first on.
    """

    collate: Collate
    loss_units: Callable[[Batch], int]
    evaluate: Callable[[nn.Module], dict[str, Any]] | None = None
    metric: str = "loss"
    greater_is_better: bool = False
    train_mode: Callable[[nn.Module], None] = _train_everything
    is_head: Callable[[str], bool] = lambda name: False
    rate_factor: Callable[[str], float] = lambda name: 1.0
    decays: Callable[[str], bool] = lambda name: True
    trains: Callable[[str, int], bool] | None = None


@dataclass(frozen=True)
class FitResult:
    """What a training gave. ``step_losses`` has one mean loss for each optimiser step."""

    history: tuple[EpochRecord, ...]
    step_losses: tuple[float, ...]
    train_seconds: float  # without evaluation and saving
    samples_seen: int
    best_metric: float | None
    peak_memory_bytes: int | None  # while training, without evaluation
    total_steps: int | None = None  # that were planned, where training.max_minutes ended it before
