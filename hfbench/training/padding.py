"""On which side a batch may be padded so that no answer depends on what stands beside a sample."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hfbench.data.tokens import Side

SIDES: tuple[Side, ...] = ("right", "left")
# By how much an answer may differ in a batch, in float32: as a share of the largest number,
ROUNDING = 2e-6
SPREAD = 1e-4  # and of how far the answers to different samples lie apart.


@torch.no_grad()
def harmless_side(
    model: nn.Module, answers: Callable[[Sequence[Any], Side], Tensor], samples: Sequence[Any]
) -> Side | None:
    """The side on which padding changes no answer, the right one first; None: there is none.

    Absolute positions that are counted from the first column, heads that read the last one,
    convolutions and Fourier transforms over the padding: whatever it is, it shows in what the model
    answers to each of ``samples`` alone and to all of them together.

    Args:
        answers: of a batch of samples, padded on the side: (batch, ...), float32. Answers that are
            the same for all samples show nothing, so that then there is no such side.
        samples: of different lengths.
    """
    training = model.training
    model.eval()
    with torch.random.fork_rng():  # Reformer draws its hashes
        alone = torch.cat([answers([sample], "right") for sample in samples])
        apart = float((alone.amax(dim=0) - alone.amin(dim=0)).max())
        allowed = ROUNDING * float(alone.abs().max()) + SPREAD * apart
        found: Side | None = None
        for side in SIDES if apart else ():
            off = float((answers(samples, side) - alone).abs().max())
            if off <= allowed:  # not NaN either
                found = side
                break
    model.train(training)
    return found
