"""Optimisers with decay where it belongs, two learning rates, penalties and a schedule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from hfbench.config import TrainingConfig


@dataclass(frozen=True)
class LearningRates:
    """Peak learning rates of the head and of everything else that trains."""

    rest: float
    head: float


def build_optimizer(
    model: nn.Module,
    *,
    rates: LearningRates,
    config: TrainingConfig,
    is_head: Callable[[str], bool],
    rate_factor: Callable[[str], float] = lambda name: 1.0,
    decays: Callable[[str], bool] = lambda name: True,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """The configured optimiser over the trainable parameters.

    Weight decay acts on tensors of two and more dimensions; biases, norm weights and other
    vectors have none (Loshchilov & Hutter 2019 leave the choice open; this is BERT's), nor has
    what ``decays`` denies. ``rate_factor`` multiplies the rate of a parameter.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = (rates.head if is_head(name) else rates.rest) * rate_factor(name)
            decay = config.weight_decay if parameter.ndim >= 2 and decays(name) else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    listed = [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(listed, fused=fused)
        case "adam":
            return torch.optim.Adam(listed, fused=fused)
        case "sgd":
            return torch.optim.SGD(listed, momentum=config.momentum, fused=fused)


class Penalty:
    """l1 · Σ|w| + l2 / 2 · Σw² over the matrices that train, as gradients only.

    It is added to the gradient of the mean loss before clipping, so it needs no graph and does not
    appear in the reported loss.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, l1: float, l2: float) -> None:
        self.l1, self.l2 = l1, l2
        self.matrices: list[Tensor] = [p for p in parameters if p.ndim >= 2] if l1 or l2 else []

    @torch.no_grad()
    def add_gradients(self, scaler: Any = None) -> None:
        """Add the gradients, multiplied as ``scaler`` (of fp16) multiplied the loss."""
        weights = [p for p in self.matrices if p.grad is not None]
        if not weights:
            return
        gradients: list[Tensor] = [p.grad for p in weights if p.grad is not None]
        scale = 1.0 if scaler is None else scaler.get_scale()
        if self.l1:
            torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=self.l1 * scale)
        if self.l2:
            torch._foreach_add_(gradients, weights, alpha=self.l2 * scale)


def build_schedule(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, num_steps: int
) -> LRScheduler | None:
    """Warm-up over ``warmup_ratio`` of the steps, then linear or cosine decay to 0 or constant.

    None where the rate never changes.
    """
    warmup_steps = round(num_steps * config.warmup_ratio)
    name = config.lr_scheduler_type
    if name == "constant" and not warmup_steps:
        return None
    from transformers import get_scheduler  # here: its import takes seconds

    schedule: LRScheduler = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=num_steps,
    )
    return schedule
