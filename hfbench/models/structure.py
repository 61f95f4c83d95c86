"""Finds embeddings, blocks, pooler and head of a transformer from its module tree.

Libraries rename layers between versions (a ViT's query was ``encoder.layer.0.attention.attention
.query`` and became ``layers.0.attention.q_proj``), so nothing here lists architectures. Two marks
are used: the backbone is what ``base_model_prefix`` (transformers) names, everything where it is
empty, or what is not the classifier (timm's ``get_classifier``); and the blocks are those of
:mod:`hfbench.models.block_lists`. What stands beside them is placed by
:mod:`hfbench.models.placement`. Works on meta tensors.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import nn

from hfbench.errors import UserError
from hfbench.models.block_lists import find_block_lists
from hfbench.models.module_tree import (
    ancestors,
    has_parameters,
    is_attention,
    is_inside,
    is_linear,
    join,
    unknown_shape,
)
from hfbench.models.placement import Placement

# Wrappers around the whole model: DistributedDataParallel, torch.compile, FSDP, PEFT.
_WRAPPER_PREFIXES = ("module", "_orig_mod", "_fsdp_wrapped_module", "base_model.model")
# PEFT inserts these inside a name; our adapters always have PEFT's default adapter name.
_WRAPPER_PARTS = re.compile(
    r"\.base_layer\b|\.original_module\b|\.modules_to_save(\.default\b)?|(?<=\.lora_[AB])\.default\b"
    r"|(?<=\.lora_magnitude_vector)\.default\b|(?<=\.ia3_l)\.default\b"
)
_ADAPTER = re.compile(r"\.(lora_\w+|ia3_l)(\.|$)")

_QUERY = re.compile(r"^(to_)?w?(q|query)(_|$)")
_KEY = re.compile(r"^(to_)?w?(k|key)(_|$)")
_VALUE = re.compile(r"^(to_)?w?(v|value)(_|$)")
_FUSED = re.compile(r"^(\w*qkv\w*|c_attn|query_key_value|in_proj)$")
_PAIRS = {"attention_qv": (_QUERY, _VALUE), "attention_kv": (_KEY, _VALUE)}


@dataclass(frozen=True)
class Structure:
    """Names of the parts of a model, as dotted module (or direct parameter) names.

    Found before a strategy is applied; ``part_of`` also understands the names that PEFT and
    DistributedDataParallel make of them. Every parameter belongs to one part.
    """

    backbone: str  # dotted name of the pretrained part; "" where the root is the backbone
    embeddings: tuple[str, ...]  # modules and direct parameters that run before the first block
    blocks: tuple[str, ...]  # in order; shared blocks (ALBERT) are listed once
    between: tuple[tuple[str, ...], ...]  # of each block: what runs behind it, before the next one
    final: tuple[str, ...]  # after the blocks inside the backbone, without the pooler
    pooler: tuple[str, ...]  # the backbone's pooler
    head: tuple[str, ...]  # everything outside the backbone

    @property
    def depth(self) -> int:
        """Number of blocks that have parameters of their own."""
        return len(self.blocks)

    @property
    def block_lists(self) -> tuple[str, ...]:
        """Dotted names of the lists that hold the blocks: one, or one of each stage."""
        return tuple(dict.fromkeys(block.rpartition(".")[0] for block in self.blocks))

    @property
    def containers(self) -> tuple[str, ...]:
        """Dotted names of all modules that hold blocks, from the root on, in the tree's order."""
        return tuple(dict.fromkeys(name for block in self.blocks for name in ancestors(block)))

    def block_modules(self, index: int) -> tuple[str, ...]:
        """A block and what trains with it."""
        return self.blocks[index], *self.between[index]

    def part_of(self, name: str) -> str:
        """``embeddings``, ``block 3``, ``final``, ``pooler``, ``head`` or ``adapter``.

        ``name`` is the name of a parameter, or of a module inside a part. Raises ValueError for a
        name of another model.
        """
        name = canonical_name(name)
        if _ADAPTER.search(name):
            return "adapter"
        prefix = name
        while prefix:
            if prefix in self._parts:
                return self._parts[prefix]
            prefix = prefix.rpartition(".")[0]
        raise ValueError(f"{name!r} belongs to no part of this structure")

    def adapted_part(self, name: str) -> str | None:
        """The part in which an adapter's parameter lies; None for a parameter of the network."""
        found = _ADAPTER.search(canonical_name(name))
        return None if found is None else self.part_of(canonical_name(name)[: found.start()])

    def place_of(self, name: str) -> str:
        """As ``part_of``, but of an adapter's parameter the part that it adapts."""
        return self.adapted_part(name) or self.part_of(name)

    @cached_property
    def _parts(self) -> dict[str, str]:
        parts = {
            name: f"block {index}"
            for index in range(self.depth)
            for name in self.block_modules(index)
        }
        for part in ("embeddings", "final", "pooler", "head"):
            parts.update(dict.fromkeys(getattr(self, part), part))
        return parts


