"""What answers in place of modules that are not computed: as they would, without their numbers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from hfbench.errors import is_out_of_memory


class CutError(Exception):
    """The model cannot be cut: the message says why."""


# What the code of a model that nobody has seen may raise where some of its values are missing.
_NOT_UNDERSTOOD = (
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
)


@contextmanager
def trying(what: str) -> Iterator[None]:
    """Within, what such code raises becomes a CutError of one line; exhausted memory does not.

    ``what``: what fails then, as a sentence without its full stop.
    """
    try:
        yield
    except _NOT_UNDERSTOOD as error:
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        raise CutError(f"{what}: {lines[0] if lines else type(error).__name__}") from error


class BlockAnswer:
    """Answers as a block would, with the hidden states that it got, or with ``stored`` ones.

    In what they come (bare, in a tuple) is asked of the block's own code, once.
    """

    def __init__(self, module: nn.Module, stored: Callable[[Tensor], Tensor] | None) -> None:
        self.module, self.stored = module, stored
        self.own = module.forward
        self.form: tuple[list[Any], TreeSpec] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hidden = hidden_states(args)
        if self.form is None:
            self.form = tree_flatten(_on_meta(self.module, self.own, args, kwargs))
            if any(isinstance(leaf, Tensor) for leaf in self.form[0][1:]):
                raise CutError("its blocks give more than their hidden states")
        leaves, spec = self.form
        answer = hidden if self.stored is None else self.stored(hidden)
        return tree_unflatten([answer, *leaves[1:]], spec)


class Filled:
    """Answers as a module would, with ``value`` in place of all its numbers.

    The shapes come from the module's own code on the meta device, once for each shape of input.
    """

    def __init__(self, module: nn.Module, value: float) -> None:
        self.module, self.value, self.own = module, value, module.forward
        self.known: dict[Any, tuple[list[Any], TreeSpec]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inputs, _ = tree_flatten((args, kwargs))
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        key = tuple((tuple(x.shape), x.dtype) for x in tensors)
        if key not in self.known:
            self.known[key] = tree_flatten(_on_meta(self.module, self.own, args, kwargs))
        leaves, spec = self.known[key]
        answers = [
            self._like(leaf, tensors[0].device) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        return tree_unflatten(answers, spec)

    def _like(self, leaf: Tensor, device: torch.device) -> Tensor:
        value = self.value if leaf.is_floating_point() else 0
        return torch.full(leaf.shape, value, dtype=leaf.dtype, device=device)


def _on_meta(
    module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What ``module`` gives by its own ``forward``, without its numbers."""

    def like(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    # Whoever counts the operations of a step must not see these.
    with _disable_current_modes(), torch.no_grad(), answering(module, forward):
        named = (*module.named_parameters(), *module.named_buffers())
        weights = {name: like(tensor) for name, tensor in named}
        moved = tree_map_only(Tensor, like, (args, kwargs))
        return torch.func.functional_call(module, weights, *moved)


@contextmanager
def answering(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within, ``module`` answers by ``forward``."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def hidden_states(values: Any) -> Tensor:
    """The hidden states among a block's inputs or outputs: (samples, positions, ...)."""
    first = values if isinstance(values, Tensor) else next(iter(values), None)
    if not isinstance(first, Tensor) or not first.is_floating_point() or first.ndim < 3:
        raise CutError("its blocks do not take and give hidden states as their first value")
    return first
