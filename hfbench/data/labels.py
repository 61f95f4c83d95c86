"""What the label column holds: one label a row, several, or a number to predict."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from datasets import ClassLabel, Dataset, LargeList, List, Value

from hfbench.config import DataConfig, ProblemType
from hfbench.data.stratification import Rows, divide_by_labels, divide_by_strata
from hfbench.errors import UserError

STRATA = 10  # of a number: samples are split by tenths of its distribution,
STRATUM_SAMPLES = 10  # or by fewer, of at least so many samples
# What stands in a csv for a missing value, as pandas writes or names it. "NA", "None" and "null"
# are not among them: they may be labels (a country, a class of nothing).
_NO_LABEL = ("", "nan", "NaN", "N/A")

Encoded = npt.NDArray[Any]
Problems = dict[int, str]  # row -> what is wrong with its label


class Labels(ABC):
    """How the labels of every split become numbers; ``names`` are those of train.

    Attributes:
        names: of the model's outputs, in their order.
        strata: how ``divide`` chooses, for people.
    """

    problem_type: ClassVar[ProblemType]
    strata: ClassVar[str]

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

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
        numbers = {name: number for number, name in enumerate(self.names)}
        labels = np.zeros(len(dataset), dtype=np.int64)
        problems: Problems = {}
        for row, (value, name) in enumerate(_named(dataset, column)):
            if name is None:
                problems[row] = f"no label ({column}={value!r})"
            elif name not in numbers:
                problems[row] = f"the label {name!r}, which train lacks"
            else:
                labels[row] = numbers[name]
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
        numbers = {name: number for number, name in enumerate(self.names)}
        labels = np.zeros((len(dataset), len(self.names)), dtype=np.float32)
        problems: Problems = {}
        for row, items in enumerate(dataset[column][:]):
            if items is None:
                problems[row] = f"no list of labels ({column}=None)"
                continue
            for item in items:
                name = None if _is_missing(item) else _name(item, feature)
                if name not in numbers:
                    problems[row] = f"the label {name!r}, which train lacks"
                else:
                    labels[row, numbers[name]] = 1
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
    """``labels``: float32, as in the data.

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
        labels = np.zeros(len(dataset), dtype=np.float32)
        problems: Problems = {}
        values = dataset[column][:]
        numbers = [_number(value) for value in values]
        given = {number for number in numbers if number is not None and math.isfinite(number)}
        withheld = given == {-1}
        for row, (value, number) in enumerate(zip(values, numbers, strict=True)):
            if number is None or not math.isfinite(number) or withheld:
                problems[row] = f"no number ({column}={value!r})"
            else:
                labels[row] = number
        return labels, problems

    def divide(self, labels: Encoded, shares: Sequence[float]) -> list[Rows]:
        return divide_by_strata(labels, shares, strata=_quantiles, cover=False)

    def held(self, labels: Encoded) -> tuple[Rows, Rows]:
        return np.arange(0), np.arange(0)

    def described(self, label: Any) -> str:
        return f"{label:g}"


def _quantiles(numbers: Encoded) -> Encoded:
    """(rows,), integers: which part of the distribution a number is in."""
    strata = min(STRATA, max(1, len(numbers) // STRATUM_SAMPLES))
    borders = np.quantile(numbers, np.arange(1, strata) / strata)
    return np.searchsorted(borders, numbers)


def find_labels(train: Dataset, column: str, data: DataConfig) -> Labels:
    """What ``data.problem_type`` says, or else what the column is beyond doubt.

    Lists are several labels, numbers with fractions are a regression, all else is one label.

    Raises UserError for a type that the column does not fit and for floats without a fraction.
    """
    problem = data.problem_type or _detect(train, column, data)
    if data.label_columns:
        return LabelColumns(data.label_columns)
    if problem == "multi_label_classification":
        return SeveralLabels(_list_names(train, column))
    if problem == "regression":
        return Number((column,))
    return OneLabel(label_names(train, column))


def _detect(train: Dataset, column: str, data: DataConfig) -> ProblemType:
    feature = train.features[column]
    if data.label_columns or isinstance(feature, (List, LargeList)):
        return "multi_label_classification"
    if not isinstance(feature, Value):
        return "single_label_classification"
    written = feature.dtype in ("string", "large_string")
    if not written and not feature.dtype.startswith("float"):
        return "single_label_classification"
    given = [value for value in train[column][:] if not _is_missing(value)]
    numbers = [_number(value) for value in given]
    if all(number is not None for number in numbers) and any(
        number is not None and math.isfinite(number) and not number.is_integer()
        for number in numbers
    ):
        return "regression"
    if written:
        return "single_label_classification"
    raise UserError(
        f"column {column!r} holds whole numbers as {feature.dtype}: are they labels or amounts? "
        "Set data.problem_type to single_label_classification or regression"
    )


def label_names(train: Dataset, column: str) -> tuple[str, ...]:
    """Names of the labels; their position is the label's number.

    The order of a ``ClassLabel`` is kept. Other labels are sorted, as numbers if all are integers.
    """
    feature = train.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    return _sorted({name for _, name in _named(train, column) if name is not None})


def _list_names(train: Dataset, column: str) -> tuple[str, ...]:
    feature = _item_feature(train, column)
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    rows = [row for row in train[column][:] if row is not None]
    if _are_indicators(rows):
        raise UserError(
            f"column {column!r} holds lists of {len(rows[0])} values that are 0 or 1, one a label: "
            'a list must hold the names of the labels that apply (["red", "round"]); write these, '
            "or a column of 0 and 1 for each label, named by data.label_columns=[...]"
        )
    names = _sorted({_name(item, feature) for row in rows for item in row if not _is_missing(item)})
    if not names:
        raise UserError(f"no row of train has a label in column {column!r}")
    return names


def _are_indicators(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether lists say of each label if it applies, not which do: [0, 1, 1], all of one length.

    Lists of one value may be the names 0 and 1.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or lengths.pop() < 2:
        return False
    return all(item in (0, 1) for row in rows for item in row)  # True and 1.0 too


def _item_feature(dataset: Dataset, column: str) -> Any:
    feature = dataset.features[column]
    if not isinstance(feature, (List, LargeList)):
        raise UserError(
            f"column {column!r} must hold a list of labels a row for data.problem_type="
            f"multi_label_classification; it holds {feature}. Labels in columns of 0 and 1 are "
            "named by data.label_columns=[...]"
        )
    return feature.feature


def _named(dataset: Dataset, column: str) -> Iterator[tuple[Any, str | None]]:
    """Each value of a column of single labels with its label's name; None without a label.

    The number -1 stands for none in a ``ClassLabel``, and where no row has another label; beside
    others it is a label as in {-1, 1}.
    """
    feature, values = dataset.features[column], dataset[column][:]
    withheld = isinstance(feature, ClassLabel) or all(value in (None, -1) for value in values)
    for value in values:
        absent = _is_missing(value) or (withheld and value == -1)
        yield value, None if absent else _name(value, feature)


def _is_missing(value: Any) -> bool:
    """Whether a value stands for no label."""
    if isinstance(value, str):
        return value.strip() in _NO_LABEL
    return value is None or (isinstance(value, float) and math.isnan(value))


def _name(value: Any, feature: Any) -> str:
    if isinstance(feature, ClassLabel):
        # A number beyond the names is a label that train lacks, under the number itself.
        return str(feature.names[value] if 0 <= value < len(feature.names) else value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.strip() if isinstance(value, str) else str(value)


def _sorted(names: set[str]) -> tuple[str, ...]:
    integers = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int) if integers else sorted(names))


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
