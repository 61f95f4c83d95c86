"""How a model computes its attention: by PyTorch's own function, or written out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from hfbench.models.wrapping import without_adapter


def can_write_out(model: nn.Module) -> bool:
    """Whether it can do without PyTorch's own function, which it uses."""
    base = without_adapter(model)
    config = getattr(base, "config", None)
    own = getattr(config, "_attn_implementation", None) == "sdpa"
    return bool(own and base._can_set_attn_implementation()) or bool(_timm_layers(base))


@contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """Within, attention is products and a softmax (transformers' "eager", timm without fusing)."""
    base = without_adapter(model)
    layers = _timm_layers(base)
    before = [layer.fused_attn for layer in layers]
    has_config = hasattr(base, "set_attn_implementation")
    implementation = base.config._attn_implementation if has_config else None
    try:
        if has_config:
            base.set_attn_implementation("eager")
        for layer in layers:
            layer.fused_attn = False
        yield
    finally:
        if has_config:
            base.set_attn_implementation(implementation)
        for layer, fused in zip(layers, before, strict=True):
            layer.fused_attn = fused


def _timm_layers(model: nn.Module) -> list[Any]:
    """timm's attention layers that use PyTorch's own function."""
    return [module for module in model.modules() if getattr(module, "fused_attn", False)]
