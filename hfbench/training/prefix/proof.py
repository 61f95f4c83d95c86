"""The proof that a model computes the same numbers behind its stored prefix as it does whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hfbench.training.batching import Batch
from hfbench.training.prefix.cut import STORED, Cut
from hfbench.training.probe import Probe, difference

REPEATS = 4  # so many times what a repeated pass changes (GPUs add in any order), at most
MOST_NOISE = 1e-5  # of all gradients' largest
EXACT = 1e-6  # of a tensor's largest number, for the same products in float32,
FLOOR = 1e-7  # and of all gradients' largest: below it is rounding
# Of the largest prediction: samples without padding are computed in products of other sizes.
OTHER_SIZES = 1e-5


@dataclass(frozen=True)
class Whole:
    """What the whole model computes for the probed samples in float32."""

    predictions: Tensor
    gradients: dict[str, Tensor]  # of the loss, by the names of the parameters that train
    noise: dict[str, float]  # by how much each gradient differs when all is computed again


def whole_model(probe: Probe) -> Whole:
    """Computed in float32 and eval mode, whatever the run's precision is."""
    with torch.autocast(probe.device.type, enabled=False):
        predictions, gradients = _both(probe, probe.batch)
        _, again = _both(probe, probe.batch)
    noise = {name: float((again[name] - one).abs().max()) for name, one in gradients.items()}
    return Whole(predictions, gradients, noise)


def disagreement(cut: Cut, probe: Probe, whole: Whole, lengths: Sequence[int] | None) -> str | None:
    """What the model computes otherwise behind ``cut``, for people; None where nothing is.

    In float32 and eval mode: first on one batch of samples of different lengths, whose products
    are the same, then with each sample's rows as they are stored, without padding.

    Args:
        lengths: of the probed samples in rows, where rows are stored without their padding.
    """
    with torch.autocast(probe.device.type, enabled=False):
        with torch.no_grad():
            alone = [cut.output(probe.batch_of([index]))[0] for index in probe.indices]
            if lengths is not None:
                alone = [row[:length] for row, length in zip(alone, lengths, strict=True)]
            together = cut.output(probe.batch)
        for rows, row in zip(together, alone, strict=True):
            rows[len(row) :] = 0  # as what is stored is read
        with cut.installed():
            predictions, gradients = _both(probe, {**probe.batch, STORED: together})
            stored = {**probe.batch, STORED: pad_sequence(alone, batch_first=True)}
            with torch.no_grad():
                separate = probe.predictions(stored)
    return (
        _other_predictions(predictions, whole.predictions, EXACT)
        or _other_gradients(gradients, whole)
        or _other_predictions(separate, whole.predictions, OTHER_SIZES)
    )


def _both(probe: Probe, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Predictions, and the gradients of the loss; the model keeps none, errors too."""
    model = probe.model
    model.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad():
            outputs = model(**batch)
            outputs.loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    finally:
        model.zero_grad(set_to_none=True)
    return probe.reading.predictions(outputs, batch).detach().float(), gradients


def _other_predictions(found: Tensor, whole: Tensor, tolerance: float) -> str | None:
    off = difference(found, whole)
    return None if off <= tolerance else f"other predictions without it ({off:.2g} of the largest)"


def _other_gradients(found: dict[str, Tensor], whole: Whole) -> str | None:
    expected = whole.gradients
    most = max((float(gradient.abs().max()) for gradient in expected.values()), default=0.0)
    for name in sorted(found.keys() | expected.keys()):
        if name not in found or name not in expected:
            return f"no gradient for {name} {'without' if name in expected else 'with'} it"
        largest, off = expected[name].abs().max(), (found[name] - expected[name]).abs().max()
        rounding = FLOOR * most + min(REPEATS * whole.noise[name], MOST_NOISE * most)
        if not float(off) <= EXACT * float(largest) + rounding:
            return (
                f"other gradients of {name} without it ({float(off / largest):.2g} of the largest)"
            )
    return None
