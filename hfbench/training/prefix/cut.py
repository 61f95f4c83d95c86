"""Where a model's frozen prefix ends, and how the model runs without computing it.

The prefix is everything that runs before the first parameter that trains: the embeddings and the
leading blocks, or the whole backbone where only the head trains. A :class:`Cut` changes how some
modules of the model answer, not the model's code, which still runs between them: what is stored
enters where the prefix ends, blocks before that hand on what they got, and embeddings give zeros.
Nobody can know for every architecture that nothing else flows past the cut, so
:mod:`hfbench.training.prefix.cache` compares the two ways before it trusts one.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from hfbench.models.calls import Calls
from hfbench.models.structure import Structure, canonical_name
from hfbench.training.prefix.stand_ins import (
    BlockAnswer,
    CutError,
    Filled,
    answering,
    hidden_states,
)

STORED = "frozen_prefix"  # the batch's entry with the stored output


@dataclass(frozen=True)
class Place:
    """Where a prefix ends.

    ``blocks`` counts the leading blocks inside it. ``backbone``: all of the backbone is inside.
    """

    blocks: int
    backbone: bool = False

    def __str__(self) -> str:
        return "backbone" if self.backbone else f"blocks-{self.blocks}"


def find_place(model: nn.Module, structure: Structure) -> Place | None:
    """Where the frozen prefix of a model with its strategy ends; None where there is none."""
    trained = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trained.add(structure.adapted_part(name) or structure.part_of(name))
    blocks = next((i for i in range(structure.depth) if f"block {i}" in trained), structure.depth)
    if "embeddings" in trained or (blocks == 0 and not structure.embeddings):
        return None
    only_head = blocks == structure.depth and not trained & {"final", "pooler"}
    # A timm network holds its head itself.
    apart = not any(name.startswith(f"{structure.backbone}.") for name in structure.head)
    return Place(blocks, backbone=only_head and apart and bool(structure.backbone))


def trains_blocks(model: nn.Module, structure: Structure) -> bool:
    """Whether training back-propagates through a block."""
    place = find_place(model, structure)
    return place is None or place.blocks < structure.depth


def prefix_tensors(
    model: nn.Module, structure: Structure, place: Place
) -> Iterator[tuple[str, Tensor]]:
    """(canonical name, value) of every parameter and buffer inside the prefix."""
    parts = {"embeddings"} | {f"block {index}" for index in range(place.blocks)}
    if place.backbone:
        parts |= {"final", "pooler"}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        own = canonical_name(name)
        try:
            part = structure.part_of(own)
        except ValueError:  # a buffer of the model itself
            part = "embeddings"
        if part in parts:
            yield own, tensor


class _ReachedError(Exception):
    """Ends a forward pass where the prefix ends."""


@dataclass
class Cut:
    """A model's prefix: :meth:`output` computes it, and inside :meth:`installed` it is left out.

    ``positions``: how many positions of what is stored are read, 1 or None for all.
    """

    model: nn.Module
    structure: Structure
    place: Place
    positions: int | None = None
    leaf: int = 0  # which tensor of the backbone's output the head reads
    length: int = field(default=0, init=False)  # positions of the last output, read or not
    read_behind: set[str] = field(default_factory=set)  # embeddings that are computed all the same
    _spoilt: str | None = field(default=None, repr=False)  # embeddings that answer NaN
    _given: Tensor | None = field(default=None, repr=False)
    _output: tuple[list[Any], TreeSpec] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        for name, module in self.model.named_modules():
            self.modules.setdefault(canonical_name(name), module)

    @property
    def rows_have_length(self) -> bool:
        """Whether a sample's output has as many positions as the sample has, not a fixed number."""
        return self.positions is None and not self._is_vector

    @property
    def _is_vector(self) -> bool:
        return self._output is not None and self._output[0][self.leaf].ndim == 2

    # -- computing the prefix -------------------------------------------------------------------

    def output(self, batch: dict[str, Tensor]) -> Tensor:
        """(samples, positions, ...): what enters behind the prefix; (samples, 1, ...) for vectors.

        Inside another cut's :meth:`installed` and with its ``STORED`` in the batch, only what
        lies between the two places is computed.
        """
        found: list[Tensor] = []

        def stop(value: Tensor) -> None:
            found.append(value)
            raise _ReachedError

        with self._captured(stop):
            try:
                self.model(**batch)
            except _ReachedError:
                return found[0]
        raise CutError("the forward pass never reaches the end of the prefix")

    @contextmanager
    def _captured(self, stop: Callable[[Tensor], None]) -> Iterator[None]:
        if self.place.backbone:
            handle = self.modules[self.structure.backbone].register_forward_hook(
                lambda module, args, outputs: stop(self._of_backbone(outputs))
            )
        elif self.place.blocks:
            handle = self._block(self.place.blocks - 1).register_forward_hook(
                lambda module, args, outputs: stop(self._read(hidden_states(outputs)))
            )
        else:
            handle = self._block(0).register_forward_pre_hook(
                lambda module, args: stop(self._read(hidden_states(args)))
            )
        try:
            yield
        finally:
            handle.remove()

    def _of_backbone(self, outputs: Any) -> Tensor:
        leaves, spec = tree_flatten(outputs)
        self._output = ([_kind(leaf) for leaf in leaves], spec)
        chosen: Tensor = leaves[self.leaf]
        if chosen.ndim == 2:  # one vector a sample
            return chosen.unsqueeze(1)
        return self._read(chosen)

    def _read(self, values: Tensor) -> Tensor:
        self.length = values.shape[1]
        return values if self.positions is None else values[:, : self.positions]

    def find_leaf(self, batch: dict[str, Tensor], finite: Callable[[Any], bool]) -> None:
        """Find out which tensor of the backbone's output the head reads, and if only its start.

        ``finite`` says of the model's output whether its predictions are. A tensor is read if they
        are not when it holds NaN.
        """
        backbone = self.modules[self.structure.backbone]
        kept: list[Any] = []
        handle = backbone.register_forward_hook(lambda m, a, outputs: kept.append(outputs))
        try:
            self.model(**batch)
        finally:
            handle.remove()
        leaves, spec = tree_flatten(kept[0])

        def reads(index: int, start: int) -> bool:
            changed = list(leaves)
            changed[index] = leaves[index].clone()
            changed[index][:, start:] = float("nan")
            with answering(backbone, lambda *args, **kwargs: tree_unflatten(changed, spec)):
                return not finite(self.model(**batch))

        read = [
            index
            for index, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and reads(index, 0)
        ]
        if len(read) != 1:
            raise CutError(f"its head reads {len(read)} outputs of the backbone, not one")
        self.leaf = read[0]
        is_sequence = leaves[self.leaf].ndim == 3 and leaves[self.leaf].shape[1] > 1
        self.positions = 1 if is_sequence and not reads(self.leaf, 1) else None

    def find_positions(self, batch: dict[str, Tensor], finite: Callable[[Any], bool]) -> None:
        """Find out whether only the first position behind the last block is read, as by poolers.

        As :meth:`find_leaf` does, for a prefix that ends there.
        """
        changed = self.output(batch).clone()
        if changed.shape[1] > 1:
            changed[:, 1:] = float("nan")
            with self.installed():
                self.positions = 1 if finite(self.model(**batch, **{STORED: changed})) else None

    def find_embeddings(
        self, batch: dict[str, Tensor], finite: Callable[[Any], bool], calls: Calls
    ) -> None:
        """Find out which embeddings are read behind the prefix too: they are computed all the same.

        These are the ones that run later than the prefix, and those whose answer flows past it
        (MPNet's and T5's relative positions): predictions are not finite when they give NaN.
        """
        if self.place.backbone:
            return
        rows = self.output(batch)
        end = self.end(calls)
        for name in self.structure.embeddings:
            if name not in calls.starts:
                continue
            self._spoilt = name
            with self.installed():
                is_read = not finite(self.model(**batch, **{STORED: rows}))
            self._spoilt = None
            if is_read or not calls.runs_until(name, end):
                self.read_behind.add(name)

    def end(self, calls: Calls) -> int:
        """When the prefix ends in a pass whose calls were recorded."""
        if self.place.backbone:
            return calls.ends[self.structure.backbone]
        if self.place.blocks:
            return calls.ends[self.structure.blocks[self.place.blocks - 1]]
        return calls.starts[self.structure.blocks[0]]

    # -- leaving it out -------------------------------------------------------------------------

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within, a batch with ``STORED`` leaves the prefix out; other batches run as always."""
        root = self.model.register_forward_pre_hook(self._take_stored, with_kwargs=True)
        try:
            with self._answers():
                yield
        finally:
            root.remove()
            self._given = None

    def _take_stored(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # Kept until the next pass: gradient checkpointing runs the first block once more.
        self._given = kwargs.pop(STORED, None)
        return args, kwargs

    @contextmanager
    def _answers(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.place.backbone:
                backbone = self.modules[self.structure.backbone]
                stack.enter_context(self._replaced(backbone, self._as_backbone))
            else:
                for name in self.structure.embeddings:
                    if name in self.modules and name not in self.read_behind:
                        value = float("nan") if name == self._spoilt else 0.0
                        filled = Filled(self.modules[name], value)
                        stack.enter_context(self._replaced(filled.module, filled))
                for index in range(self.place.blocks):
                    last = index == self.place.blocks - 1
                    answer = BlockAnswer(self._block(index), self._stored_like if last else None)
                    stack.enter_context(self._replaced(answer.module, answer))
                if self.place.blocks == 0:
                    first = self._block(0)
                    handle = first.register_forward_pre_hook(self._enter, with_kwargs=True)
                    stack.callback(handle.remove)
            yield

    def _replaced(
        self, module: nn.Module, answer: Callable[..., Any]
    ) -> AbstractContextManager[None]:
        """Within, ``module`` gives ``answer(*args)`` while something stored is given."""
        own = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            return own(*args, **kwargs) if self._given is None else answer(*args, **kwargs)

        return answering(module, forward)

    def _as_backbone(self, *args: Any, **kwargs: Any) -> Any:
        assert self._output is not None, "output() was never called"
        assert self._given is not None
        kinds, spec = self._output
        device = self._given.device
        leaves = [k if not isinstance(k, _Kind) else k.empty(device) for k in kinds]
        leaves[self.leaf] = self._given.squeeze(1) if self._is_vector else self._given
        return tree_unflatten(leaves, spec)

    def _stored_like(self, like: Tensor) -> Tensor:
        assert self._given is not None
        return _lengthened(self._given, like.shape[1])

    def _enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._given is None:
            return None
        return (_lengthened(self._given, hidden_states(args).shape[1]), *args[1:]), kwargs

    def _block(self, index: int) -> nn.Module:
        return self.modules[self.structure.blocks[index]]


@dataclass(frozen=True)
class _Kind:
    """What is remembered of a tensor that nobody reads."""

    ndim: int
    dtype: torch.dtype

    def empty(self, device: torch.device) -> Tensor:
        return torch.empty((0,) * self.ndim, dtype=self.dtype, device=device)


def _kind(leaf: Any) -> Any:
    return _Kind(leaf.ndim, leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _lengthened(stored: Tensor, positions: int) -> Tensor:
    """With zeros behind it, which the masks of the blocks hide."""
    missing = positions - stored.shape[1]
    if missing < 0:
        raise CutError(f"{stored.shape[1]} positions are stored where {positions} are expected")
    if not missing:
        return stored
    return torch.cat([stored, stored.new_zeros(len(stored), missing, *stored.shape[2:])], dim=1)
