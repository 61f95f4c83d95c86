"""The configuration of a run: frozen dataclasses < YAML file < ``key=value`` overrides.

Precedence grows from left to right. An unknown key, a value of the wrong type or an impossible
value is a :class:`UserError` that names the key, the value and the choices. Standard library and
PyYAML only: commands that only read results stay light.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hfbench.conversion import build, check, parse_value, read_yaml
from hfbench.errors import UserError
from hfbench.inheritance import drop_described
from hfbench.network_config import NetworkConfig as NetworkConfig
from hfbench.strategy_config import ADAPTERS as ADAPTERS
from hfbench.strategy_config import StrategyConfig as StrategyConfig
from hfbench.strategy_config import StrategyName as StrategyName
from hfbench.strategy_config import TargetKind as TargetKind
from hfbench.strategy_config import parse_strategy as parse_strategy
from hfbench.strategy_config import spelt_out

OptimizerName = Literal["adamw", "adam", "sgd"]
# transformers' names of what a classifier's outputs mean
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

# Keys that name, watch or schedule a run and do not change what it learns.
NEUTRAL_KEYS = (
    "output_dir",
    "tracker",
    "cache",
    "data.max_bad_rows",
    "output.keep",
    "hub.push",
    "hub.repo_id",
    "hub.private",
    "hub.revision",
    "hub.adapter_only",
    "hub.deadline_seconds",
    "training.eval_batch_size",
    "training.check_samples",
    "training.oom",
    "training.num_workers",
    "training.resume",
    "training.save_steps",
    "training.save_minutes",
)

# tasks of one head over labels: one, several, or a number; with weights for the labels
CLASSIFICATION_TASKS = ("text_classification", "image_classification", "audio_classification")
NETWORK_TASKS = ("mnist_mlp",)  # they build a network of their own instead of loading a checkpoint


@dataclass(frozen=True)
class ModelConfig:
    """Which pretrained checkpoint to start from."""

    checkpoint: str = ""  # hub name, local folder, or bundled/<name>
    revision: str | None = None
    source: Literal["transformers", "timm"] = "transformers"  # timm: checkpoint is a name of timm's
    # None: the checkpoint's own where its labels have the names of the data's; else a new one
    head: Literal["new", "reuse"] | None = None
    # patterns of parameters outside head and pooler that may start at random, or be left out
    allow_new: tuple[str, ...] = ()

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
    completion_column: str | None = None  # of causal_lm: what is to follow on the text column
    separator: str = "\n"  # of causal_lm, between a prompt and its completion
    image_column: str | None = None
    audio_column: str | None = None
    label_column: str | None = None
    label_columns: tuple[str, ...] = ()  # of 0 and 1, one a label: multi-label classification
    problem_type: ProblemType | None = None  # None: by what the label column holds
    max_bad_rows: int = 0  # rows that cannot be read and are skipped; with more nothing is trained
    validation_fraction: float = 0.1  # of train, when the data have no validation split
    test_fraction: float = 0.1  # of train, when the data have no test split
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    max_length: int = 128  # tokens
    # longer audio is cropped at its centre, with a transcript refused; None: by the training clips
    max_seconds: float | None = None

    @property
    def label(self) -> str:
        """The data with their configuration and revision, as results name them."""
        text = self.source if self.name is None else f"{self.source} ({self.name})"
        return text if self.revision is None else f"{text}@{self.revision}"

    def __post_init__(self) -> None:
        for key in ("validation_fraction", "test_fraction"):
            check(f"data.{key}", getattr(self, key), 0 < getattr(self, key) < 1, "in (0, 1)")
        for key in ("max_train_samples", "max_eval_samples", "max_length", "max_seconds"):
            value = getattr(self, key)
            check(f"data.{key}", value, value is None or value > 0, "positive")
        check("data.max_bad_rows", self.max_bad_rows, self.max_bad_rows >= 0, ">= 0")
        self._check_label_columns()

    def _check_label_columns(self) -> None:
        named = f"data.label_columns={list(self.label_columns)}"
        if self.label_columns and self.label_column is not None:
            raise UserError(
                f"{named} and data.label_column={self.label_column!r}: give one of them"
            )
        if len(set(self.label_columns)) < len(self.label_columns):
            raise UserError(f"{named} names a column twice")
        if self.label_columns and self.problem_type not in (None, "multi_label_classification"):
            raise UserError(
                f"{named} is for several labels a row, and data.problem_type={self.problem_type}"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Batches are global: the same numbers on one process or on many."""

    epochs: int = 3
    max_steps: int | None = None  # optimiser steps; ends before `epochs` when reached
    batch_size: int = 32  # samples of one forward pass over all processes together
    eval_batch_size: int = 64  # per process
    # out of memory: start again with each batch in twice as many parts, or end. None: hfbench
    # compare starts again, a recipe ends
    oom: Literal["retry", "fail"] | None = None
    check_samples: int = 1000  # test samples whose reported numbers the saved model must give
    gradient_accumulation_steps: int = 1  # forward passes of one optimiser step
    group_by_length: bool = True  # texts and sounds of like length share a batch: less padding
    learning_rate: float = 5e-5  # of full fine-tuning; a strategy multiplies it by its factor
    head_learning_rate: float | None = None  # of a new head beside pretrained parts; None: same
    # each block's rate is this times that of the block behind it; the embeddings come first
    layerwise_lr_decay: float | None = None
    optimizer: OptimizerName = "adamw"
    momentum: float = 0.0  # of sgd
    # On matrices only, never on biases and norms: what the optimiser calls so (decoupled in adamw)
    weight_decay: float = 0.01
    l1: float = 0.0  # the loss has l1 · Σ|w| + l2 / 2 · Σw² over the matrices that train;
    l2: float = 0.0  # reported losses are without it
    warmup_ratio: float = 0.1
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: float | None = 1.0
    # balanced: a sample's loss times samples / (labels × samples of its label), so that all labels
    # have the same say; reported losses too
    class_weights: Literal["none", "balanced"] = "none"
    # auto: bf16 where a measurement says that it is faster, so results depend on the machine
    mixed_precision: Literal["no", "bf16", "fp16", "auto"] = "no"
    gradient_checkpointing: bool = False  # less memory, trained blocks computed twice
    early_stopping_patience: int | None = None  # evaluations without improvement
    # The state is saved once an epoch; also after so many steps, and by the clock between steps.
    save_steps: int | None = None
    save_minutes: float | None = 10.0
    # of steps, over all starts of the command: then the training ends as with max_steps
    max_minutes: float | None = None
    resume: Literal["auto", "never"] = "auto"
    num_workers: int = 0  # processes that prepare batches

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "eval_batch_size", "gradient_accumulation_steps")
        for key in (*counts, "check_samples"):
            check(f"training.{key}", getattr(self, key), getattr(self, key) >= 1, "a number >= 1")
        for key in ("max_steps", "save_steps", "early_stopping_patience"):
            value = getattr(self, key)
            check(f"training.{key}", value, value is None or value >= 1, "a number >= 1")
        for key in (
            "learning_rate",
            "head_learning_rate",
            "max_grad_norm",
            "save_minutes",
            "max_minutes",
        ):
            value = getattr(self, key)
            check(f"training.{key}", value, value is None or value > 0, "positive")
        decay = self.layerwise_lr_decay
        valid = decay is None or 0 < decay <= 1
        check("training.layerwise_lr_decay", decay, valid, "in (0, 1]")
        for key in ("weight_decay", "l1", "l2"):
            check(f"training.{key}", getattr(self, key), getattr(self, key) >= 0, ">= 0")
        check("training.momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)")
        if self.momentum and self.optimizer != "sgd":
            raise UserError(
                f"training.momentum={self.momentum} belongs to sgd, not to {self.optimizer}"
            )
        check("training.warmup_ratio", self.warmup_ratio, 0 <= self.warmup_ratio < 1, "in [0, 1)")
        check("training.num_workers", self.num_workers, self.num_workers >= 0, ">= 0")


