"""The record of one run and its JSON file. No large library, so that it reads fast.

A number that is not finite (a loss of NaN, an infinite metric) has no JSON form. It is written as
``null`` and ``reason`` says which entries these were: nothing is replaced by a number.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from hfbench.disk import write_whole
from hfbench.errors import UserError
from hfbench.manifest import text_checksum
from hfbench.plain_json import read_json

SCHEMA_VERSION = 3
RESULT_FILE = "result.json"
MODEL_REMOVED = "{} removed it. Repeat the run's command with output.keep=all, which trains again"
BAD_ROWS_FILE = "bad_rows.jsonl"  # beside it
BASELINE_MSE = "baseline_mse"  # test metric of numbers: that of the mean of train
NEW_HEAD = "new"
OWN_HEAD = "the checkpoint's own"
REORDERED_HEAD = "the checkpoint's own, in the data's order of labels"
UNTRAINED = "_before_training"  # ends the name of a test metric of the model as it came

Status = Literal["succeeded", "failed", "diverged", "out_of_memory", "interrupted"]

T = TypeVar("T")


@dataclass(frozen=True)
class ParameterRow:
    """Parameters of one part or one kind of layer."""

    name: str
    total: int
    trainable: int

    @property
    def frozen(self) -> int:
        return self.total - self.trainable


@dataclass(frozen=True)
class ParameterReport:
    """How many parameters there are and how many train; every one counted exactly once.

    ``by_depth`` goes from input to output (embeddings, block 0 to L-1, final, pooler, head,
    adapter), without the parts that do not exist. ``by_layer_type`` keeps kinds without
    parameters as rows of 0. Each sums to ``total``. ``buffers`` (numbers that are not parameters,
    such as position indices or running means) are in no sum.
    """

    total: int
    trainable: int
    buffers: int
    by_depth: tuple[ParameterRow, ...]
    by_layer_type: tuple[ParameterRow, ...]

    @property
    def frozen(self) -> int:
        return self.total - self.trainable

    @property
    def trainable_percent(self) -> float:
        """Percent of the parameters that train; 0 for a model without parameters."""
        return 100 * self.trainable / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict; the inverse of :meth:`from_dict`."""
        values = dataclasses.asdict(self)
        for key in ("by_depth", "by_layer_type"):
            values[key] = list(values[key])
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "parameters") -> Self:
        """Raises UserError, naming ``source``, for missing, unknown or mistyped entries."""
        rows = {
            key: tuple(_build(ParameterRow, row, source) for row in _list(values, key, source))
            for key in ("by_depth", "by_layer_type")
        }
        return _build(cls, {**values, **rows}, source)


@dataclass(frozen=True)
class EpochRecord:
    """One evaluation on the validation split during training."""

    epoch: float  # passes over the training data so far
    step: int  # optimiser steps so far
    train_loss: float | None  # mean over the samples since the last record; None: not finite
    validation: dict[str, Any]  # metric name -> value


@dataclass(frozen=True)
class Prediction:
    """What a trace on the training's own batches foretold, to stand beside what was measured."""

    step_flops: int  # passes of one optimiser step of all processes, batches of mean length
    step_seconds: float  # of one optimiser step, from a calibration just before
    peak_memory_bytes: int | None  # of the main process, batches of the greatest length
    matmul_flops_per_second: float  # of the main process, measured in a matrix product


@dataclass(frozen=True)
class PrefixRecord:
    """The frozen prefix whose output was stored, so that no training step computes it."""

    place: str  # backbone, or blocks-<number of leading blocks>
    seconds: float  # to compute what was not stored yet, to prove and to open it
    size_bytes: int  # of all splits
    computed_splits: int  # 0: all was stored by an earlier run
    saved_seconds: float  # estimated: what computing it in every forward pass of the training takes


