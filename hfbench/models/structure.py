"""Finds embeddings, blocks, pooler and head of a transformer from its module tree.

Libraries rename layers between versions (a ViT's query was ``encoder.layer.0.attention.attention
.query`` and became ``layers.0.attention.q_proj``), so nothing here lists architectures. Two marks
are used: the backbone is what ``base_model_prefix`` (transformers) names, everything where it is
empty, or what is not the classifier (timm's ``get_classifier``); and the blocks are the list of
like modules with attention inside it, or of like modules that hold most of it. Works on meta
tensors.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from hfbench.errors import UserError

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
    DistributedDataParallel make of them.
    """

    backbone: str  # dotted name of the pretrained part; "" where the root is the backbone
    embeddings: tuple[str, ...]  # modules and direct parameters that run before the first block
    blocks: tuple[str, ...]  # in order; shared blocks (ALBERT) are listed once
    final: tuple[str, ...]  # after the blocks inside the backbone, without the pooler
    pooler: tuple[str, ...]  # the backbone's pooler
    head: tuple[str, ...]  # everything outside the backbone

    @property
    def depth(self) -> int:
        """Number of blocks that have parameters of their own."""
        return len(self.blocks)

    @property
    def block_list(self) -> str:
        """Dotted name of the list that holds the blocks."""
        return self.blocks[0].rpartition(".")[0]

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
        parts = {name: f"block {index}" for index, name in enumerate(self.blocks)}
        for part in ("embeddings", "final", "pooler", "head"):
            parts.update(dict.fromkeys(getattr(self, part), part))
        return parts


def find_structure(model: nn.Module) -> Structure:
    """Find the parts of a model whose strategy has not been applied yet.

    Raises UserError with the module tree for a shape that is not understood.
    """
    backbone = _find_backbone(model)
    block_list = _find_block_list(model, backbone)
    classifier = timm_classifier(model.get_submodule(backbone))
    parts: dict[str, list[str]] = {"embeddings": [], "final": [], "pooler": [], "head": []}
    containers = [name for name in _ancestors(block_list) if _is_inside(name, backbone)]
    for container in containers:
        module = model.get_submodule(container)
        parts["embeddings"] += [
            _join(container, n) for n, _ in module.named_parameters(recurse=False)
        ]
        for name, part in _parts_beside_blocks(model, container, block_list, classifier):
            parts[part].append(name)
    if backbone:
        parts["head"] += [n for n, _ in model.named_parameters(recurse=False)]
        parts["head"] += [
            name
            for name, child in model.named_children()
            if name != backbone and has_parameters(child)
        ]
    blocks = [
        f"{block_list}.{name}" for name, _ in model.get_submodule(block_list).named_children()
    ]
    return Structure(
        backbone=backbone,
        blocks=tuple(blocks),
        **{part: tuple(names) for part, names in parts.items()},
    )


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


def has_parameters(module: nn.Module) -> bool:
    """Whether a module or one inside it has parameters; a dropout has none."""
    return next(module.parameters(), None) is not None


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer; GPT-2's ``Conv1D`` is one with a transposed weight."""
    return isinstance(module, (nn.Linear, Conv1D))


def is_attention(name: str, module: nn.Module) -> bool:
    """Whether a module (with this dotted name) is an attention layer: one with matrices inside."""
    words = f"{name.rpartition('.')[2]} {type(module).__name__}".lower()
    return ("attention" in words or "attn" in words) and any(
        p.ndim > 1 for p in module.parameters()
    )


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
            in_attention = any(_is_inside(name, attention) for attention in attentions)
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


def format_tree(model: nn.Module, *, max_depth: int = 4) -> str:
    """The module tree as indented lines; runs of siblings of one class share a line."""
    return "\n".join(_tree_lines(type(model).__name__, model, 0, max_depth))


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
    raise _unknown_shape(
        model, "it says neither where its backbone is (base_model_prefix) nor its get_classifier()"
    )


