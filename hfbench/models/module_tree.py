"""What readers of a module tree need: kinds of layer, names inside names, the tree as text."""

from collections.abc import Iterator

from torch import nn
from transformers.pytorch_utils import Conv1D

from hfbench.errors import UserError


def has_parameters(module: nn.Module) -> bool:
    """Whether a module or one inside it has parameters; a dropout has none."""
    return next(module.parameters(), None) is not None


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer; GPT-2's ``Conv1D`` is one with a transposed weight."""
    return isinstance(module, (nn.Linear, Conv1D))


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer of any library (LayerNorm, LlamaRMSNorm …)."""
    return "norm" in type(module).__name__.lower() and not any(
        is_linear(child) for child in module.modules()
    )


def is_attention(name: str, module: nn.Module) -> bool:
    """Whether a module (with this dotted name) is an attention layer: one with matrices inside.

    A table of position biases for attention (MPNet's) is none.
    """
    if isinstance(module, nn.Embedding):
        return False
    words = f"{name.rpartition('.')[2]} {type(module).__name__}".lower()
    return ("attention" in words or "attn" in words) and any(
        p.ndim > 1 for p in module.parameters()
    )


def is_inside(name: str, outer: str) -> bool:
    """Whether a dotted name is ``outer`` or lies in it; everything lies in ""."""
    return not outer or name == outer or name.startswith(f"{outer}.")


def ancestors(name: str) -> list[str]:
    """Containers of ``name`` from the root on: ``a.b.c`` → "", "a", "a.b"."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts))]


def join(prefix: str, name: str) -> str:
    """One dotted name of two, either of which may be empty."""
    return f"{prefix}.{name}" if prefix and name else prefix or name


def unknown_shape(model: nn.Module, reason: str) -> UserError:
    """What is raised for a network that is not understood, with its module tree."""
    return UserError(
        f"the structure of {type(model).__name__} is not understood: {reason}. "
        f"Its module tree:\n{format_tree(model)}"
    )


def format_tree(model: nn.Module, *, max_depth: int = 4) -> str:
    """The module tree as indented lines; runs of siblings of one class share a line."""
    return "\n".join(_tree_lines(type(model).__name__, model, 0, max_depth))


def _tree_lines(label: str, module: nn.Module, depth: int, max_depth: int) -> Iterator[str]:
    size = sum(p.numel() for p in module.parameters())
    yield f"{'  ' * depth}{label}  {size:,} parameters" if size else f"{'  ' * depth}{label}"
    if depth == max_depth:
        return
    children = list(module.named_children())
    while children:
        name, child = children[0]
        run = 1
        while run < len(children) and type(children[run][1]) is type(child) and name.isdigit():
            run += 1
        label = f"{name}: {type(child).__name__}"
        if run > 1:
            label = f"{name}..{children[run - 1][0]}: {run} times {type(child).__name__}, each"
        yield from _tree_lines(label, child, depth + 1, max_depth)
        children = children[run:]
