"""What is inside the wrapper that PEFT puts around a model."""

from typing import Any

from torch import nn


def without_adapter(model: nn.Module) -> Any:
    """The model inside a ``peft.PeftModel``, whose import takes a second."""
    inside = getattr(model, "get_base_model", None)
    return model if inside is None else inside()
