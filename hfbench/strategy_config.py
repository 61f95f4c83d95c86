"""The section ``strategy`` of a configuration, and its short spelling.

No large library, as :mod:`hfbench.config`.
"""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hfbench.conversion import build, check, did_you_mean
from hfbench.errors import UserError

StrategyName = Literal[
    "full",
    "head",
    "last_n",
    "first_n",
    "blocks",
    "lora",
    "dora",
    "qlora",
    "ia3",
    "bitfit",
    "norm",
    "attention",
    "gradual",
    "scratch",
]
TargetKind = Literal["attention_qv", "attention", "all_linear"]
LORAS = ("lora", "dora", "qlora")  # strategies that have LoRA's options
ADAPTERS = (*LORAS, "ia3")  # strategies that add parameters
LORA_OPTIONS = ("r", "lora_alpha", "lora_dropout", "targets", "last_n")


@dataclass(frozen=True)
class StrategyConfig:
    """Which parameters train. ``parse_strategy`` reads ``label`` and ``full_label``."""

    name: StrategyName = "full"
    n: int | None = None  # last_n, first_n: the number of trained blocks
    blocks: tuple[int, ...] = ()  # blocks: which blocks train
    r: int = 8  # LoRA rank
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    targets: TargetKind = "attention_qv"
    last_n: int | None = None  # LoRA, DoRA or QLoRA in the last n blocks only
    every: int = 1  # gradual: epochs until one block more trains
    freeze: tuple[str, ...] = ()  # glob patterns over parameter names, frozen afterwards
    learning_rate_factor: float | None = None  # None: the strategy's own

    def __post_init__(self) -> None:
        if self.name in ("last_n", "first_n"):
            check("strategy.n", self.n, self.n is not None and self.n >= 1, "a number >= 1")
        elif self.n is not None:
            raise UserError(f"strategy.n={self.n} belongs to last_n and first_n, not {self.name}")
        if (self.name == "blocks") != bool(self.blocks):
            raise UserError(
                f"strategy.blocks={list(self.blocks)} and strategy.name={self.name}: the strategy "
                "'blocks' needs the list of blocks, the others have none; write blocks:0+3"
            )
        check("strategy.r", self.r, self.r >= 1, "a number >= 1")
        check("strategy.lora_alpha", self.lora_alpha, self.lora_alpha >= 1, "a number >= 1")
        check("strategy.lora_dropout", self.lora_dropout, 0 <= self.lora_dropout < 1, "in [0, 1)")
        check("strategy.last_n", self.last_n, self.last_n is None or self.last_n >= 1, ">= 1")
        check("strategy.every", self.every, self.every >= 1, "a number of epochs >= 1")
        if self.name != "gradual" and self._changed("every"):
            raise UserError(f"strategy.every={self.every} belongs to gradual, not to {self.name}")
        if self.name not in LORAS and (foreign := self._changed(*LORA_OPTIONS)):
            owners = f"{', '.join(LORAS[:-1])} and {LORAS[-1]}"
            raise UserError(
                f"strategy.{foreign[0]} belongs to {owners}, not to {self.name}"
                + (f"; for the last blocks write last_{self.last_n}" if self.last_n else "")
            )

    def _changed(self, *keys: str) -> list[str]:
        return [key for key in keys if getattr(self, key) != _default(StrategyConfig, key)]

    @property
    def label(self) -> str:
        """Short spelling: ``last_2``, ``blocks:0+3``, ``lora:r=4,targets=all_linear``."""
        return self._spelling(always=())

    @property
    def full_label(self) -> str:
        """As ``label``, with LoRA's rank and targets also where they are the defaults."""
        return self._spelling(always=("r", "targets") if self.name in LORAS else ())

    def _spelling(self, always: tuple[str, ...]) -> str:
        if self.name in ("last_n", "first_n"):
            text = f"{self.name[:-2]}_{self.n}"
        elif self.name == "blocks":
            text = "blocks:" + "+".join(str(index) for index in self.blocks)
        else:
            text = self.name
        options = [
            f"{key}={getattr(self, key)}"
            for key in (*LORA_OPTIONS, "every", "learning_rate_factor")
            if key in always or self._changed(key)
        ]
        if self.freeze:
            options.append("freeze=" + "+".join(self.freeze))
        return f"{text}:{','.join(options)}" if options else text


def parse_strategy(text: str) -> StrategyConfig:
    """Read ``full``, ``head``, ``last_2``, ``blocks:0+3`` or ``lora:r=8,targets=all_linear``.

    Raises UserError for an unknown name or option.
    """
    name, _, rest = text.strip().partition(":")
    values: dict[str, Any] = {"name": name}
    if name == "blocks":
        listed, _, rest = rest.partition(":")
        values["blocks"] = [index for index in listed.split("+") if index]
    for prefix in ("last", "first"):
        count = name.removeprefix(f"{prefix}_")
        if count != name and count.isdigit():
            values.update(name=f"{prefix}_n", n=count)
    if values["name"] not in get_args(StrategyName):
        raise UserError(
            f"strategy {name!r} is not one of {', '.join(get_args(StrategyName))}"
            f"{_suggestion(name)}; last_n and first_n are written with a number, as last_2"
        )
    for option in filter(None, rest.split(",")):
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"strategy {text!r}: option {option!r} is not written key=value")
        values[key] = value.split("+") if key == "freeze" else value
    return build(StrategyConfig, values, "strategy")


def _suggestion(name: str) -> str:
    """``lats_2`` may be last_2."""
    digits = re.findall(r"\d+$", name)
    number = digits[0] if digits else "n"
    names = [re.sub("_n$", f"_{number}", choice) for choice in get_args(StrategyName)]
    return did_you_mean(name, names)


def spelt_out(text: str) -> dict[str, Any]:
    """The fields that ``parse_strategy`` sets, ``name`` always; those left at their defaults not.

    >>> spelt_out("last_2")
    {'name': 'last_n', 'n': 2}
    """
    strategy = parse_strategy(text)
    fields = dataclasses.asdict(strategy)
    return {
        name: value
        for name, value in fields.items()
        if name == "name" or value != _default(StrategyConfig, name)
    }


def _default(cls: type, name: str) -> Any:
    return next(f.default for f in dataclasses.fields(cls) if f.name == name)
