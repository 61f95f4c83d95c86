"""What the label column holds: one label a row, several, or a number to predict."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from datasets import ClassLabel, Dataset, LargeList, List, Value

from hfbench.config import DataConfig, ProblemType
from hfbench.data.label_kinds import kind_of
from hfbench.data.label_values import as_number, is_missing, name_of, written_list
from hfbench.data.rows import Place
from hfbench.data.spellings import (
    alike,
    count_spellings,
    has_fraction,
    reading_notes,
    settle,
    whole,
)
from hfbench.data.stratification import Rows, divide_by_labels, divide_by_strata
from hfbench.errors import UserError

STRATA = 10  # of a number: samples are split by tenths of its distribution,
STRATUM_SAMPLES = 10  # or by fewer, of at least so many samples
FINENESS = 0.01  # the largest step between float32 numbers, of a standard deviation
Encoded = npt.NDArray[Any]
Problems = dict[int, str]  # row -> what is wrong with its label


class Labels(ABC):
    """How the labels of every split become numbers; ``names`` are those of train.

    Attributes:
        names: of the model's outputs, in their order.
        strata: how ``divide`` chooses, for people.
        reason: what the column was taken for and why, for people.
        notes: what was decided on the way of writing labels, for people.
    """

    problem_type: ClassVar[ProblemType]
    strata: ClassVar[str]

    def __init__(self, names: Sequence[str], merged: Mapping[str, str] | None = None) -> None:
        """``merged``: what train writes too -> the name that it stands for."""
        self.names = tuple(names)
        self.reason = ""
        self.notes: tuple[str, ...] = ()
        known = {name: position for position, name in enumerate(self.names)}
        # Another split may write 1.0 for 1, but beside 1.5 both may be versions.
        self.whole = not any(map(has_fraction, known))
        written = {whole(name): label for name, label in known.items()} if self.whole else {}
        written |= {other: known[name] for other, name in (merged or {}).items()}
        self.written = written | known

    def number_of(self, name: str) -> int | None:
        """The label's position in ``names``; None where train lacks it."""
        return self.written.get(name, self.written.get(whole(name)) if self.whole else None)

    def unknown(self, name: str, column: str) -> str:
        """What is wrong with a row of a label that train lacks."""
        same = self._alike.get(alike(name))
        hint = "" if same is None else f" (it has {same!r})"
        return f"the label {name!r} (column {column!r}), which train lacks{hint}"

    @cached_property
    def _alike(self) -> dict[str, str]:
        return {alike(name): name for name in self.names}

    @abstractmethod
    def encode(self, dataset: Dataset, column: str) -> tuple[Encoded, Problems]:
        """The labels of a split, (rows, ...), and what is wrong with rows that have none.

        Raises UserError for a column of another kind.
        """

    @abstractmethod
    def divide(self, labels: Encoded, shares: Sequence[float]) -> list[Rows]:
        """The rows of train that become each missing split, a share of all; the rest stays."""

    @abstractmethod
    def held(self, labels: Encoded) -> tuple[Rows, Rows]:
        """Rows, ascending, and the numbers of the labels that they have; none of a regression."""

    def check_train(self, labels: Encoded, source: str) -> None:
        """Raise UserError where all samples of train have the same label."""
        if len(labels) and (labels == labels[0]).all():
            raise UserError(
                f"train of {source!r} has a single label ({self.described(labels[0])}): nothing "
                "can be learnt; check data.label_column and data.train_split"
            )

    @abstractmethod
    def described(self, label: Any) -> str:
        """One encoded label for people."""


class OneLabel(Labels):
    """``labels``: int64, the position in ``names``."""

    problem_type = "single_label_classification"
    strata = "stratified"

    def encode(self, dataset: Dataset, column: str) -> tuple[Encoded, Problems]:
        feature = dataset.features[column]
        if not isinstance(feature, (Value, ClassLabel)):
            raise UserError(
                f"column {column!r} must hold one label a row; it holds {feature}. Several labels "
                "a row are data.problem_type=multi_label_classification"
            )
        labels = np.zeros(len(dataset), dtype=np.int64)
        problems: Problems = {}
        for row, (value, name) in enumerate(_named(dataset, column)):
            if name is None:
                problems[row] = f"no label ({column}={value!r})"
            elif (label := self.number_of(name)) is None:
                problems[row] = self.unknown(name, column)
            else:
                labels[row] = label
        return labels, problems

    def divide(self, labels: Encoded, shares: Sequence[float]) -> list[Rows]:
        return divide_by_strata(labels, shares)

    def held(self, labels: Encoded) -> tuple[Rows, Rows]:
        return np.arange(len(labels)), labels

    def described(self, label: Any) -> str:
        return self.names[int(label)]


