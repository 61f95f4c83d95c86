"""Kinds of layer with their sizes, their formulas and what measuring them gives.

Standard library only, so that ``hfbench layers --help`` lists the kinds without torch.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hfbench.errors import UserError

MAX_SIZE = 1_000_000
MAX_COUNT = 2**60  # torch counts the bytes of a tensor in 64 bits


@dataclass(frozen=True)
class Formula:
    """A sum of products of sizes: one definition for what is printed and what is computed."""

    terms: tuple[tuple[str | int, ...], ...] = ()

    def __str__(self) -> str:
        """Such as ``out × in × kernel² + out``; ``0`` without terms."""
        return " + ".join(map(_product_text, self.terms)) or "0"

    def value(self, sizes: Mapping[str, int]) -> int:
        return sum(
            math.prod(factor if isinstance(factor, int) else sizes[factor] for factor in term)
            for term in self.terms
        )


def _product_text(factors: tuple[str | int, ...]) -> str:
    counted = Counter(factors).items()
    return " × ".join(f"{factor}²" if times == 2 else f"{factor}" for factor, times in counted)


@dataclass(frozen=True)
class LayerKind:
    """What a layer needs to be built, and its formulas over these sizes.

    ``sizes`` hold the values that the table takes when the user gives none. ``options`` are left
    out of a layer's name where they have their usual value; the name of a size stands for it.
    Formulas may also use ``positions``: how many places of the input a window is laid on.
    """

    name: str
    sizes: Mapping[str, int]
    parameters: Formula
    multiply_adds: Formula
    work: str  # how its operations are counted, beyond the formula
    options: Mapping[str, int | str] = field(default_factory=dict)
    trainable: Formula | None = None  # None: all parameters
    dimensions: int = 0  # of the space that a window moves over


@dataclass(frozen=True)
class Layer:
    """A kind of layer with a value for each of its sizes and options."""

    kind: LayerKind
    sizes: Mapping[str, int]

    @property
    def label(self) -> str:
        """As on the command line, without options that have their usual value."""
        usual = {name: self._usual(name) for name in self.kind.options}
        shown = [f"{n}={v}" for n, v in self.sizes.items() if usual.get(n) != v]
        return f"{self.kind.name}:{','.join(shown)}"

    @property
    def formula_sizes(self) -> Mapping[str, int]:
        """The sizes, and ``positions`` for a layer with a window."""
        if not self.kind.dimensions:
            return self.sizes
        return {**self.sizes, "positions": self._output_size() ** self.kind.dimensions}

    def _usual(self, option: str) -> int:
        usual = self.kind.options[option]
        return self.sizes[usual] if isinstance(usual, str) else usual

    def _output_size(self) -> int:
        """Of one dimension; below 1 where the window does not fit."""
        sizes = self.sizes
        extent = sizes["length" if self.kind.dimensions == 1 else "size"] + 2 * sizes["padding"]
        return (extent - sizes["kernel"]) // sizes["stride"] + 1

    def check(self) -> None:
        """Raises UserError for sizes that fit no layer."""
        sizes, name = self.sizes, self.kind.name
        if name == "attention" and sizes["hidden"] % sizes["heads"]:
            raise UserError(
                f"{self.label}: hidden={sizes['hidden']} is no multiple of heads={sizes['heads']}"
            )
        if self.kind.dimensions and self._output_size() < 1:
            raise UserError(f"{self.label}: the kernel is larger than the padded input")
        if "pool" in name and 2 * sizes["padding"] > sizes["kernel"]:
            raise UserError(f"{self.label}: padding is at most half of the kernel in pooling")
        for formula in (self.kind.parameters, self.kind.multiply_adds):
            if formula.value(self.formula_sizes) > MAX_COUNT:
                raise UserError(f"{self.label} is too large to count: {formula} exceeds 2^60")


@dataclass(frozen=True)
class LayerCost:
    """What the real module has and does for one sample."""

    layer: Layer
    parameters: int
    trainable: int
    multiply_adds: int
    output_shape: tuple[int, ...]  # of one sample


@dataclass(frozen=True)
class BlockLayer:
    """One layer of a block: its own parameters and work, without those of layers inside it."""

    name: str  # inside the block
    kind: str  # its class
    parameters: int
    multiply_adds: int
    output_shape: tuple[int, ...] | None  # of one sample; None: another layer reads its weights
    is_container: bool


@dataclass(frozen=True)
class BlockCost:
    """The layers of a network's first block, in the order in which they finish."""

    checkpoint: str
    source: str  # of the configuration
    depth: int
    alike: bool  # whether every block has as many parameters
    input_name: str
    input_shape: tuple[int, ...]  # of one sample
    layers: tuple[BlockLayer, ...]
    output_shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)


