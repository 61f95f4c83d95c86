"""Finds the lists that hold a network's blocks, from its module tree.

Most networks have one list of like modules with attention inside. Hierarchical ones have a list in
every stage (``layers.0.blocks``, ``layers.1.blocks`` …, timm's ResNets ``layer1`` to ``layer4``):
their blocks are those of all stages, one after the other. Networks without attention have lists of
like modules with several matrices inside, which hold most of them.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from hfbench.models.module_tree import (
    has_parameters,
    is_attention,
    is_inside,
    join,
    unknown_shape,
)

_LISTS = (nn.ModuleList, nn.Sequential)


def find_block_lists(
    model: nn.Module, backbone: str, classifier: Sequence[nn.Module]
) -> tuple[str, ...]:
    """Names of the lists whose children are the blocks, in the order in which they run.

    ``backbone``: dotted name of the pretrained part; ``classifier``: layers of it that are none.

    Raises UserError with the module tree for a shape that is not understood.
    """
    with_attention = _Search(_attends, any, _holds_all_attention).lists("", model)
    inside = [name for name in with_attention if is_inside(name, backbone)]
    if inside:
        found = _one_stack(model, inside, with_attention)
    else:
        found = _without_attention(model, backbone, classifier)
    _check(model, backbone, found)
    return tuple(found)


def stage_list(lists: Sequence[str]) -> str | None:
    """The list whose children are the stages: ``a.stages`` of ``a.stages.0.layers`` and so on."""
    if len(lists) == 1:
        return None
    tokens = [_tokens(name) for name in lists]
    place = next(i for i, column in enumerate(zip(*tokens, strict=True)) if len(set(column)) > 1)
    before = "".join(tokens[0][:place])
    return before.removesuffix(".") if before.endswith(".") else None  # layer1, layer2 …: none


@dataclass(frozen=True)
class _Search:
    """Finds the innermost lists whose children are whole blocks.

    A list of lists is one of stages, unless its children hold parts of blocks elsewhere too.
    """

    is_block: Callable[[nn.Module], bool]
    enough: Callable[[Iterable[bool]], bool]  # how many of a list's children must be blocks
    holds: Callable[[nn.Module, str], bool]  # whether a stage has all in its list of that name

    def lists(self, name: str, module: nn.Module) -> list[str]:
        """Names of the lists inside a module with this name, itself included."""
        is_list = isinstance(module, _LISTS) and _are_alike(module)
        if not is_list or not self.enough(map(self.is_block, module.children())):
            return list(
                itertools.chain.from_iterable(
                    self.lists(join(name, local), child) for local, child in module.named_children()
                )
            )
        inner: list[str] = []
        for local, stage in module.named_children():
            if not self.is_block(stage):
                continue
            found = self.lists(join(name, local), stage)
            if len(found) != 1 or not self.holds(stage, _behind(found[0], join(name, local))):
                return [name]
            inner += found
        return inner if _differs(name, module, inner) else [name]


def _behind(name: str, outer: str) -> str:
    """What a dotted name has behind that of something around it."""
    return name[len(outer) :].removeprefix(".")


def _holds_all_attention(stage: nn.Module, list_name: str) -> bool:
    return all(
        is_inside(name, list_name) or is_inside(list_name, name)
        for name, module in stage.named_modules()
        if is_attention(name, module)
    )


def _holds_most(stage: nn.Module, list_name: str) -> bool:
    return 2 * _size(stage.get_submodule(list_name)) >= _size(stage)


def _differs(name: str, outer: nn.Module, lists: Collection[str]) -> bool:
    """Whether the children of the lists are others than their stages, unlike in ALBERT's groups."""
    inner = [outer.get_submodule(_behind(found, name)) for found in lists]
    longer = any(len(list(module.children())) > 1 for module in inner)
    return longer or sum(map(_size, inner)) < _size(outer)


def _one_stack(model: nn.Module, inside: list[str], everywhere: Sequence[str]) -> list[str]:
    """The lists with attention in the backbone if they follow each other; UserError if not.

    A single layer of the blocks' own kind and size before or behind them (CANINE's, which read
    characters) is left to what it stands with.
    """
    stack = inside
    longest = max(inside, key=lambda name: (_size(model.get_submodule(name)), -inside.index(name)))
    if len(inside) > 1 and not _is_family(inside):
        kinds = {name: _kind(model.get_submodule(name)) for name in inside}
        stack = [
            name
            for name in inside
            if kinds[name] != kinds[longest] or len(list(model.get_submodule(name).children())) > 1
        ]
    others = [name for name in everywhere if name not in inside]
    if others or (len(stack) != 1 and not _is_family(stack)):
        first = [longest, *(name for name in (*stack, *others) if name != longest)]
        raise unknown_shape(model, f"it has several stacks of blocks ({', '.join(first)})")
    return _with_convolutional_stages(model, stack)


