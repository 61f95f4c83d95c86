"""Gradient checkpointing that leaves a frozen prefix alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from hfbench.errors import UserError
from hfbench.models.wrapping import without_adapter


def can_checkpoint(model: nn.Module) -> bool:
    """Whether the model has gradient checkpointing."""
    return bool(getattr(without_adapter(model), "supports_gradient_checkpointing", False))


@contextmanager
def gradient_checkpointing(model: nn.Module) -> Iterator[None]:
    """Trained blocks keep only their input and are computed again in the backward pass.

    Two of transformers' habits are undone. Enabling marks the output of the word embeddings as
    needing gradients (reentrant checkpointing wants that, this kind does not), and then a frozen
    prefix keeps its activations and is back-propagated through for nothing; disabling leaves the
    mark. And a cache of keys and values would grow a second time when a block is computed again.

    Raises UserError for a model that has none.
    """
    base = without_adapter(model)
    if not can_checkpoint(model):
        raise UserError(f"{type(base).__name__} has no gradient checkpointing; do without it")
    use_cache = getattr(base.config, "use_cache", None)
    base.config.use_cache = False
    base.activation_checkpointing_enable({"use_reentrant": False})
    if base.main_input_name == "input_ids":
        base.disable_input_require_grads()
    try:
        yield
    finally:
        base.activation_checkpointing_disable()
        base.config.use_cache = use_cache
