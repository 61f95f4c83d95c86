"""The configuration of a run: frozen dataclasses < YAML file < ``key=value`` overrides.

Precedence grows from left to right. An unknown key, a value of the wrong type or an impossible
value is a :class:`UserError` that names the key, the value and the choices. Standard library and
PyYAML only: commands that only read results stay light.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from hfbench.errors import UserError

StrategyName = Literal["full", "head", "last_n", "first_n", "blocks", "lora", "bitfit", "scratch"]
TargetKind = Literal["attention_qv", "attention", "all_linear"]

# Keys that name, watch or schedule a run and do not change what it learns.
NEUTRAL_KEYS = (
    "output_dir",
    "tracker",
    "training.eval_batch_size",
    "training.num_workers",
    "training.resume",
    "training.save_steps",
)

LORA_OPTIONS = ("r", "lora_alpha", "lora_dropout", "targets", "last_n")

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """Which pretrained checkpoint to start from."""

    checkpoint: str = ""  # hub name, local folder, or bundled/<name>
    revision: str | None = None

    @property
    def label(self) -> str:
        """The checkpoint with its revision, as results name it."""
        return self.checkpoint if self.revision is None else f"{self.checkpoint}@{self.revision}"


@dataclass(frozen=True)
class DataConfig:
    """Which data to train on. A column that is None is detected and printed."""

    source: str = ""  # hub name, local file or folder, or bundled/<name>
    name: str | None = None  # configuration of a hub data set, e.g. sst2
    revision: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    test_split: str | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    image_column: str | None = None
    audio_column: str | None = None
    label_column: str | None = None
    validation_fraction: float = 0.1  # of train, when the data have no validation split
    test_fraction: float = 0.1  # of train, when the data have no test split
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    max_length: int = 128  # tokens
    max_seconds: float = 1.0  # longer audio is cropped at its centre

    @property
    def label(self) -> str:
        """The data with their configuration and revision, as results name them."""
        text = self.source if self.name is None else f"{self.source} ({self.name})"
        return text if self.revision is None else f"{text}@{self.revision}"

    def __post_init__(self) -> None:
        for key in ("validation_fraction", "test_fraction"):
            _check(f"data.{key}", getattr(self, key), 0 < getattr(self, key) < 1, "in (0, 1)")
        for key in ("max_train_samples", "max_eval_samples", "max_length", "max_seconds"):
            value = getattr(self, key)
            _check(f"data.{key}", value, value is None or value > 0, "positive")


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
    last_n: int | None = None  # LoRA in the last n blocks only
    freeze: tuple[str, ...] = ()  # glob patterns over parameter names, frozen afterwards
    learning_rate_factor: float | None = None  # None: the strategy's own

    def __post_init__(self) -> None:
        if self.name in ("last_n", "first_n"):
            _check("strategy.n", self.n, self.n is not None and self.n >= 1, "a number >= 1")
        elif self.n is not None:
            raise UserError(f"strategy.n={self.n} belongs to last_n and first_n, not {self.name}")
        if (self.name == "blocks") != bool(self.blocks):
            raise UserError(
                f"strategy.blocks={list(self.blocks)} and strategy.name={self.name}: the strategy "
                "'blocks' needs the list of blocks, the others have none; write blocks:0+3"
            )
        _check("strategy.r", self.r, self.r >= 1, "a number >= 1")
        _check("strategy.lora_alpha", self.lora_alpha, self.lora_alpha >= 1, "a number >= 1")
        _check("strategy.lora_dropout", self.lora_dropout, 0 <= self.lora_dropout < 1, "in [0, 1)")
        _check("strategy.last_n", self.last_n, self.last_n is None or self.last_n >= 1, ">= 1")
        if self.name != "lora" and (foreign := self._changed(*LORA_OPTIONS)):
            raise UserError(
                f"strategy.{foreign[0]} belongs to lora, not to {self.name}"
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
        return self._spelling(always=("r", "targets") if self.name == "lora" else ())

    def _spelling(self, always: tuple[str, ...]) -> str:
        if self.name in ("last_n", "first_n"):
            text = f"{self.name[:-2]}_{self.n}"
        elif self.name == "blocks":
            text = "blocks:" + "+".join(str(index) for index in self.blocks)
        else:
            text = self.name
        options = [
            f"{key}={getattr(self, key)}"
            for key in (*LORA_OPTIONS, "learning_rate_factor")
            if key in always or self._changed(key)
        ]
        if self.freeze:
            options.append("freeze=" + "+".join(self.freeze))
        return f"{text}:{','.join(options)}" if options else text


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Batches are global: the same numbers on one process or on many."""

    epochs: int = 3
    max_steps: int | None = None  # optimiser steps; ends before `epochs` when reached
    batch_size: int = 32  # samples of one forward pass over all processes together
    eval_batch_size: int = 64  # per process
    gradient_accumulation_steps: int = 1  # forward passes of one optimiser step
    learning_rate: float = 5e-5  # of full fine-tuning; a strategy multiplies it by its factor
    head_learning_rate: float | None = None  # of a new head beside pretrained parts; None: same
    weight_decay: float = 0.01  # on matrices only, never on biases and norms
    warmup_ratio: float = 0.1
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: float | None = 1.0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    early_stopping_patience: int | None = None  # evaluations without improvement
    save_steps: int | None = None  # None: the state is saved once an epoch
    resume: Literal["auto", "never"] = "auto"
    num_workers: int = 0  # processes that prepare batches

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "eval_batch_size", "gradient_accumulation_steps"):
            _check(f"training.{key}", getattr(self, key), getattr(self, key) >= 1, "a number >= 1")
        for key in ("max_steps", "save_steps", "early_stopping_patience"):
            value = getattr(self, key)
            _check(f"training.{key}", value, value is None or value >= 1, "a number >= 1")
        for key in ("learning_rate", "head_learning_rate", "max_grad_norm"):
            value = getattr(self, key)
            _check(f"training.{key}", value, value is None or value > 0, "positive")
        _check("training.weight_decay", self.weight_decay, self.weight_decay >= 0, ">= 0")
        _check("training.warmup_ratio", self.warmup_ratio, 0 <= self.warmup_ratio < 1, "in [0, 1)")
        _check("training.num_workers", self.num_workers, self.num_workers >= 0, ">= 0")


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines one run."""

    task: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    output_dir: str | None = None  # None: runs/<task>/<checkpoint>_<data>/<strategy>_seed<seed>
    tracker: Literal["none", "tensorboard", "trackio", "wandb"] = "none"

    def __post_init__(self) -> None:
        _check("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict of what JSON holds, as it is stored in a result."""
        values: dict[str, Any] = _with_lists(dataclasses.asdict(self))
        return values


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
    for option in filter(None, rest.split(",")):
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"strategy {text!r}: option {option!r} is not written key=value")
        values[key] = value.split("+") if key == "freeze" else value
    return _build(StrategyConfig, values, "strategy")