def _with_convolutional_stages(model: nn.Module, stack: list[str]) -> list[str]:
    """With the lists of the same blocks without attention, as the first of timm's Visformer."""
    kinds = {type(child) for name in stack for child in model.get_submodule(name).children()}
    pattern = _pattern(stack[0])
    longer = [
        name
        for name, module in model.named_modules()
        if name in stack
        or (
            isinstance(module, _LISTS)
            and _pattern(name) == pattern
            and _are_alike(module)
            and {type(child) for child in module.children()} <= kinds
        )
    ]
    return longer if _is_family(longer) else stack


def _kind(blocks: nn.Module) -> tuple[type[nn.Module], int]:
    first = next(blocks.children())
    return type(first), _size(first)


def _without_attention(
    model: nn.Module, backbone: str, classifier: Sequence[nn.Module]
) -> list[str]:
    """The lists of the largest family of like lists; blocks have several matrices inside."""
    network = model.get_submodule(backbone)
    composite = _Search(_is_composite, all, _holds_most).lists(backbone, network)
    found = composite or [
        join(backbone, name)
        for name, module in network.named_modules()
        if isinstance(module, _LISTS) and _are_alike(module)
    ]
    families: dict[str, list[str]] = defaultdict(list)
    for name in found:
        families[_pattern(name) if composite else name].append(name)
    stacks = [family for family in families.values() if len(family) == 1 or _is_family(family)]
    if not stacks:
        raise unknown_shape(model, "no list of like blocks was found")
    sizes = [sum(_size(model.get_submodule(name)) for name in stack) for stack in stacks]
    chosen = stacks[sizes.index(max(sizes))]  # the first, outermost of equals
    if 2 * max(sizes) < _size(network) - sum(map(_size, classifier)):
        names = ", ".join(chosen)
        raise unknown_shape(
            model, f"the largest list of like blocks ({names}) holds less than half of it"
        )
    return chosen


def _check(model: nn.Module, backbone: str, lists: Sequence[str]) -> None:
    """Raise UserError where a part of the blocks stands elsewhere, or where they are stages."""
    blocks = [
        join(name, local)
        for name in lists
        for local, _ in model.get_submodule(name).named_children()
    ]
    stages = {
        type(block).__name__
        for block in map(model.get_submodule, blocks)
        if "stage" in type(block).__name__.lower()
        or (type(block) in _LISTS and _are_alike(block) and len(list(block.children())) > 1)
    }
    if stages and len(blocks) > 1:
        raise unknown_shape(
            model,
            f"the children of {', '.join(lists)} are stages ({', '.join(stages)}), and the blocks "
            "inside them are of several kinds",
        )
    if len(lists) == 1:
        for name in _feed_forwards_beside(model, lists[0], len(blocks)):
            raise unknown_shape(
                model, f"its blocks lie in pieces in several lists ({lists[0]}, {name})"
            )
    for name, module in model.named_modules():
        if not isinstance(module, _LISTS) or not is_inside(name, backbone):
            continue
        if any(is_inside(found, name) or is_inside(name, found) for found in lists):
            continue
        if sum(map(_attends, module)) > 1:
            raise unknown_shape(
                model, f"it has attention beside its blocks ({', '.join(lists)}): in {name}"
            )


def _feed_forwards_beside(model: nn.Module, blocks: str, count: int) -> Iterator[str]:
    """Lists beside that of the blocks, as long as it, of modules with several matrices each."""
    container, _, own = blocks.rpartition(".")
    for local, child in model.get_submodule(container).named_children():
        like = isinstance(child, _LISTS) and _are_alike(child)
        if local == own or not like or len(list(child.children())) != count:
            continue
        if all(map(_is_composite, child.children())):
            yield join(container, local)


def _is_family(names: Sequence[str]) -> bool:
    """Whether names differ in a single number, which grows."""
    tokens = [_tokens(name) for name in names]
    if len(names) < 2 or len({len(one) for one in tokens}) > 1:
        return False
    differing = [column for column in zip(*tokens, strict=True) if len(set(column)) > 1]
    if len(differing) != 1 or not all(token.isdigit() for token in differing[0]):
        return False
    numbers = list(map(int, differing[0]))
    return numbers == sorted(set(numbers))


def _pattern(name: str) -> str:
    """The name with all its numbers alike."""
    return re.sub(r"\d+", "#", name)


def _tokens(name: str) -> list[str]:
    return re.findall(r"\d+|\D+", name)


def _are_alike(module: nn.Module) -> bool:
    children = list(module.children())
    return bool(children) and len({type(c) for c in children}) == 1 and has_parameters(children[0])


def _attends(module: nn.Module) -> bool:
    """Whether a module is an attention layer or has one inside."""
    return any(is_attention(name, child) for name, child in module.named_modules())


def _is_composite(module: nn.Module) -> bool:
    """Whether a module has several matrices (or convolutions), each in a layer of its own."""
    layers = (
        child
        for child in module.modules()
        if any(parameter.ndim > 1 for parameter in child.parameters(recurse=False))
    )
    return len(list(itertools.islice(layers, 2))) == 2


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
