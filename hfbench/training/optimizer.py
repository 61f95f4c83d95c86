"""AdamW with decay where it belongs, two learning rates and a schedule."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

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
    weight_decay: float,
    is_head: Callable[[str], bool],
    fused: bool = True,
) -> AdamW:
    """AdamW over the trainable parameters.

    Weight decay acts on tensors of two and more dimensions; biases, norm weights and other
    vectors have none (Loshchilov & Hutter 2019 leave the choice open; this is BERT's).
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((is_head(name), parameter.ndim >= 2), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": rates.head if head else rates.rest,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (head, decays), parameters in sorted(groups.items())
        ],
        fused=fused,
    )


def build_schedule(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, num_steps: int
) -> LRScheduler:
    """Warm-up over ``warmup_ratio`` of the steps, then linear or cosine decay to 0 or constant."""
    name = (
        "constant_with_warmup"
        if config.lr_scheduler_type == "constant"
        else config.lr_scheduler_type
    )
    schedule: LRScheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=round(num_steps * config.warmup_ratio),
        num_training_steps=num_steps,
    )
    return schedule