def load_config(
    path: str | Path | None, overrides: Iterable[str] = (), *, task: str | None = None
) -> RunConfig:
    """Read a YAML file and apply ``section.key=value`` overrides.

    ``strategy=last_2`` is short for the strategy's fields. ``task`` is what the calling recipe is
    for; a file written for another task is an error.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = _read_yaml(Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r} is not written key=value")
        _set(values, key.strip(), text if key == "strategy" else _value(text, override))
    if isinstance(values.get("strategy"), str):
        values["strategy"] = dataclasses.asdict(parse_strategy(values["strategy"]))
    if task is not None and values.setdefault("task", task) != task:
        raise UserError(f"the config {path} is for the task {values['task']!r}, not for {task!r}")
    return _build(RunConfig, values, "")


def _value(text: str, override: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"override {override!r}: the value is not valid YAML; put it into quotes, a list into "
            "brackets with quoted items"
        ) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"config file {str(path)!r} does not exist")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config file {str(path)!r} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"config file {str(path)!r} holds no key: value pairs")
    return values


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if section == "strategy" and isinstance(inner, str):
            inner = values[section] = dataclasses.asdict(parse_strategy(inner))
        if not isinstance(inner, dict):
            raise UserError(f"override {dotted!r}: {section!r} is a value, not a section")
        values = inner
    values[key] = value


def _build(cls: type[T], values: Mapping[str, Any], prefix: str) -> T:
    """Build a dataclass from plain values, checking every key and type."""
    hints = typing.get_type_hints(cls)
    kwargs = {}
    for key, value in values.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise UserError(f"unknown key {dotted!r}{hint}; known: {', '.join(hints)}")
        kwargs[key] = _convert(value, hints[key], dotted)
    return cls(**kwargs)


def _convert(value: Any, kind: Any, dotted: str) -> Any:
    """``value`` as the annotated type. PyYAML reads 3e-4 as text, so numbers are parsed here."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None or value == "null":
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), dotted)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{dotted}={value!r} must be a section of keys")
        return _build(typing.cast(type[Any], kind), value, dotted)
    if origin is Literal:
        text = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        if text not in arguments:
            raise UserError(f"{dotted}={value!r} is not one of {', '.join(map(str, arguments))}")
        return text
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{dotted}={value!r} must be a list")
        return tuple(_convert(item, arguments[0], dotted) for item in value)
    return _convert_scalar(value, kind, dotted)


def _convert_scalar(value: Any, kind: type, dotted: str) -> Any:
    if kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = None
        if number is not None and math.isfinite(number) and (kind is float or number.is_integer()):
            return kind(number)
    raise UserError(f"{dotted}={value!r} is not a valid {kind.__name__}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as ``(section.key, value)``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _check(name: str, value: object, valid: bool, requirement: str) -> None:
    if not valid:
        raise UserError(f"{name}={value} must be {requirement}")


def _default(cls: type, name: str) -> Any:
    return next(f.default for f in dataclasses.fields(cls) if f.name == name)
