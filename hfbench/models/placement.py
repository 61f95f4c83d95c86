"""Which part of a network each module beside its blocks belongs to.

What runs before the first block belongs to the embeddings, what runs after the last one is final.
What runs between two blocks (Swin's patch merging, the downsampling of a convolutional stage, the
norm of a stage) belongs to the block before it: it trains where that block trains, so between
frozen blocks everything is frozen, and the last n blocks are n blocks.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from torch import nn

from hfbench.models.block_lists import stage_list
from hfbench.models.module_tree import ancestors, has_parameters, is_inside, is_norm, join

PARTS = ("embeddings", "final", "pooler", "head")


class Placement:
    """Modules and direct parameters beside the blocks, by part and by the block before them."""

    def __init__(
        self,
        model: nn.Module,
        backbone: str,
        lists: Sequence[str],
        classifier: Sequence[nn.Module],
    ) -> None:
        self.parts: dict[str, list[str]] = {part: [] for part in PARTS}
        self.model, self.lists, self.classifier = model, lists, classifier
        self.blocks = [
            join(name, local)
            for name in lists
            for local, _ in model.get_submodule(name).named_children()
        ]
        self.between: list[list[str]] = [[] for _ in self.blocks]
        self._passed = 0  # blocks that run before what is looked at
        self._way = {name for block in self.blocks for name in ancestors(block)}
        self._stages = stage_list(lists)
        self._walk(backbone)

    def _walk(self, container: str) -> None:
        module = self.model.get_submodule(container)
        for local, _ in module.named_parameters(recurse=False):
            self._put("embeddings", join(container, local))
        after_embedding = False
        for local, child in self._in_order(container, module):
            name = join(container, local)
            if name in self._way:
                self._walk(name)
                after_embedding = False
            elif name in self.blocks:
                self._passed += 1
            elif has_parameters(child):
                if self._is_by_stage(container, child):
                    self._put_by_stage(name, child)
                elif self._holds_classifier(child):
                    self._split_classifier(name, child)
                else:
                    self._put(self._part(local, child, after_embedding), name)
                # Dropouts in between do not part an embedding from the norm behind it.
                after_embedding = isinstance(child, nn.Embedding)

    def _in_order(self, container: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """The children as they run: as they are registered, but where ``forward`` says otherwise.

        Only what stands beside one way to the blocks is moved, and no embedding: the first block
        uses it wherever it is (DeBERTa's relative positions).
        """
        children = dict(module.named_children())
        way = [local for local in children if join(container, local) in self._way]
        if len(way) != 1:
            yield from children.items()
            return
        calls, uses = _first_lines(type(module).forward)
        registered = list(children)
        pivot = registered.index(way[0])

        def is_behind(local: str) -> bool:
            child = children[local]
            if local in calls and way[0] in uses and not _is_embedding(local, child):
                return calls[local] > uses[way[0]]
            return registered.index(local) > pivot

        others = [local for local in registered if local != way[0]]
        behind = [local for local in others if is_behind(local)]
        for local in (*(o for o in others if o not in behind), way[0], *behind):
            yield local, children[local]

    def _part(self, local: str, child: nn.Module, after_embedding: bool) -> str:
        """Of a child before the first or behind the last block."""
        if any(module is child for module in self.classifier) or (
            self.classifier and local == "fc_norm"
        ):
            return "head"
        if "pool" in local.lower():
            return "pooler"
        if _is_embedding(local, child):
            return "embeddings"
        if self._passed == 0:
            return "embeddings"
        return "embeddings" if is_norm(child) and after_embedding else "final"

    def _holds_classifier(self, child: nn.Module) -> bool:
        inside = list(child.modules())[1:]
        return any(module is one for module in inside for one in self.classifier)

    def _split_classifier(self, name: str, child: nn.Module) -> None:
        """timm's classifier may lie in a module with a norm before it: that is pretrained."""
        inside = {f"{name}.{n}": m for n, m in child.named_modules() if n}
        heads = [n for n, m in inside.items() if any(m is one for one in self.classifier)]
        self.parts["head"] += heads
        names = [f"{name}.{local}" for local, _ in child.named_parameters()]
        if not all(any(is_inside(n, head) for head in heads) for n in names):
            self._put("final", name)

    def _put(self, part: str, name: str) -> None:
        if 0 < self._passed < len(self.blocks):
            self.between[self._passed - 1].append(name)
        else:
            self.parts[part].append(name)

    def _is_by_stage(self, container: str, child: nn.Module) -> bool:
        """Whether a list beside that of the stages has a module for each (PVT's embeddings)."""
        if self._stages is None or container != self._stages.rpartition(".")[0]:
            return False
        stages = len(list(self.model.get_submodule(self._stages).children()))
        return isinstance(child, nn.ModuleList) and len(child) == stages == len(self.lists)

    def _put_by_stage(self, name: str, child: nn.Module) -> None:
        """Each runs before its stage, or, a norm that comes later, behind it.

        Others that come later run somewhere inside (the positions of timm's Twins behind the first
        block): they go with the first block, because what runs before a frozen block is frozen.
        """
        before = self._passed == 0
        for stage, (local, module) in enumerate(child.named_children()):
            inside = [i for i, b in enumerate(self.blocks) if is_inside(b, self.lists[stage])]
            first, last = inside[0], inside[-1]
            if not has_parameters(module):
                continue
            if before and stage == 0:
                self.parts["embeddings"].append(join(name, local))
            elif not before and is_norm(module) and last == len(self.blocks) - 1:
                self.parts["final"].append(join(name, local))
            else:
                block = first - 1 if before else last if is_norm(module) else first
                self.between[block].append(join(name, local))


def _is_embedding(local: str, child: nn.Module) -> bool:
    return isinstance(child, nn.Embedding) or ("embed" in local and not is_norm(child))


Place = tuple[int, int]  # line and column


@cache
def _first_lines(forward: Callable[..., Any]) -> tuple[dict[str, Place], dict[str, Place]]:
    """Where ``forward`` first calls each of its children, and where it first reads them.

    Empty where there is no source.
    """
    try:
        source = inspect.getsource(forward)
        parsed = ast.parse(textwrap.dedent(source))
    except (OSError, TypeError, SyntaxError):
        return {}, {}
    calls: dict[str, Place] = {}
    uses: dict[str, Place] = {}
    for node in ast.walk(parsed):
        for found, child in ((calls, getattr(node, "func", None)), (uses, node)):
            if (
                isinstance(child, ast.Attribute)
                and isinstance(child.value, ast.Name)
                and child.value.id == "self"
            ):
                place = (child.lineno, child.col_offset)
                found[child.attr] = min(found.get(child.attr, place), place)
    return calls, uses