def find_structure(model: nn.Module) -> Structure:
    """Find the parts of a model whose strategy has not been applied yet.

    Raises UserError with the module tree for a shape that is not understood.
    """
    backbone = _find_backbone(model)
    classifier = timm_classifier(model.get_submodule(backbone))
    lists = find_block_lists(model, backbone, classifier)
    placed = Placement(model, backbone, lists, classifier)
    head = placed.parts["head"]
    for container in ancestors(backbone) if backbone else ():
        inner = model.get_submodule(container)
        head += [join(container, name) for name, _ in inner.named_parameters(recurse=False)]
        head += [
            join(container, name)
            for name, child in inner.named_children()
            if not is_inside(backbone, join(container, name)) and has_parameters(child)
        ]
    structure = Structure(
        backbone=backbone,
        blocks=tuple(placed.blocks),
        between=tuple(map(tuple, placed.between)),
        **{part: tuple(names) for part, names in placed.parts.items()},
    )
    for name, _ in model.named_parameters(remove_duplicate=False):
        structure.part_of(name)
    return structure


def canonical_name(name: str) -> str:
    """The name before PEFT, DistributedDataParallel, FSDP or torch.compile wrapped the model.

    Works for parameters and modules; the wrapped root itself becomes "".
    """
    stripped = True
    while stripped:
        stripped = False
        for prefix in _WRAPPER_PREFIXES:
            if name == prefix or name.startswith(f"{prefix}."):
                name, stripped = name[len(prefix) + 1 :], True
    return "" if name == "base_model" else _WRAPPER_PARTS.sub("", name)


def is_duplicate(name: str) -> bool:
    """Whether this is PEFT's frozen, unused copy of a module that trains; never to be counted."""
    return "original_module" in name.split(".")


def is_scale(name: str) -> bool:
    """Whether a parameter is a factor of (IA)³, which changes nothing where it is 1."""
    return canonical_name(name).endswith(".ia3_l")


def linear_layers(
    model: nn.Module,
    structure: Structure,
    kind: Literal["attention_qv", "attention_kv", "attention", "all_linear"],
    blocks: Sequence[str],
) -> list[str]:
    """Names of the linear layers of a kind inside ``blocks`` (names from ``structure.blocks``).

    ``attention_qv`` takes query and value, ``attention_kv`` key and value, or the one fused layer
    that holds both. Layers inside ``nn.MultiheadAttention`` are left out: it reads their weights
    without calling them. Raises UserError when a kind matches nothing, listing the linear layers
    that exist.
    """
    found: list[str] = []
    existing: list[str] = []
    pair = _PAIRS.get(kind, ())
    for block in blocks:
        inside = dict(model.get_submodule(block).named_modules())
        attentions = [
            name
            for name, module in inside.items()
            if name and not is_linear(module) and is_attention(name, module)
        ]
        for name, module in inside.items():
            if not is_linear(module) or isinstance(_parent(inside, name), nn.MultiheadAttention):
                continue
            existing.append(name)
            in_attention = any(is_inside(name, attention) for attention in attentions)
            if kind == "all_linear" or (in_attention and kind == "attention"):
                found.append(f"{block}.{name}")
            elif in_attention and pair:
                local = name.rpartition(".")[2]
                if any(pattern.match(local) for pattern in (*pair, _FUSED)):
                    found.append(f"{block}.{name}")
    found_locals = {name.rpartition(".")[2] for name in found}
    if pair and not any(map(_FUSED.match, found_locals)):
        both = all(any(map(pattern.match, found_locals)) for pattern in pair)
        found = found if both else []
    if not found:
        raise UserError(
            f"targets={kind} matches no linear layer in the blocks of {type(model).__name__}; "
            f"linear layers there: {', '.join(dict.fromkeys(existing)) or 'none'}. "
            "Choose targets=attention or targets=all_linear."
        )
    return found


def _find_backbone(model: nn.Module) -> str:
    prefix = getattr(model, "base_model_prefix", None)
    if isinstance(prefix, str):
        if isinstance(getattr(model, prefix, None), nn.Module):
            return prefix
        # Whisper's classifier holds the bare encoder, a whole model in its own right.
        for name, child in model.named_children():
            if has_parameters(child):
                return name if hasattr(child, "base_model_prefix") else ""
        return ""
    if hasattr(model, "get_classifier"):
        return ""
    raise unknown_shape(
        model, "it says neither where its backbone is (base_model_prefix) nor its get_classifier()"
    )


def timm_classifier(network: nn.Module) -> list[nn.Module]:
    """The classifying layers of one of timm's networks; empty for those of other libraries."""
    get_classifier = getattr(network, "get_classifier", None)
    if get_classifier is None:
        return []
    found = get_classifier()  # a distilled model has a pair
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _parent(modules: dict[str, nn.Module], name: str) -> nn.Module | None:
    return modules.get(name.rpartition(".")[0])
