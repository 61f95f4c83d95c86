"""How the tensors of a checkpoint's file and the parameters of a network fit together.

What the file lacks starts at random, and what the network lacks is lost. Both are named by part,
and are errors inside the backbone.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from hfbench.config import ModelConfig
from hfbench.errors import UserError
from hfbench.models.structure import Structure, find_structure
from hfbench.results import NEW_HEAD, OWN_HEAD, WeightsRecord

ANYTHING = "*"  # as a pattern of model.allow_new
# Names that DistributedDataParallel, Lightning and torch.compile put before a network's own.
_WRAPPERS = re.compile(r"^(?:(?:module|model|_orig_mod)\.)+")
_COMPILED = "_orig_mod."  # also before the names of one compiled module inside
# Values that stand for what is masked in training; a checkpoint trained without masks has none.
_MASK_TOKENS = ("masked_spec_embed", "mask_token")
# A constant of older GPT networks, which wrote it among their weights.
_CONSTANT = "masked_bias"
_SHOWN = 3

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """What ``from_pretrained`` found, in the names of the network.

    Attributes:
        missing: parameters, and buffers of floats, that the file lacks.
        reshaped: name -> shape in the file, shape in the network.
        left_over: tensors of the file that the network has no place for.
        prefix: what was removed from the beginning of the file's names.
    """

    missing: frozenset[str]
    reshaped: Mapping[str, tuple[Shape, Shape]]
    left_over: tuple[str, ...]
    prefix: str | None = None

    @classmethod
    def of(cls, model: nn.Module, info: Mapping[str, Any], prefix: str | None) -> "Found":
        """``info``: the loading info of transformers."""
        buffers = dict(model.named_buffers())
        held = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        held |= {name for name, buffer in buffers.items() if torch.is_floating_point(buffer)}
        left_over = (_in_network(model, key) for key in sorted(info["unexpected_keys"]))
        return cls(
            missing=frozenset(held.intersection(info["missing_keys"])),
            reshaped={
                name: (tuple(stored), tuple(wanted))
                for name, stored, wanted in sorted(info["mismatched_keys"])
            },
            left_over=tuple(
                name
                for name in left_over
                if name not in buffers and name.rpartition(".")[2] != _CONSTANT
            ),
            prefix=prefix,
        )

    @property
    def new(self) -> frozenset[str]:
        """Whatever starts at random."""
        return self.missing | set(self.reshaped)


def wrapped_names(stored: Collection[str]) -> list[str]:
    """Those of the names in a file that may have been given to a network in a wrapper."""
    return [name for name in stored if _WRAPPERS.match(name) or f".{_COMPILED}" in name]


def wrapper_mappings(wrapped: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """What may be removed from wrapped names, with the ``key_mapping`` that removes it.

    Every beginning made of the names that wrappers give, such as ``module.`` and
    ``_orig_mod.module.``, the longest first: ``model.`` may also be the network's own.
    """
    inside = {r"\._orig_mod\.": "."} if any(f".{_COMPILED}" in name for name in wrapped) else {}
    runs = Counter(found.group() for name in wrapped if (found := _WRAPPERS.match(name)))
    prefixes = [
        ".".join(words[:count]) + "."
        for words in (run[:-1].split(".") for run, _ in runs.most_common())
        for count in range(len(words), 0, -1)
    ]
    for prefix in dict.fromkeys(prefixes):
        yield prefix, {f"^{re.escape(prefix)}": ""} | inside
    if inside:
        yield _COMPILED, inside


def require_fit(
    checkpoint: ModelConfig, model: nn.Module, found: Found, stored: Collection[str]
) -> WeightsRecord:
    """The record of what is new and what is left over.

    ``stored``: the names in the file, of which some are shown where little fits.

    Raises UserError where parameters would start at random outside head and pooler, where one
    outside the head has another shape, and where the backbone lacks modules that the file has,
    unless ``model.allow_new`` names them; and for a pattern there that matches nothing.
    """
    if not (found.new or found.left_over):
        _allowed(checkpoint, ())
        return WeightsRecord(OWN_HEAD, {}, {}, {}, found.prefix)
    structure = find_structure(model)
    parts = {name: _part_of(structure, name) for name in sorted(found.new)}
    places = {name: _place(model, name) for name in found.left_over}
    allowed = _allowed(checkpoint, (*parts, *places))
    lacking = {
        name: part
        for name, part in parts.items()
        if name in found.missing - allowed
        and part not in ("head", "pooler")
        and not name.endswith(_MASK_TOKENS)
    }
    foreign = {
        name: place
        for name, place in places.items()
        if name not in allowed and _in_backbone(model, structure, place)
    }
    reshaped = [
        f"{name} is {list(of_file)} in the file and {list(wanted)} in the network"
        for name, (of_file, wanted) in found.reshaped.items()
        if name not in allowed and parts[name] != "head"
    ]
    problems = [
        *(f"the file lacks {text}" for text in _by_part(lacking)),
        *(f"the network lacks {text}" for text in _by_part(foreign)),
        *_shortened(reshaped),
    ]
    if problems:
        little = 2 * len(lacking) > sum(1 for _ in model.parameters())
        shown = f". The file's names are like {', '.join(sorted(stored)[:_SHOWN])}"
        raise UserError(
            f"the weights of checkpoint {checkpoint.label!r} do not fit its config.json, a "
            f"{type(model).__name__}: {'; '.join(problems)}{shown if little and stored else ''}. "
            "Mend the configuration or the file; model.allow_new=['PATTERN'] names what may start "
            "at random or be left out"
        )
    new: dict[str, list[str]] = {}
    for name, part in parts.items():
        new.setdefault(part, []).append(name)
    return WeightsRecord(
        head=NEW_HEAD if "head" in new else OWN_HEAD,
        new=new,
        reshaped={name: list(of_file) for name, (of_file, _) in found.reshaped.items()},
        left_over=dict(Counter(places.values())),
        removed_prefix=found.prefix,
    )


def _allowed(checkpoint: ModelConfig, names: Collection[str]) -> set[str]:
    """Those of the names that ``model.allow_new`` matches."""
    matches = {p: {n for n in names if fnmatchcase(n, p)} for p in checkpoint.allow_new}
    unused = [pattern for pattern, found in matches.items() if not found and pattern != ANYTHING]
    if unused:
        raise UserError(
            f"model.allow_new={unused} matches nothing that is new or left over in checkpoint "
            f"{checkpoint.label!r}; that is {', '.join(_shortened(list(names))) or 'nothing'}"
        )
    return set().union(*matches.values())


def _by_part(parts: Mapping[str, str]) -> list[str]:
    """``block 3 (a, b, c and 13 more)`` of names and the part of each."""
    names: dict[str, list[str]] = {}
    for name, part in parts.items():
        names.setdefault(part, []).append(name)
    return _shortened([f"{part} ({', '.join(_shortened(of))})" for part, of in names.items()])


def _shortened(texts: Sequence[str]) -> list[str]:
    if len(texts) <= _SHOWN + 1:
        return list(texts)
    return [*texts[:_SHOWN], f"{len(texts) - _SHOWN} more"]


def _part_of(structure: Structure, name: str) -> str:
    try:
        return structure.part_of(name)
    except ValueError:  # a buffer beside the parts
        return name.rpartition(".")[0] or name


def _in_network(model: nn.Module, key: str) -> str:
    """The name that a tensor of the file would have in the network, were there a place for it.

    A file of the backbone alone lacks the backbone's name at the beginning; a network that is the
    bare backbone has none.
    """
    backbone = getattr(model, "base_model_prefix", "")
    if not backbone:
        return key
    if not hasattr(model, backbone):
        return key.removeprefix(f"{backbone}.")
    longer = f"{backbone}.{key}"
    return longer if not _known(model, key) and _known(model, longer) != backbone else key


def _known(model: nn.Module, name: str) -> str:
    """The longest beginning of a name that is a module of the network; empty without any."""
    words: list[str] = []
    for word in name.split("."):
        inner = dict(model.named_children()).get(word)
        if inner is None:
            break
        words.append(word)
        model = inner
    return ".".join(words)


def _place(model: nn.Module, name: str) -> str:
    """The outermost module of a tensor that the network lacks, else the one that lacks the tensor.

    ``cls``, ``bert.pooler``, ``bert.encoder.layer.3``.
    """
    known = _known(model, name)
    words = name.split(".")
    count = known.count(".") + 2 if known else 1
    return ".".join(words[: min(count, len(words) - 1)]) or name


def _in_backbone(model: nn.Module, structure: Structure, place: str) -> bool:
    """Whether something left over was computed between input and output of the backbone.

    That is one module more in a list of the backbone, and anything inside a block. What lies
    beside them (a pretraining head, a pooler, another tower, a decoder) reads the blocks' output,
    or is read by nothing else.
    """
    known = _known(model, place)
    if not f"{known}.".startswith(f"{structure.backbone}." if structure.backbone else ""):
        return False
    part = _part_of(structure, known) if known else ""
    if part.startswith("block "):
        return True
    further = place != known and isinstance(model.get_submodule(known), nn.ModuleList)
    return further and part not in ("head", "pooler")
