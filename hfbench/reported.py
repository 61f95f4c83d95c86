"""Whether a saved model, loaded again, gives the numbers that its run reports.

What the run left out to be fast (a stored prefix, positions that nobody reads, another way through
attention) has no part in this: the loaded model computes everything.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hfbench.results import SavedCheck
from hfbench.tasks.base import Task, TaskData
from hfbench.training.batching import Batch, Share, load_batches
from hfbench.training.evaluation import (
    BatchLoss,
    PredictedBatch,
    Predictions,
    mean_loss,
    predict_batch,
    stack,
)
from hfbench.training.losses import OwnLoss
from hfbench.training.standardised import Scale

EXACT = 1e-4  # of the largest number, in float32: products of other sizes, in another order
ROUNDINGS = 3  # so many times what the run's precision changes, and one rounding of it
HALF = {"fp16": torch.finfo(torch.float16).eps, "bf16": torch.finfo(torch.bfloat16).eps}
FLOAT32 = torch.finfo(torch.float32).eps
MEASURED_SAMPLES = 32  # on which it is measured what the run's precision changes
OTHER_ANSWERS = 0.01  # of the samples whose answers are tokens may be near a tie between two


@dataclass(frozen=True)
class _Tolerance:
    """Up to which difference two numbers are the same, as shares of the largest one."""

    prediction: float = EXACT
    loss: float = EXACT
    answers: float = OTHER_ANSWERS  # share of the samples that may get other tokens


@dataclass(frozen=True)
class Reported:
    """What a run is about to report of the test split, and how it came about.

    Attributes:
        found: of the whole split, by the trained model with all its shortcuts.
        scale: in which the loss compares numbers that are learnt in standard units.
    """

    task: Task
    data: TaskData
    found: Predictions
    scale: Scale | None
    limit: int  # samples to compute again, at most; one batch at least


def check_reported(loaded: nn.Module, reported: Reported, accelerator: Accelerator) -> SavedCheck:
    """Compute the test split again with the loaded model, or batches spread evenly over it.

    Where numbers are learnt in standard units, ``loaded`` must give these.

    In the batches and the precision of the run.

    Raises:
        RuntimeError: loss or predictions differ by more than the precision rounds.
    """
    started = time.perf_counter()
    task, found, scale = reported.task, reported.found, reported.scale
    batches = _some(found.batches, reported.limit)
    _attach_loss(loaded, reported)
    again = _Again(loaded, reported, accelerator)
    tolerance = again.tolerance(batches)
    parts = again.compute(batches)
    indices = np.concatenate([np.asarray(batch.indices) for batch in batches])
    samples, of = len(indices), len(found.predictions)
    # Answers of tokens may be longer or shorter than the reported ones.
    units = found.predictions[indices]
    inside = units if scale is None else scale.inverse.of_numbers(units)
    both = stack([inside, *(part.predictions for part in parts)])
    expected, saved = both[:samples], both[samples:]
    where = f"over {samples:,} of {of:,} test samples"
    difference = _compare_predictions(expected, saved, scale, tolerance, where)
    reported_loss, saved_loss = mean_loss(batches), mean_loss([part.loss for part in parts])
    largest = 0.0
    if scale is not None:
        largest = float(np.nanmax(np.abs(expected)))
    loss_difference = _off(saved_loss, reported_loss)
    allowed = _loss_allowed(reported_loss, tolerance, scale, largest)
    if loss_difference and not loss_difference <= allowed:
        raise RuntimeError(
            f"the saved model gives another test loss than the trained one: {saved_loss:.6g} "
            f"instead of {reported_loss:.6g} {where}"
        )
    scores = [
        task.compute_metrics(values, found.references[indices])[task.primary_metric]
        for values in ((expected, saved) if scale is None else (units, scale.of_numbers(saved)))
    ]
    return SavedCheck(
        samples=samples,
        of=of,
        loss_difference=loss_difference,
        prediction_difference=difference,
        metric_difference=_off(scores[1], scores[0]),
        seconds=time.perf_counter() - started,
    )


def _compare_predictions(
    expected: npt.NDArray[Any],
    saved: npt.NDArray[Any],
    scale: Scale | None,
    tolerance: _Tolerance,
    where: str,
) -> float | None:
    """The largest difference as a share of the largest number; None of tokens.

    Raises:
        RuntimeError: they differ by more than rounding.
    """
    if not np.issubdtype(expected.dtype, np.floating):  # tokens: one is not near another
        others = int((expected != saved).reshape(len(expected), -1).any(axis=1).sum())
        if others > math.ceil(tolerance.answers * len(expected)):
            raise RuntimeError(
                f"the saved model gives other answers than the trained one to {others:,} samples, "
                f"{where}"
            )
        return None
    allowed = tolerance.prediction
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0))
    off = _off(saved, expected)
    difference = off / largest if off else 0.0
    if scale is not None:  # numbers far from 0 have fewer digits for their spread
        allowed += 4 * FLOAT32 * abs(scale.centre / scale.scale) / max(largest, FLOAT32)
    if not difference <= allowed:
        raise RuntimeError(
            f"the saved model gives other predictions than the trained one {where}: they differ by "
            f"{difference:.3g} of the largest, where {allowed:.3g} is rounding"
        )
    return difference


def _off(found: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """The largest difference; numbers that are not finite have to be the same."""
    one, other = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        return float(np.abs(np.where(same, 0.0, one - other)).max(initial=0.0))


def _some(batches: Sequence[BatchLoss], limit: int) -> list[BatchLoss]:
    """All, or so many, spread evenly, that they have about ``limit`` samples."""
    total = sum(len(batch.indices) for batch in batches)
    if total <= limit:
        return list(batches)
    count = max(1, len(batches) * limit // total)
    return [batches[(2 * index + 1) * len(batches) // (2 * count)] for index in range(count)]


def _attach_loss(loaded: nn.Module, reported: Reported) -> None:
    """The loss of the run, where it was not the model's own."""
    loss = reported.task.own_loss(reported.data)
    if loss is None:
        return
    scale = reported.scale
    if scale is None:
        OwnLoss(loss).attach(loaded)
        return
    centre, unit = scale.centre, scale.scale

    def of_standard_units(logits: Tensor, labels: Tensor) -> Tensor:
        z = logits if logits.dtype == torch.float64 else logits.float()
        return loss(z, (labels.to(z.dtype) - centre) / unit)

    OwnLoss(of_standard_units).attach(loaded)


