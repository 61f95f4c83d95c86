"""On which side a batch may be padded so that no answer depends on what stands beside a sample."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hfbench.errors import NotMeasuredError, measuring
from hfbench.training.undisturbed import undisturbed

Side = TypeVar("Side")

# By how much an answer may differ in a batch, in float32: as a share of the largest number,
ROUNDING = 2e-6
SPREAD = 1e-4  # and of how far the answers to different samples lie apart.


@torch.no_grad()
def harmless_side(
    model: nn.Module,
    answers: Callable[[Sequence[Any], Side], Tensor],
    samples: Sequence[Any],
    sides: Sequence[Side],
) -> Side | None:
    """The first of the sides on which padding changes no answer; None: there is none.

    Absolute positions that are counted from the first column, heads that read the last one,
    convolutions and Fourier transforms over the padding: whatever it is, it shows in what the model
    answers to each of ``samples`` alone and to all of them together.

    Args:
        answers: of a batch of samples, padded on the side: (batch, ...), float32. Answers that are
            the same for all samples show nothing, so that then there is no such side.
        samples: of different lengths.

    Raises UserError for a network that cannot even read a sample alone.
    """
    with undisturbed(model):  # Reformer draws its hashes
        with measuring(f"{type(model).__name__} cannot read a sample, not even alone"):
            alone = torch.cat([answers([sample], sides[0]) for sample in samples])
        apart = float((alone.amax(dim=0) - alone.amin(dim=0)).max())
        allowed = ROUNDING * float(alone.abs().max()) + SPREAD * apart
        found: Side | None = None
        for side in sides if apart else ():
            try:
                with measuring("it cannot read padded samples"):
                    together = answers(samples, side)
            except NotMeasuredError:
                continue
            if float((together - alone).abs().max()) <= allowed:  # not NaN either
                found = side
                break
    return found