class SeveralLabels(Labels):
    """``labels``: (rows, len(names)), float32, 1 where a label applies."""

    problem_type = "multi_label_classification"
    strata = "stratified by labels, the rarest first"

    def encode(self, dataset: Dataset, column: str) -> tuple[Encoded, Problems]:
        feature = _item_feature(dataset, column)
        labels = np.zeros((len(dataset), len(self.names)), dtype=np.float32)
        problems: Problems = {}
        for row, (value, items) in enumerate(_lists(dataset, column)):
            if items is None:
                problems[row] = f"no list of labels ({column}={value!r})"
                continue
            for item in items:
                if is_missing(item):
                    problems[row] = f"no label in the list ({column}={value!r})"
                elif (label := self.number_of(name_of(item, feature))) is None:
                    problems[row] = self.unknown(name_of(item, feature), column)
                else:
                    labels[row, label] = 1
        return labels, problems

    def divide(self, labels: Encoded, shares: Sequence[float]) -> list[Rows]:
        return divide_by_labels(labels, shares)

    def held(self, labels: Encoded) -> tuple[Rows, Rows]:
        rows, numbers = np.nonzero(labels)
        return rows, numbers

    def described(self, label: Any) -> str:
        held = [name for name, applies in zip(self.names, label, strict=True) if applies]
        return ", ".join(held) or "none"


class LabelColumns(SeveralLabels):
    """The same from a column of 0 and 1 for each label."""

    def encode(self, dataset: Dataset, column: str) -> tuple[Encoded, Problems]:
        columns = self.names
        labels = np.zeros((len(dataset), len(columns)), dtype=np.float32)
        problems: Problems = {}
        for number, name in enumerate(columns):
            for row, value in enumerate(dataset[name][:]):
                if value in (0, 1):  # True and 1.0 too
                    labels[row, number] = value
                elif value in ("0", "1"):
                    labels[row, number] = int(value)
                else:
                    problems.setdefault(row, f"neither 0 nor 1 ({name}={value!r})")
        return labels, problems


class Number(Labels):
    """``labels``: float32, as in the data; a number that is not finite in it is none.

    Where every number of a split is -1, none is given: so GLUE withholds those of its test splits.
    """

    problem_type = "regression"
    strata = "stratified by quantiles"

    def encode(self, dataset: Dataset, column: str) -> tuple[Encoded, Problems]:
        if not isinstance(dataset.features[column], Value):
            raise UserError(
                f"column {column!r} must hold one number a row for data.problem_type=regression; "
                f"it holds {dataset.features[column]}"
            )
        problems: Problems = {}
        values = dataset[column][:]
        numbers = [as_number(value) for value in values]
        given = {number for number in numbers if number is not None and math.isfinite(number)}
        withheld = given == {-1}
        with np.errstate(over="ignore"):  # it is a problem of its row
            labels = np.array([number or 0.0 for number in numbers]).astype(np.float32)
        for row, (value, number) in enumerate(zip(values, numbers, strict=True)):
            if number is None or not math.isfinite(number) or withheld:
                problems[row] = f"no number ({column}={value!r})"
            elif not np.isfinite(labels[row]):
                problems[row] = f"a number too large for a network's float32 ({column}={value!r})"
        labels[list(problems)] = 0
        return labels, problems

    def divide(self, labels: Encoded, shares: Sequence[float]) -> list[Rows]:
        return divide_by_strata(labels, shares, strata=_quantiles, cover=False)

    def held(self, labels: Encoded) -> tuple[Rows, Rows]:
        return np.arange(0), np.arange(0)

    def check_train(self, labels: Encoded, source: str) -> None:
        """Raise UserError also for numbers between which float32 has too few others."""
        super().check_train(labels, source)
        numbers = labels.astype(np.float64)
        step, spread = float(np.spacing(np.abs(labels).max())), float(numbers.std())
        if step > spread * FINENESS:
            raise UserError(
                f"the numbers of {source!r} spread by {spread:.3g} around {numbers.mean():.6g}, "
                f"where a network's float32 has steps of {step:.3g}: subtract a constant from them"
            )

    def described(self, label: Any) -> str:
        return f"{label:g}"


