"""Losses that stay on the device until many are read at once, and losses that models lack."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn


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


class OwnLoss:
    """Replaces the loss that a library's model computes, or cannot compute, from its labels."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.loss = loss
        self.labels: Tensor | None = None

    def attach(self, model: nn.Module) -> None:
        """From now on ``model(**batch).loss`` is this one; without labels nothing changes."""
        model.register_forward_pre_hook(self._take_labels, with_kwargs=True)
        model.register_forward_hook(self._put_loss)

    def _take_labels(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.labels = kwargs.pop("labels", None)
        return args, kwargs

    def _put_loss(self, module: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        if self.labels is not None:
            outputs["loss"] = self.loss(outputs.logits.float(), self.labels)
        self.labels = None