@dataclass(frozen=True)
class SavedCheck:
    """How far the saved model, loaded again, gives what the run reports of the test split.

    Differences that the precision of the run does not explain end the run.
    """

    samples: int  # that were computed again by the saved model, without any shortcut
    of: int  # samples of the test split
    loss_difference: float  # of the mean loss over them
    prediction_difference: float | None  # the largest, as a share of the largest; None: no numbers
    metric_difference: float  # of the primary metric over them: answers near a tie may change
    seconds: float


@dataclass(frozen=True)
class WeightsRecord:
    """How the checkpoint's file and the network fit together, before training.

    Attributes:
        head: where its values are from: ``NEW_HEAD``, ``OWN_HEAD`` or ``REORDERED_HEAD``.
        new: part, such as head or pooler -> names of the parameters that start at random.
        reshaped: those of them that the file has in another shape -> the shape in the file.
        left_over: module of the file that the network lacks -> number of its tensors.
        removed_prefix: what the names in the file began with and the network's do not.
        merged: the adapter that is the checkpoint, and its base; None for whole networks.
    """

    head: str
    new: dict[str, list[str]]
    reshaped: dict[str, list[int]]
    left_over: dict[str, int]
    removed_prefix: str | None
    merged: str | None = None

    @property
    def has_new_head(self) -> bool:
        return self.head == NEW_HEAD


@dataclass(frozen=True)
class Failure:
    """Where a run failed first."""

    rank: int  # of the process; 0 where there is one
    traceback: str | None  # None: the process was killed


