"""Tiny models with a strategy applied, in training mode."""

from collections.abc import Callable

import peft
import tiny_models
from torch import nn

from hfbench.config import parse_strategy
from hfbench.models.structure import Structure, canonical_name, find_structure
from hfbench.strategies import apply_strategy, set_training_mode

MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": tiny_models.bert,
    "vit": tiny_models.vit,
    "wav2vec2": tiny_models.wav2vec2,
    "gpt2": tiny_models.gpt2,
}


def prepare(
    model: nn.Module, strategy: str, new_parameters: tuple[str, ...] = ()
) -> tuple[nn.Module, Structure]:
    structure = find_structure(model)
    trained = apply_strategy(model, structure, parse_strategy(strategy), new_parameters)
    set_training_mode(trained, structure)
    return trained, structure


def unwrapped(model: nn.Module) -> nn.Module:
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model


def module_named(model: nn.Module, name: str) -> nn.Module:
    return next(m for n, m in model.named_modules() if canonical_name(n) == name)