class _Again:
    """The loaded model on batches of the test split."""

    def __init__(self, loaded: nn.Module, reported: Reported, accelerator: Accelerator) -> None:
        self.loaded, self.task = loaded, reported.task
        self.tokens = not np.issubdtype(reported.found.predictions.dtype, np.floating)
        self.data, self.accelerator = reported.data.test, accelerator

    def compute(
        self,
        batches: Sequence[BatchLoss],
        keep: Callable[[Any, Batch], Tensor] | None = None,
        *,
        rounded: bool = True,
    ) -> list[PredictedBatch]:
        """``rounded``: in the precision of the run, else in float32."""
        device, task = self.accelerator.device, self.task
        shares = [Share(batch.indices) for batch in batches]
        read = load_batches(self.data, shares, task.collate, device=device)
        keep = task.predictions if keep is None else keep
        with self.accelerator.autocast() if rounded else torch.autocast(device.type, enabled=False):
            return [
                predict_batch(self.loaded, share.indices, batch, task.loss_units, keep, device)
                for share, batch in zip(shares, read, strict=True)
            ]

    def tolerance(self, batches: Sequence[BatchLoss]) -> _Tolerance:
        """What the precision of the run changes, measured on the first batches."""
        epsilon = HALF.get(self.accelerator.mixed_precision)
        if epsilon is None:
            return _Tolerance()
        count, samples = 0, 0
        while count < len(batches) and samples < MEASURED_SAMPLES:
            samples += len(batches[count].indices)
            count += 1
        rounded, exact = (
            self.compute(batches[:count], self.task.comparable, rounded=value)
            for value in (True, False)
        )
        off, largest = 0.0, 0.0
        for one, other in zip(rounded, exact, strict=True):
            off = max(off, float(np.abs(one.predictions - other.predictions).max(initial=0)))
            largest = max(largest, float(np.abs(other.predictions).max(initial=0)))
        losses = [mean_loss([part.loss for part in parts]) for parts in (rounded, exact)]
        return _Tolerance(
            prediction=ROUNDINGS * (off / largest if off else 0.0) + epsilon,
            loss=ROUNDINGS * abs(losses[0] - losses[1]) / max(1.0, abs(losses[1])) + epsilon / 2,
            answers=OTHER_ANSWERS + ROUNDINGS * self._other_answers(batches[:count]),
        )

    def _other_answers(self, batches: Sequence[BatchLoss]) -> float:
        """The share of the samples whose tokens the run's precision changes; 0 of numbers."""
        if not self.tokens:
            return 0.0
        one, other = (
            stack([part.predictions for part in self.compute(batches, rounded=value)])
            for value in (True, False)
        )
        both = stack([one, other])
        return float((both[: len(one)] != both[len(one) :]).any(axis=1).mean())


def _loss_allowed(loss: float, tolerance: _Tolerance, scale: Scale | None, largest: float) -> float:
    """``largest``: number in standard units, where the loss is a squared error of these."""
    allowed = tolerance.loss * max(1.0, abs(loss))
    if scale is None:
        return allowed
    off = tolerance.prediction * largest + 4 * FLOAT32 * abs(scale.centre / scale.scale)
    return allowed + 2 * math.sqrt(abs(loss)) * off + off**2
