"""What is tried on a model before its training leaves modes and random numbers as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """In eval mode; afterwards modes and random numbers are as before, after an error too."""
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng(gpus_of(model)):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def gpus_of(model: nn.Module) -> list[torch.device]:
    """The CUDA devices that the model lies on: passes through it draw random numbers there."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return sorted((d for d in devices if d.type == "cuda"), key=str)
