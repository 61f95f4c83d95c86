"""A training whose numbers are not finite ends at once; what it kept before stays the last."""

import math

from torch import nn

from hfbench.errors import TrainingFailedError
from hfbench.training.state import trainable_tensors

ADVICE = "lower training.learning_rate, or use training.mixed_precision=no"


class DivergedError(TrainingFailedError):
    """The loss, a weight or the first validation metric of a training is not finite."""


def check_loss(loss: float, step: int) -> None:
    """``step``: the optimiser step, from 1, that the mean ``loss`` belongs to."""
    if not math.isfinite(loss):
        raise DivergedError(f"the training loss became {loss} at step {step}: {ADVICE}")


def check_weights(model: nn.Module, step: int) -> None:
    """After ``step``: what a step makes of the weights shows in the loss of the next one only."""
    tensors = trainable_tensors(model)
    lost = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if lost:
        raise DivergedError(
            f"after step {step} numbers that are not finite are in {len(lost)} of {len(tensors)} "
            f"trained tensors (the first: {lost[0]}): {ADVICE}"
        )


def check_first_metric(name: str, value: float, step: int) -> None:
    """Without a first number there is nothing that a later one could be better than."""
    if not math.isfinite(value):
        raise DivergedError(
            f"the first validation gives {name}={value} after step {step}: {ADVICE}"
        )
