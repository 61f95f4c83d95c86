"""Exact parameter counts of a model under a strategy, by depth and by kind of layer."""

from collections import Counter

from torch import nn

from hfbench.models.module_tree import is_attention, is_linear, is_norm
from hfbench.models.structure import Structure, canonical_name, is_duplicate
from hfbench.results import ParameterReport, ParameterRow

LAYER_TYPES = (
    "embedding",
    "linear",
    "convolution",
    "attention",
    "norm",
    "other",
    "head",
    "adapter",
)


def count_parameters(model: nn.Module, structure: Structure) -> ParameterReport:
    """Count every parameter once; works on meta tensors, before or after ``apply_strategy``.

    Tied weights count where the model uses them first (GPT-2's output layer: at its embedding).
    PEFT's frozen copies of modules that train are left out. ``structure`` is the one that was
    found before the strategy was applied.

    Kinds of layer: ``attention`` is everything inside a block's attention except its norms,
    ``embedding`` also class tokens, positions and masks before the blocks, ``linear`` the other
    linear layers of the backbone, ``head`` and ``adapter`` all that these parts hold.
    """
    modules = dict(model.named_modules())
    depth_totals: Counter[str] = Counter()
    depth_trainable: Counter[str] = Counter()
    type_totals: Counter[str] = Counter()
    type_trainable: Counter[str] = Counter()
    seen: set[int] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if is_duplicate(name) or id(parameter) in seen:
            continue
        seen.add(id(parameter))
        part = structure.part_of(name)
        kind = _layer_type(name, part, modules)
        depth_totals[part] += parameter.numel()
        type_totals[kind] += parameter.numel()
        if parameter.requires_grad:
            depth_trainable[part] += parameter.numel()
            type_trainable[kind] += parameter.numel()
    blocks = [f"block {index}" for index in range(structure.depth)]
    parts = ["embeddings", *blocks, "final", "pooler", "head", "adapter"]
    by_depth = [
        ParameterRow(part, depth_totals[part], depth_trainable[part])
        for part in parts
        if part in depth_totals
    ]
    by_layer_type = [
        ParameterRow(kind, type_totals[kind], type_trainable[kind])
        for kind in (*LAYER_TYPES, *_parameter_free_kinds(model))
    ]
    total, trainable = depth_totals.total(), depth_trainable.total()
    for rows in (by_depth, by_layer_type):
        assert sum(row.total for row in rows) == total, rows
        assert sum(row.trainable for row in rows) == trainable, rows
    return ParameterReport(
        total=total,
        trainable=trainable,
        buffers=sum(b.numel() for name, b in model.named_buffers() if not is_duplicate(name)),
        by_depth=tuple(by_depth),
        by_layer_type=tuple(by_layer_type),
    )


def _layer_type(name: str, part: str, modules: dict[str, nn.Module]) -> str:
    if part in ("head", "adapter"):
        return part
    # The weights of a parametrised (weight-normed) layer lie in a module below it.
    owner_name = name.partition(".parametrizations.")[0]
    if owner_name == name:
        owner_name = name.rpartition(".")[0]
    owner = modules[owner_name]
    if is_norm(owner):
        return "norm"
    if part.startswith("block ") and _inside_attention(owner_name, modules):
        return "attention"
    if isinstance(owner, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return "convolution"
    if is_linear(owner):
        return "linear"
    if isinstance(owner, nn.Embedding) or part == "embeddings":
        return "embedding"
    return "other"


def _inside_attention(owner_name: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a module of a block is, or lies in, an attention layer of that block."""
    while owner_name:
        module = modules[owner_name]
        if not is_linear(module) and is_attention(canonical_name(owner_name), module):
            return True
        owner_name = owner_name.rpartition(".")[0]
    return False


def _parameter_free_kinds(model: nn.Module) -> list[str]:
    """Which of dropout, activation and pooling the model has as layers without parameters."""
    present = set()
    for module in model.modules():
        name = type(module).__name__
        if next(module.parameters(), None) is not None:
            continue
        if "dropout" in name.lower() or "droppath" in name.lower():
            present.add("dropout")
        elif "activation" in name.lower() or type(module).__module__.endswith(".activation"):
            present.add("activation")
        elif "pool" in name.lower():
            present.add("pooling")
    return [kind for kind in ("dropout", "activation", "pooling") if kind in present]