@dataclass(frozen=True)
class GenerationConfig:
    """How completions are written to be scored with ROUGE and BLEU: greedily."""

    max_new_tokens: int = 64
    max_samples: int = 200  # of the test split: writing takes far longer than reading

    def __post_init__(self) -> None:
        for key in ("max_new_tokens", "max_samples"):
            check(f"generation.{key}", getattr(self, key), getattr(self, key) >= 1, "a number >= 1")


@dataclass(frozen=True)
class DecodingConfig:
    """How a speech model's outputs become a transcript, in evaluation and prediction."""

    beams: int = 1  # of a search over prefixes; 1: the most probable token of every frame

    def __post_init__(self) -> None:
        check("decoding.beams", self.beams, self.beams >= 1, "a number >= 1")


@dataclass(frozen=True)
class HubConfig:
    """Where to publish what was trained. The token is huggingface_hub's (HF_TOKEN, login)."""

    push: bool = False
    repo_id: str | None = None  # owner/name; made where it does not exist
    private: bool | None = None  # None: as it is, or the hub's default for a new one
    revision: str | None = None  # a branch, made where it does not exist; None: main
    adapter_only: bool = True  # false: an adapter is published merged into its base
    deadline_seconds: float = 60.0  # of waiting while nothing new gets through

    def __post_init__(self) -> None:
        check("hub.deadline_seconds", self.deadline_seconds, self.deadline_seconds > 0, "positive")
        if self.repo_id is None:
            if self.push:
                raise UserError("hub.push=true needs the repository: hub.repo_id=owner/name")
        elif not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", self.repo_id, re.ASCII):
            raise UserError(f"hub.repo_id={self.repo_id!r} is not written owner/name")


