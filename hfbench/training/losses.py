"""Losses of steps that stay on the device until many are read at once."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor


class PendingLosses:
    """Reading a loss waits for the device, so the loop reads those of several steps together."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.steps: list[tuple[Sequence[Tensor], Sequence[int]]] = []

    def add(self, losses: Sequence[Tensor], units: Sequence[int]) -> None:
        """One step: the mean loss of each batch of this process and over how many units it is."""
        self.steps.append((losses, units))

    def read(self) -> list[tuple[float, float]]:
        """Loss sum and units of every step since the last call, over all processes."""
        if not self.steps:
            return []
        losses = torch.stack([loss for step, _ in self.steps for loss in step])
        values = iter(losses.float().tolist())
        rows = [
            (sum(next(values) * count for count in units), float(sum(units)))
            for _, units in self.steps
        ]
        self.steps = []
        if self.accelerator.num_processes == 1:
            return rows
        own = torch.tensor(rows, device=self.accelerator.device)
        return [(loss, units) for loss, units in self.accelerator.reduce(own, "sum").tolist()]