def _quantiles(numbers: Encoded) -> Encoded:
    """(rows,), integers: which part of the distribution a number is in."""
    strata = min(STRATA, max(1, len(numbers) // STRATUM_SAMPLES))
    borders = np.quantile(numbers, np.arange(1, strata) / strata)
    return np.searchsorted(borders, numbers)


def find_labels(
    train: Dataset, column: str, data: DataConfig, place: Place = lambda row: f"row {row}"
) -> Labels:
    """What ``data.problem_type`` says, or else what the column is beyond doubt.

    Lists, also as texts, are several labels, numbers with fractions are a regression, all else is
    one label. ``place`` names rows of train.

    Raises UserError for a type that the column does not fit, for a column that may be one thing or
    another, and for one label in several spellings.
    """
    kind = kind_of(train, column, data, place)
    labels = _labels_of(train, column, data, kind.problem_type, place)
    labels.reason = kind.reason
    return labels


def _labels_of(
    train: Dataset, column: str, data: DataConfig, problem: ProblemType, place: Place
) -> Labels:
    if data.label_columns:
        return LabelColumns(data.label_columns)
    if problem == "regression":
        return Number((column,))
    if problem == "single_label_classification":
        return _one_label(train, column, place)
    return _several_labels(train, column, place)


def _one_label(train: Dataset, column: str, place: Place) -> OneLabel:
    """Names are in the order of a ``ClassLabel``, or sorted, as numbers if all are integers."""
    feature = train.features[column]
    if isinstance(feature, ClassLabel):
        return OneLabel(feature.names)
    named = ((row, name) for row, (_, name) in enumerate(_named(train, column)) if name is not None)
    settled = settle(count_spellings(named), column, place)
    labels = OneLabel(_sorted(settled.names), settled.merged)
    labels.notes = (*reading_notes(train[column][:], place), *settled.notes)
    return labels


def _several_labels(train: Dataset, column: str, place: Place) -> SeveralLabels:
    feature = _item_feature(train, column)
    if isinstance(feature, ClassLabel):
        return SeveralLabels(feature.names)
    rows = [
        (row, items) for row, (_, items) in enumerate(_lists(train, column)) if items is not None
    ]
    if feature is None and not rows:
        raise _no_lists(column, f"{train[column][0]!r} ({place(0)})")
    if _are_indicators([items for _, items in rows]):
        raise UserError(
            f"column {column!r} holds lists of {len(rows[0][1])} values that are 0 or 1, one a "
            'label: a list must hold the names of the labels that apply (["red", "round"]); write '
            "these, or a column of 0 and 1 for each label, named by data.label_columns=[...]"
        )
    named = [
        (row, name_of(item, feature))
        for row, items in rows
        for item in items
        if not is_missing(item)
    ]
    if not named:
        raise UserError(f"no row of train has a label in column {column!r}")
    settled = settle(count_spellings(named), column, place)
    labels = SeveralLabels(_sorted(settled.names), settled.merged)
    labels.notes = settled.notes
    return labels


def _are_indicators(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether lists say of each label if it applies, not which do: [0, 1, 1], all of one length.

    Lists of one value may be the names 0 and 1.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or lengths.pop() < 2:
        return False
    return all(item in (0, 1) for row in rows for item in row)  # True and 1.0 too


def _item_feature(dataset: Dataset, column: str) -> Any:
    """The type of a list's items; of lists that are written as texts None."""
    feature = dataset.features[column]
    if isinstance(feature, (List, LargeList)):
        return feature.feature
    if isinstance(feature, Value) and feature.dtype in ("string", "large_string"):
        return None
    raise _no_lists(column, str(feature))


def _no_lists(column: str, held: str) -> UserError:
    return UserError(
        f"column {column!r} must hold a list of labels a row for data.problem_type="
        f"multi_label_classification; it holds {held}. In a csv a list is a text such as "
        '["red", "round"]; labels in columns of 0 and 1 are named by data.label_columns=[...]'
    )


def _lists(dataset: Dataset, column: str) -> Iterator[tuple[Any, list[Any] | None]]:
    """Each value of a column of lists, and the list; None where a text is none."""
    for value in dataset[column][:]:
        yield value, written_list(value) if isinstance(value, str) else value


def _named(dataset: Dataset, column: str) -> Iterator[tuple[Any, str | None]]:
    """Each value of a column of single labels with its label's name; None without a label.

    The number -1 stands for none in a ``ClassLabel``, and where no row has another label; beside
    others it is a label as in {-1, 1}.
    """
    feature, values = dataset.features[column], dataset[column][:]
    withheld = isinstance(feature, ClassLabel) or all(value in (None, -1) for value in values)
    for value in values:
        absent = is_missing(value) or (withheld and value == -1)
        yield value, None if absent else name_of(value, feature)


def _sorted(names: frozenset[str]) -> tuple[str, ...]:
    integers = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int) if integers else sorted(names))
