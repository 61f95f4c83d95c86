"""Label columns that mislead: withheld numbers, lists of 0 and 1, missing values as words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hfbench.config import DataConfig
from hfbench.data.labels import Number, find_labels
from hfbench.data.splits import load_splits
from hfbench.errors import UserError


def labels_of(values: list[Any]) -> Any:
    """The labels that a column of these values has, and the column."""
    rows = Dataset.from_dict({"label": values})
    return find_labels(rows, "label", DataConfig()), rows


def write_split(folder: Path, split: str, labels: list[Any]) -> None:
    lines = [f"{split} text {number},{label}" for number, label in enumerate(labels)]
    (folder / f"{split}.csv").write_text("\n".join(["text,label", *lines]))


def test_numbers_that_are_all_minus_one_are_withheld_and_one_among_others_is_given(
    tmp_path: Path,
) -> None:
    write_split(tmp_path, "train", [-1.0, 0.25, 3.5, 5.0] * 10)
    write_split(tmp_path, "test", [-1.0, 2.5])
    splits = load_splits(DataConfig(source=str(tmp_path)), "text")
    assert splits.test["labels"][:] == [-1.0, 2.5]
    write_split(tmp_path, "test", [-1.0, "", -1.0])
    with pytest.raises(UserError, match=r"'test' has no row with a label .*often withheld"):
        load_splits(DataConfig(source=str(tmp_path)), "text")


@pytest.mark.parametrize(
    "values", [[[0, 1, 1], [1, 0, 0]], [[True, False], [False, True]], [[0.0, 1.0], None]]
)
def test_lists_of_indicators_are_no_names(values: list[Any]) -> None:
    with pytest.raises(UserError, match=r"0 or 1, one a label.*data.label_columns"):
        labels_of(values)


@pytest.mark.parametrize("values", [[[0, 1], [1]], [[0], [1]], [["0", "1"], ["1", "2"]], [[0, 2]]])
def test_lists_of_numbers_that_differ_in_length_or_value_are_names(values: list[Any]) -> None:
    labels, _ = labels_of(values)
    assert set(labels.names) == {str(item) for row in values for item in row}


def test_words_for_a_missing_value_are_no_label_and_those_that_may_be_one_are() -> None:
    given = ["cat", "nan", "NaN", "N/A", "", " ", None, "NA", "None", "null"]
    labels, rows = labels_of(given)
    assert labels.names == ("NA", "None", "cat", "null")
    encoded, problems = labels.encode(rows, "label")
    assert sorted(problems) == [1, 2, 3, 4, 5, 6]
    assert problems[1] == "no label (label='nan')"
    assert [labels.described(encoded[row]) for row in (0, 7, 8, 9)] == ["cat", "NA", "None", "null"]


def test_a_missing_number_as_a_word_leaves_a_column_a_regression() -> None:
    labels, rows = labels_of(["0.5", "N/A", "2", "nan"])
    encoded, problems = labels.encode(rows, "label")
    assert labels.problem_type == "regression"
    assert sorted(problems) == [1, 3]
    assert encoded[[0, 2]].tolist() == [0.5, 2.0]


@pytest.mark.parametrize("value", [1e39, -1e39, "1e300"])
def test_a_number_too_large_for_float32_is_a_bad_row(value: float | str) -> None:
    rows = Dataset.from_dict({"label": [type(value)(n) for n in ("0.5", value, "3e38")]})
    encoded, problems = Number(("label",)).encode(rows, "label")
    assert problems == {1: f"a number too large for a network's float32 (label={value!r})"}
    assert encoded.dtype == np.float32
    assert np.isfinite(encoded).all()


def test_a_number_too_large_for_float32_is_named_with_its_place(tmp_path: Path) -> None:
    write_split(tmp_path, "train", [0.5, 1.5, 1e39, 2.5])
    with pytest.raises(UserError, match=r"train\.csv, line 4.*too large for a network's float32"):
        load_splits(DataConfig(source=str(tmp_path)), "text")
