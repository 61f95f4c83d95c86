"""What a label column is taken for, by what all of its rows have in common, and why."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, LargeList, List, Value

from hfbench.config import DataConfig, ProblemType
from hfbench.data.label_values import as_number, is_missing, written_list
from hfbench.data.rows import Place
from hfbench.data.spellings import counted_rows
from hfbench.errors import UserError

FEW = 50  # different texts: labels have few, amounts many,
ROWS_EACH = 3  # and each label at least so many rows, on average
SEPARATORS = (";", "|", ",")
LISTS = 'write lists of their names, such as ["red", "round"]'
_VERSION = re.compile(r"v?\d+(\.\d+){2,}\w*")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+(,\d+)?")
_SPELLED = {
    "single_label_classification": "one a row",
    "multi_label_classification": "several a row, or none",
    "regression": "a number to predict (regression)",
}

Written = Sequence[tuple[int, str]]  # rows with a label and its text


@dataclass(frozen=True)
class Kind:
    """``problem_type`` and a line that says why, with the key that changes it."""

    problem_type: ProblemType
    reason: str


def kind_of(train: Dataset, column: str, data: DataConfig, place: Place) -> Kind:
    """What ``data`` say of the column, or else what it is beyond doubt.

    Raises UserError for a column that may be one thing or another.
    """
    if data.label_columns:
        return Kind("multi_label_classification", "several a row, or none: data.label_columns")
    if data.problem_type is not None:
        return Kind(data.problem_type, f"{_SPELLED[data.problem_type]}: data.problem_type says so")
    feature = train.features[column]
    if isinstance(feature, (List, LargeList)):
        return Kind("multi_label_classification", "several a row, or none: each row is a list")
    if not isinstance(feature, Value):
        return Kind("single_label_classification", "one a row: the data name them")
    values = train[column][:]
    if feature.dtype in ("string", "large_string"):
        written = [(row, text.strip()) for row, text in enumerate(values) if not is_missing(text)]
        return _of_texts(written, column, place)
    if not feature.dtype.startswith("float"):
        return _single(f"the values are {feature.dtype}", or_amounts="int" in feature.dtype)
    if any(_has_fraction(value) for value in values):
        return _amount()
    raise UserError(
        f"column {column!r} holds whole numbers as {feature.dtype}: are they labels or amounts? "
        "Set data.problem_type to single_label_classification or regression"
    )


def _of_texts(written: Written, column: str, place: Place) -> Kind:
    if _are_lists(written, column, place):
        return Kind(
            "multi_label_classification",
            "several a row, or none, because each value is a list written as text; "
            "data.problem_type=single_label_classification takes the texts as labels",
        )
    texts = [text for _, text in written]
    if any("," in text for text in texts) and all(map(_DECIMAL_COMMA.fullmatch, texts)):
        raise UserError(
            f"column {column!r} holds {texts[0]!r} ({place(written[0][0])}): numbers need a "
            f"decimal point, and for several labels a row {LISTS}; or set "
            "data.problem_type=single_label_classification to take the texts as labels"
        )
    fractions = [text for text in texts if _has_fraction(as_number(text))]
    words = [(row, text) for row, text in written if as_number(text) is None]
    if not fractions:
        if words or not texts:
            return _single(f"the values are words{_separated(written, place)}")
        return _single("all values are whole numbers", or_amounts=True)
    if words:
        return _of_words_and_fractions(words, fractions, written, column, place)
    if _one_format(texts):
        return _amount()
    if len(set(texts)) <= FEW and ROWS_EACH * len(set(texts)) <= len(texts):
        return _single(
            "the values are few and no numbers of one format (3.9, 3.10), such as versions",
            or_amounts=True,
        )
    raise UserError(
        f"column {column!r} holds numbers of several formats, such as {_oddest(texts)!r} and "
        f"{texts[0]!r}: set data.problem_type=regression if they are amounts, or "
        "single_label_classification if they are names"
    )


def _of_words_and_fractions(
    words: Written, fractions: Sequence[str], written: Written, column: str, place: Place
) -> Kind:
    if all(_VERSION.fullmatch(text) for _, text in words):
        return _single(f"values such as {words[0][1]} are no numbers but versions")
    if 2 * len(fractions) <= len(written):
        return _single(f"the values are words{_separated(written, place)}")
    row, text = words[0]
    raise UserError(
        f"column {column!r} holds numbers with fractions such as {fractions[0]!r}, and {text!r} "
        f"({place(row)}; {len(words):,} of {len(written):,} values are no numbers): set "
        "data.problem_type=regression to predict the numbers (data.max_bad_rows skips the other "
        "rows), or single_label_classification to take all values as labels"
    )


def _are_lists(written: Written, column: str, place: Place) -> bool:
    """Raises UserError where only some are, or where what looks like lists cannot be read."""
    lists = [written_list(text) is not None for _, text in written]
    if all(lists):
        return bool(lists)
    row, text = written[lists.index(False)]
    if any(lists):
        other, listed = written[lists.index(True)]
        raise UserError(
            f"column {column!r} holds the list {listed} ({place(other)}) and {text!r} "
            f"({place(row)}), which is none: {LISTS} in every row; or set "
            "data.problem_type=single_label_classification to take all texts as labels"
        )
    bracketed = all(text.startswith("[") and text.endswith("]") for _, text in written)
    if bracketed and any(mark in text for _, text in written for mark in ",'\""):
        raise UserError(
            f"column {column!r} holds {text!r} ({place(row)}), which looks like a list and cannot "
            f"be read as one: {LISTS} with quotes and commas; or set "
            "data.problem_type=single_label_classification to take the texts as labels"
        )
    return False


def _separated(written: Written, place: Place) -> str:
    """A clause where values share parts between separators; else nothing."""
    for separator in SEPARATORS:
        several = [(row, text) for row, text in written if separator in text]
        parts: dict[str, set[str]] = {}
        for _, text in written:
            for part in text.split(separator):
                parts.setdefault(part.strip(), set()).add(text)
        if any(
            len(parts[part.strip()]) > 1 for _, text in several for part in text.split(separator)
        ):
            row, text = several[0]
            return (
                f"; also {text!r} ({place(row)}; {separator!r} in {counted_rows(len(several))}) is "
                f"one label: for several a row {LISTS}"
            )
    return ""


def _single(why: str, *, or_amounts: bool = False) -> Kind:
    change = "; data.problem_type=regression takes them as amounts" if or_amounts else ""
    return Kind("single_label_classification", f"one a row, because {why}{change}")


def _amount() -> Kind:
    return Kind(
        "regression",
        f"{_SPELLED['regression']}, because all values are numbers and some have fractions; "
        "data.problem_type=single_label_classification takes them as labels",
    )


def _has_fraction(value: Any) -> bool:
    return value is not None and math.isfinite(value) and not float(value).is_integer()


def _one_format(texts: Sequence[str]) -> bool:
    """Whether one way to print numbers gives all texts.

    That is: as many decimals, none that are superfluous, or as many significant digits. 3.9 and
    3.10 are of none.
    """
    if any("e" in text.lower() or "n" in text.lower() for text in texts):  # 1e-5, inf
        return True
    plain = [text.lstrip("+-") for text in texts]
    decimals = [text.partition(".")[2] for text in plain if "." in text]
    digits = {len(text.replace(".", "").lstrip("0")) for text in plain}
    shortest = all(part == "0" or not part.endswith("0") for part in decimals)
    return shortest or len({len(part) for part in decimals}) == 1 or len(digits - {0}) == 1


def _oddest(texts: Sequence[str]) -> str:
    """One that ends in a superfluous 0."""
    return next(text for text in texts if "." in text and text.endswith("0"))