_NEWER = (  # older results lack these
    "not_predicted",
    "weights",
    "saved_files",
    "model_removed",
    "failure",
    "saved_check",
)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One training of one strategy with one seed; also for a run that failed."""

    run_id: str
    status: Status
    reason: str | None  # why the run did not succeed, or which numbers were not finite
    task: str
    checkpoint: str
    checkpoint_commit: str | None  # on the hub; None: local, or trained from nothing
    dataset: str
    strategy: str  # short spelling, such as last_2 or lora:r=4
    seed: int
    config: dict[str, Any]
    versions: dict[str, str]
    git: dict[str, Any] | None
    hardware: dict[str, Any]
    parameters: ParameterReport | None
    predicted: Prediction | None
    history: tuple[EpochRecord, ...]
    primary_metric: str  # key of test_metrics and of each record's validation
    best_validation: float | None  # primary metric of the kept checkpoint on the validation split
    prefix: PrefixRecord | None  # None where every step computed everything
    test_metrics: dict[str, Any]  # empty when the test split was not read
    data: dict[str, Any]  # split sizes, label names, columns, fingerprint
    train_seconds: float | None  # without evaluation and saving
    total_seconds: float | None
    samples_per_second: float | None  # training samples of all processes / train_seconds
    steps: int  # optimiser steps
    peak_memory_bytes: int | None
    saved_bytes: int | None  # size of the saved model on disk
    num_processes: int
    started_at: str  # ISO 8601 with time zone
    greater_is_better: bool = True  # of the primary metric
    not_predicted: str | None = None  # why there is no prediction
    weights: WeightsRecord | None = None  # None where no checkpoint gave any, and in older results
    # what was saved: path in the run's folder -> [bytes, checksum]; None in older results
    saved_files: dict[str, list[Any]] | None = None
    batch_parts: int = 1  # in which each batch was computed, after the memory was exhausted
    model_removed: str | None = None  # which setting removed the saved model after its check
    failure: Failure | None = None  # None where nothing failed, and in older results
    saved_check: SavedCheck | None = None  # None where nothing was saved, and in older results
    schema_version: int = SCHEMA_VERSION

    @property
    def learning_seconds(self) -> float | None:
        """``train_seconds`` and what this run spent on its frozen prefix before."""
        if self.train_seconds is None or self.prefix is None:
            return self.train_seconds
        return self.train_seconds + self.prefix.seconds

    @property
    def settings(self) -> dict[str, Any]:
        """``config`` with the precision that was used where it asks for a measurement."""
        training = self.config.get("training", {})
        if training.get("mixed_precision") != "auto":
            return self.config
        used = {"mixed_precision": self.hardware["precision"]}
        return {**self.config, "training": {**training, **used}}

    @property
    def max_seconds(self) -> float | None:
        """How much of a recording the model gets; None for a choice that was never made."""
        chosen: float | None = self.data.get("max_seconds", self.config["data"].get("max_seconds"))
        return chosen

    @property
    def step_seconds(self) -> float | None:
        """Measured mean of one optimiser step, loading its batches included."""
        return self.train_seconds / self.steps if self.train_seconds and self.steps else None

    @property
    def flops_per_second(self) -> float | None:
        """Predicted operations of a step over its measured time, of all processes together."""
        if self.predicted is None or self.step_seconds is None:
            return None
        return self.predicted.step_flops / self.step_seconds

    @property
    def peak_share(self) -> float | None:
        """``flops_per_second`` over what all processes reach in a matrix product; 0 to 1."""
        if self.predicted is None or self.flops_per_second is None:
            return None
        return self.flops_per_second / (self.predicted.matmul_flops_per_second * self.num_processes)

    @property
    def primary_value(self) -> float | None:
        """The primary metric on the test split; None when it was not measured or not finite."""
        value = self.test_metrics.get(self.primary_metric)
        return value if value is not None and math.isfinite(value) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict that JSON can hold; the inverse of :meth:`from_dict`."""
        values: dict[str, Any] = dataclasses.asdict(self)
        if self.parameters is not None:
            values["parameters"] = self.parameters.to_dict()
        lost = list(_not_finite(values, ""))
        if lost:
            note = f"not finite, written as null: {', '.join(lost)}"
            values["reason"] = f"{self.reason}; {note}" if self.reason else note
        plain: dict[str, Any] = _plain(values)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "result") -> Self:
        """Build a result from :meth:`to_dict`'s output.

        Raises UserError, naming ``source`` (the file), for another schema version and for
        missing, unknown or mistyped entries.
        """
        version = values.get("schema_version")
        if version == 2:  # before frozen prefixes were stored; the rest is the same
            values = {**values, "prefix": None, "schema_version": SCHEMA_VERSION}
            version = SCHEMA_VERSION
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{source}: schema_version {version!r} is not readable here, only "
                f"{SCHEMA_VERSION}; run again or use the hfbench version that wrote it"
            )
        built: dict[str, Any] = {"batch_parts": 1} | dict.fromkeys(_NEWER) | dict(values)
        built["history"] = tuple(
            _build(EpochRecord, record, source) for record in _list(values, "history", source)
        )
        records = {
            "prefix": PrefixRecord,
            "weights": WeightsRecord,
            "failure": Failure,
            "saved_check": SavedCheck,
            "predicted": Prediction,
        }
        for key, kind in records.items():
            if built.get(key) is not None:
                built[key] = _build(kind, built[key], source)
        if built.get("parameters") is not None:
            built["parameters"] = ParameterReport.from_dict(built["parameters"], source=source)
        result = _build(cls, built, source)
        _check_inside(result, source)
        return result

    def save(self, path: str | Path) -> None:
        """Write the JSON file: under a temporary name, then renamed, so it is whole or absent.

        Raises UserError when it cannot be written, for instance on a full disk.
        """
        path = Path(path)
        values = self.to_dict()
        values["checksum"] = text_checksum(values)
        text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        try:
            write_whole(path, text)
        except OSError as error:
            raise UserError(
                f"cannot write the result {str(path)!r}: {error.strerror}; free some space or "
                "choose another output_dir"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read one JSON file.

        Raises UserError, naming the file, when it is not a result, or not as it was written.
        """
        path = Path(path)
        try:
            values = read_json(path)
        except OSError as error:
            raise UserError(f"cannot read the result {str(path)!r}: {error.strerror}") from error
        except ValueError as error:  # neither UTF-8 nor JSON
            raise UserError(f"{str(path)!r} is not a JSON file: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{str(path)!r} holds no result: its JSON is not an object")
        written = values.pop("checksum", None)  # earlier versions wrote none
        if written is not None and written != text_checksum(values):
            raise UserError(f"{str(path)!r} is not as it was written: it was changed or damaged")
        return cls.from_dict(values, source=repr(str(path)))


def load_all(folder: str | Path, unreadable: list[str] | None = None) -> list[RunResult]:
    """Every ``result.json`` below ``folder``, ordered by task, checkpoint, data, strategy, seed.

    A file that cannot be read is an error; with ``unreadable``, a list, what is wrong with it is
    put there and the others are read.

    Raises UserError also when the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"results folder {str(folder)!r} does not exist")
    loaded = []
    for path in sorted(folder.glob(f"**/{RESULT_FILE}")):
        try:
            loaded.append(RunResult.load(path))
        except UserError as error:
            if unreadable is None:
                raise
            unreadable.append(str(error))
    return sorted(loaded, key=lambda r: (r.task, r.checkpoint, r.dataset, r.strategy, r.seed))