_WINDOW: Mapping[str, int | str] = {"stride": 1, "padding": 0}
_POOLING: Mapping[str, int | str] = {"stride": "kernel", "padding": 0}
_NOTHING = Formula()

_KINDS = (
    LayerKind(
        "linear",
        {"in": 784, "out": 256},
        Formula((("in", "out"), ("out",))),
        Formula((("in", "out"),)),
        "for one vector",
    ),
    LayerKind(
        "conv1d",
        {"in": 1, "out": 512, "kernel": 10, "length": 16_000},
        Formula((("out", "in", "kernel"), ("out",))),
        Formula((("out", "in", "kernel", "positions"),)),
        "positions: the length of the output",
        _WINDOW,
        dimensions=1,
    ),
    LayerKind(
        "conv2d",
        {"in": 1, "out": 32, "kernel": 3, "size": 28},
        Formula((("out", "in", "kernel", "kernel"), ("out",))),
        Formula((("out", "in", "kernel", "kernel", "positions"),)),
        "positions: height × width of the output",
        _WINDOW,
        dimensions=2,
    ),
    LayerKind(
        "maxpool2d",
        {"channels": 32, "kernel": 2, "size": 28},
        _NOTHING,
        _NOTHING,
        "compares kernel² numbers for each number of its output",
        _POOLING,
        dimensions=2,
    ),
    LayerKind(
        "avgpool2d",
        {"channels": 32, "kernel": 2, "size": 28},
        _NOTHING,
        _NOTHING,
        "adds kernel² numbers and divides once for each number of its output",
        _POOLING,
        dimensions=2,
    ),
    LayerKind(
        "layernorm",
        {"hidden": 768},
        Formula(((2, "hidden"),)),
        _NOTHING,
        "mean and variance of each vector, then a scale and a shift of each number",
    ),
    LayerKind(
        "batchnorm2d",
        {"channels": 32, "size": 28},
        Formula(((2, "channels"),)),
        _NOTHING,
        "a scale and a shift of each number; mean and variance of a channel are buffers",
    ),
    LayerKind(
        "embedding",
        {"vocabulary": 30_522, "hidden": 768, "length": 128},
        Formula((("vocabulary", "hidden"),)),
        _NOTHING,
        "copies length × hidden numbers",
    ),
    LayerKind(
        "attention",
        {"hidden": 768, "heads": 12, "length": 128},
        Formula(((4, "hidden", "hidden"), (4, "hidden"))),
        Formula(((4, "length", "hidden", "hidden"), (2, "length", "length", "hidden"))),
        "four projections, then queries × keys and weights × values of every pair of positions",
    ),
    LayerKind(
        "lora",
        {"in": 768, "out": 768, "r": 8},
        Formula((("in", "out"), ("out",), ("r", "in"), ("r", "out"))),
        Formula((("in", "out"), ("r", "in"), ("r", "out"))),
        "for one vector; r × in + r × out parameters train, the linear layer's own are frozen",
        trainable=Formula((("r", "in"), ("r", "out"))),
    ),
)
LAYER_KINDS: Mapping[str, LayerKind] = {kind.name: kind for kind in _KINDS}


def default_layers() -> list[Layer]:
    """One layer of every kind."""
    return [parse_layer(name) for name in LAYER_KINDS]


def parse_layer(text: str) -> Layer:
    """A layer as on the command line; sizes that are left out are those of the default table.

    >>> parse_layer("linear:out=10").label
    'linear:in=784,out=10'

    Raises UserError for unknown kinds and sizes, and for values that fit no layer.
    """
    name, colon, rest = text.partition(":")
    kind = LAYER_KINDS.get(name)
    if kind is None:
        raise UserError(f"{name!r} is no kind of layer; choose: {', '.join(LAYER_KINDS)}")
    given = _parse_sizes(kind, rest.split(",") if colon else [])
    sizes = {**kind.sizes, **{n: v for n, v in given.items() if n in kind.sizes}}
    for option, usual in kind.options.items():
        value = sizes[usual] if isinstance(usual, str) else usual
        sizes[option] = given.get(option, value)
    layer = Layer(kind, sizes)
    layer.check()
    return layer


def _parse_sizes(kind: LayerKind, parts: list[str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    known = (*kind.sizes, *kind.options)
    for part in parts:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in known:
            raise UserError(
                f"{kind.name}: {part!r} is unknown; sizes are given as name=number, with the names "
                f"{', '.join(known)}"
            )
        if name in sizes:
            raise UserError(f"{kind.name}: {name} is given twice")
        least = 0 if name == "padding" else 1
        if not value.isdecimal() or not least <= int(value) <= MAX_SIZE:
            raise UserError(
                f"{kind.name}: {name}={value!r} is not a whole number from {least} to {MAX_SIZE:,}"
            )
        sizes[name] = int(value)
    return sizes