def _find_block_list(model: nn.Module, backbone: str) -> str:
    """The list of like modules with attention that holds most parameters of the backbone."""
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and _has_like_children(module)
    }
    with_attention = {
        name: module
        for name, module in lists.items()
        if all(_contains_attention(child) for child in module)
    }
    candidates = {
        name: module
        for name, module in (with_attention or lists).items()
        if _is_inside(name, backbone)
    }
    if not candidates:
        raise _unknown_shape(model, "no list of like blocks was found")
    sizes = {
        name: (sum(p.numel() for p in module.parameters()), len(module))
        for name, module in candidates.items()
    }
    chosen: str = max(candidates, key=lambda name: sizes[name])  # the first, outermost of equals
    others = [
        name
        for name in with_attention
        if not _is_inside(name, chosen) and not _is_inside(chosen, name)
    ]
    if others:
        raise _unknown_shape(
            model, f"it has several stacks of blocks ({', '.join([chosen, *others])})"
        )
    backbone_size = sum(p.numel() for p in model.get_submodule(backbone).parameters())
    if not with_attention and 2 * sizes[chosen][0] < backbone_size:
        raise _unknown_shape(
            model, f"the largest list of like blocks ({chosen}) holds less than half of it"
        )
    return chosen


def _parts_beside_blocks(
    model: nn.Module, container: str, block_list: str, classifier: Sequence[nn.Module]
) -> Iterator[tuple[str, str]]:
    """(name, part) of every child with parameters that stands beside the way to the blocks.

    Children registered before the blocks run before them, later ones after, except:
    an embedding is used by the first block wherever it is registered (DeBERTa's rel_embeddings,
    and the norm behind it); the norm of a "stable layer norm" encoder (large Wav2Vec2) is
    registered before its blocks and runs after them.
    """
    stable = getattr(getattr(model, "config", None), "do_stable_layer_norm", False)
    holds_blocks = container == block_list.rpartition(".")[0]
    before, after_embedding = True, False
    for local, child in model.get_submodule(container).named_children():
        name = _join(container, local)
        if _is_inside(block_list, name):
            before = after_embedding = False
            continue
        if not has_parameters(child):
            continue
        norm = is_norm(child)
        if any(module is child for module in classifier) or (classifier and local == "fc_norm"):
            yield name, "head"
        elif "pool" in local.lower():
            yield name, "pooler"
        elif isinstance(child, nn.Embedding) or "embed" in local:
            yield name, "embeddings"
        elif before:
            yield name, "final" if norm and stable and holds_blocks else "embeddings"
        else:
            yield name, "embeddings" if norm and after_embedding else "final"
        after_embedding = isinstance(child, nn.Embedding)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer of any library (LayerNorm, LlamaRMSNorm …)."""
    return "norm" in type(module).__name__.lower() and not any(
        is_linear(child) for child in module.modules()
    )


def timm_classifier(network: nn.Module) -> list[nn.Module]:
    """The classifying layers of one of timm's networks; empty for those of other libraries."""
    get_classifier = getattr(network, "get_classifier", None)
    if get_classifier is None:
        return []
    found = get_classifier()  # a distilled model has a pair
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _has_like_children(module: nn.Module) -> bool:
    children = list(module.children())
    return bool(children) and len({type(c) for c in children}) == 1 and has_parameters(children[0])


def _contains_attention(module: nn.Module) -> bool:
    return any(name and is_attention(name, child) for name, child in module.named_modules())


def _parent(modules: dict[str, nn.Module], name: str) -> nn.Module | None:
    return modules.get(name.rpartition(".")[0])


def _is_inside(name: str, outer: str) -> bool:
    return not outer or name == outer or name.startswith(f"{outer}.")


def _ancestors(name: str) -> list[str]:
    """Containers of ``name`` from the root on: ``a.b.c`` → "", "a", "a.b"."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts))]


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _unknown_shape(model: nn.Module, reason: str) -> UserError:
    return UserError(
        f"the structure of {type(model).__name__} is not understood: {reason}. "
        f"Its module tree:\n{format_tree(model)}"
    )


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