def _build(cls: type[T], values: Mapping[str, Any], source: str) -> T:
    """``cls(**values)`` after checking the names and types of its fields."""
    if not isinstance(values, Mapping):
        raise UserError(f"{source}: {values!r} is not an object of {cls.__name__}")
    hints = typing.get_type_hints(cls)
    missing, unknown = hints.keys() - values.keys(), values.keys() - hints.keys()
    if missing or unknown:
        problems = [
            f"{word} {', '.join(sorted(keys))}"
            for word, keys in (("missing", missing), ("unknown", unknown))
            if keys
        ]
        raise UserError(f"{source}: {cls.__name__} has {'; '.join(problems)}")
    for name, hint in hints.items():
        if not _is_a(values[name], hint):
            raise UserError(f"{source}: {name}={values[name]!r} is not a {hint}")
    return cls(**values)


def _check_inside(result: RunResult, source: str) -> None:
    """Raise UserError for entries, deeper inside, with which nothing can be computed."""
    metrics = result.test_metrics
    numbers = {name: metrics.get(name) for name in (result.primary_metric, "f1_macro")}
    rate = 1.0 if result.predicted is None else result.predicted.matmul_flops_per_second
    gpus = result.hardware.get("gpus", [])
    for name, value, fits in (
        *((f"test_metrics.{n}", v, _is_a(v, float | None)) for n, v in numbers.items()),
        *(
            (f"config.{section}", result.config.get(section, {}), None)
            for section in ("training", "data", "model", "strategy")
        ),
        ("hardware.gpus", gpus, isinstance(gpus, list) and all(isinstance(g, str) for g in gpus)),
        ("num_processes", result.num_processes, result.num_processes > 0),
        ("predicted.matmul_flops_per_second", rate, rate > 0),
    ):
        if not (isinstance(value, Mapping) if fits is None else fits):
            raise UserError(f"{source}: {name}={value!r} is not what a run writes there")


def _is_a(value: Any, hint: Any) -> bool:
    """Whether ``value`` fits the annotation of a field, not looking inside containers."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_is_a(value, choice) for choice in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else origin or hint)


def _list(values: Mapping[str, Any], key: str, source: str) -> list[Any]:
    if not isinstance(values, Mapping) or not isinstance(values.get(key), list):
        raise UserError(f"{source}: {key!r} is missing or not a list")
    found: list[Any] = values[key]
    return found


def _plain(value: Any) -> Any:
    """Tuples as lists and numbers that are not finite as None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _not_finite(value: Any, name: str) -> Iterator[str]:
    """The dotted names of numbers that are not finite, each with what it was."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{name}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name} ({value})"