@dataclass(frozen=True)
class OutputConfig:
    """What stays in a run's folder beside its result."""

    # the model of every run, of the best of a comparison (on validation), or of none
    keep: Literal["all", "best", "none"] = "all"


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines one run."""

    task: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    network: NetworkConfig | None = None  # of tasks that train one from scratch
    data: DataConfig = field(default_factory=DataConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    hub: HubConfig = field(default_factory=HubConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    seed: int = 0
    output_dir: str | None = None  # None: runs/<task>/<start>_<data>/<strategy>_seed<seed>
    tracker: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    # of a frozen prefix's output: where this run repays it, or also for runs to come, or never
    cache: Literal["auto", "always", "off"] = "auto"

    def __post_init__(self) -> None:
        check("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")
        self._check_labels()
        if self.hub.push and self.output.keep == "none":
            raise UserError("output.keep=none removes what hub.push=true publishes: choose one")
        patience = self.training.early_stopping_patience
        if self.strategy.name == "gradual" and patience is not None:
            raise UserError(
                f"training.early_stopping_patience={patience} could end strategy "
                f"{self.strategy.label!r} before it has unfrozen everything: leave it out, or "
                "choose another strategy"
            )
        if self.decoding.beams > 1 and self.task != "speech_recognition":
            raise UserError(
                f"decoding.beams={self.decoding.beams} belongs to speech_recognition, not to "
                f"task={self.task!r}"
            )
        headed = (*CLASSIFICATION_TASKS, "speech_recognition")
        if self.model.head is not None and self.task not in headed:
            raise UserError(
                f"model.head={self.model.head} belongs to {', '.join(headed)}, not to "
                f"task={self.task!r}"
            )
        if self.model.source == "timm" and self.task != "image_classification":
            raise UserError(
                f"model.source=timm belongs to image_classification, not to task={self.task!r}"
            )
        if self.network is None:
            return
        if self.task not in NETWORK_TASKS:
            raise UserError(
                f"the section network belongs to {', '.join(NETWORK_TASKS)}, not to "
                f"task={self.task!r}, which starts from model.checkpoint"
            )
        if self.model.checkpoint:
            raise UserError(
                f"model.checkpoint={self.model.checkpoint!r}: {self.task} starts from random "
                "weights; for a checkpoint use another task"
            )
        if self.strategy.name != "scratch":
            raise UserError(
                f"strategy={self.strategy.label!r}: {self.task} starts from random weights, so "
                "its only strategy is scratch"
            )

    def _check_labels(self) -> None:
        if self.task in CLASSIFICATION_TASKS:
            return
        for key, value, usual in (
            ("data.problem_type", self.data.problem_type, (None, "single_label_classification")),
            ("data.label_columns", list(self.data.label_columns), ([],)),
            ("training.class_weights", self.training.class_weights, ("none",)),
        ):
            if value not in usual:
                raise UserError(
                    f"{key}={value} belongs to {', '.join(CLASSIFICATION_TASKS)}, not to "
                    f"task={self.task!r}"
                )

    @property
    def start(self) -> str:
        """What training starts from, as results name it: the checkpoint or the network."""
        return self.model.label if self.network is None else self.network.label

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict of what JSON holds, as it is stored in a result."""
        values: dict[str, Any] = _with_lists(dataclasses.asdict(self))
        return values


def load_config(
    path: str | Path | None,
    overrides: Iterable[str] = (),
    *,
    task: str | None = None,
    say: Callable[[str], object] | None = None,
) -> RunConfig:
    """Read a YAML file and apply ``section.key=value`` overrides.

    ``strategy=last_2`` is short for the strategy's fields. ``task`` is what the calling recipe is
    for; a file written for another task is an error. Keys of the file that describe what an
    override replaces are left out (:mod:`hfbench.inheritance`); ``say`` is told so.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_yaml(Path(path))
    if isinstance(values.get("strategy"), str):
        values["strategy"] = spelt_out(values["strategy"])
    given = [_override(text) for text in overrides]
    for dropped in drop_described(values, given):
        if say is not None:
            say(f"note: {dropped}")
    for key, value in given:
        _set(values, key, value)
    if task is not None and values.setdefault("task", task) != task:
        raise UserError(f"the config {path} is for the task {values['task']!r}, not for {task!r}")
    if values.get("task") in NETWORK_TASKS:
        values["network"] = values.get("network") or {}
        values.setdefault("strategy", {}).setdefault("name", "scratch")
    return build(RunConfig, values, "")


def _override(text: str) -> tuple[str, Any]:
    """``key=value`` read; a strategy's spelling as the fields that it sets."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"override {text!r} is not written key=value")
    key = key.strip()
    return key, spelt_out(value) if key == "strategy" else parse_value(value, text)


def data_config(stored: Mapping[str, Any]) -> DataConfig:
    """The section ``data`` of a stored configuration."""
    return build(DataConfig, stored, "data")


def decoding_config(stored: Mapping[str, Any]) -> DecodingConfig:
    """The section ``decoding`` of a stored configuration."""
    return build(DecodingConfig, stored, "decoding")


def hub_config(stored: Mapping[str, Any], overrides: Iterable[str]) -> HubConfig:
    """The stored ``hub`` section of a run with ``hub.key=value`` overrides.

    Raises UserError for an override of another section.
    """
    values: dict[str, Any] = {"hub": dict(stored)}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.startswith("hub."):
            raise UserError(f"{override!r} is not written hub.key=value")
        _set(values, key, parse_value(text, override))
    return build(HubConfig, values["hub"], "hub")


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"override {dotted!r}: {section!r} is a value, not a section")
        values = inner
    values[key] = value


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
