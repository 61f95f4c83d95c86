"""What a label column is taken for, and what is said of it before training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hfbench.config import DataConfig
from hfbench.data.label_values import written_list
from hfbench.data.labels import Labels, find_labels
from hfbench.data.splits import describe, load_splits
from hfbench.errors import UserError

SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"


def labels_of(values: list[Any], **settings: Any) -> tuple[Labels, Dataset]:
    rows = Dataset.from_dict({"y": values})
    return find_labels(rows, "y", DataConfig(**settings)), rows


# ---- lists as texts


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('["red", "round"]', ["red", "round"]),
        ("['red', 'round']", ["red", "round"]),
        ("""["it's", 'a "b"']""", ["it's", 'a "b"']),
        (" [] ", []),
        ("[1, 2.5]", [1, 2.5]),
        ("[null]", [None]),
        ("[None, True]", [None, True]),
        ('["a",]', ["a"]),
        ("['red' 'round']", None),  # NumPy's: Python joins the texts to one
        ("[red, round]", None),
        ("[['a'], ['b']]", None),
        ("('a', 'b')", None),
        ("[" * 5000 + "]" * 5000, None),
        ("[open('x')]", None),
        ("red", None),
        ("[PER]", None),
    ],
)
def test_a_list_is_read_as_json_and_python_write_it(text: str, items: list[Any] | None) -> None:
    assert written_list(text) == items


@pytest.mark.parametrize(
    "values",
    [
        ['["red", "round"]', '["round"]', "[]", ""],
        ["['red', 'round']", "['round']", "[]", ""],
        ['["red", "round"]', "['round']", "[]", ""],  # as two programs wrote them
    ],
)
def test_lists_as_texts_are_several_labels(values: list[str]) -> None:
    labels, rows = labels_of(values)
    assert (labels.problem_type, labels.names) == (SEVERAL, ("red", "round"))
    encoded, problems = labels.encode(rows, "y")
    assert encoded.tolist() == [[1, 1], [0, 1], [0, 0], [0, 0]]
    assert problems == {3: "no list of labels (y='')"}
    assert "written as text; data.problem_type=single_label_classification" in labels.reason
    texts, _ = labels_of(values, problem_type=SINGLE)
    assert values[0] in texts.names


def test_lists_in_a_csv_train_several_labels(tmp_path: Path) -> None:
    rows = [f"""text {i},"['a', 'b{i % 2}']\"""" for i in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]))
    splits = load_splits(DataConfig(source=str(tmp_path / "a.csv")), "text")
    assert splits.label_names == ("a", "b0", "b1")
    assert np.array(splits.train["labels"][:]).sum(axis=1).tolist() == [2] * 32
    assert "labels: several a row, or none, because each value is a list" in describe(
        splits.summary
    )
    assert splits.summary["label_kind"].startswith("several a row")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (['["a"]', "b"], r"holds the list \[\"a\"\] \(row 0\) and 'b' \(row 1\)"),
        (["['a' 'b']", "['b']"], r"holds the list \['b'\] \(row 1\) and .*'b'\]\" \(row 0\)"),
        (["['a' 'b']", "['b' 'a']"], "looks like a list and cannot"),
        (["[a, b]", "[b]"], r"looks like a list and cannot be read as one: .*quotes and commas"),
        (["[0, 1, 1]", "[1, 0, 0]"], "0 or 1, one a label"),
    ],
)
def test_what_may_be_a_list_is_asked_for(values: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        labels_of(values)


def test_a_text_that_is_no_list_is_a_bad_row_where_lists_are_asked_for() -> None:
    labels, rows = labels_of(['["a", "b"]', "b"], problem_type=SEVERAL)
    assert labels.encode(rows, "y")[1] == {1: "no list of labels (y='b')"}


def test_words_in_brackets_are_words() -> None:
    assert labels_of(["[PER]", "[LOC]"] * 3)[0].names == ("[LOC]", "[PER]")


@pytest.mark.parametrize("separator", [";", "|", ","])
def test_separated_words_are_one_label_and_this_is_said(separator: str) -> None:
    several = f"red{separator} round"
    labels, _ = labels_of(["red", several, "round"])
    assert labels.names == tuple(sorted(["red", several, "round"]))
    assert f"{several!r} (row 1; {separator!r} in 1 row) is one label" in labels.reason
    assert "is one label" not in labels_of([f"red{separator}1", "blue"])[0].reason


# ---- numbers


@pytest.mark.parametrize(
    "values",
    [
        ["3.1", "3.10"] * 3,
        ["3.8", "3.9", "3.10", "3.11"] * 3,
        ["1.0", "1.0.2", "1.1"] * 3,
        ["2.5", "10.0.1", "1.2.3-rc1".replace("-", "")],
    ],
)
def test_versions_are_labels(values: list[str]) -> None:
    labels, rows = labels_of(values)
    assert labels.problem_type == SINGLE
    assert set(labels.names) == set(values)
    assert "versions" in labels.reason
    assert labels.encode(rows, "y")[1] == {}


@pytest.mark.parametrize(
    "values",
    [
        ["0.5", "1.0", "1.5", "2.0"] * 9,  # a decimal each
        ["0.5", "1", "1.25"] * 9,  # none that is superfluous
        ["3.10", "3.11", "12.00", "4"] * 9,  # two each, or none
        ["0.0120", "1.20", "12.5"],  # three significant digits
        ["1e-5", "0.10", "0.2"],
        ["-0.5", "+1.5", "inf"],
    ],
)
def test_numbers_of_one_format_are_a_regression(values: list[str]) -> None:
    labels, _ = labels_of(values)
    assert labels.problem_type == "regression"
    assert labels.reason == (
        "a number to predict (regression), because all values are numbers and some have fractions; "
        "data.problem_type=single_label_classification takes them as labels"
    )


def test_many_numbers_of_several_formats_are_asked_for() -> None:
    values = [f"{i / 10}" for i in range(60)] + ["1.20"]
    with pytest.raises(
        UserError, match=r"several formats, such as '.*0' .*problem_type=regression"
    ):
        labels_of(values)
    assert labels_of(values, problem_type="regression")[0].problem_type == "regression"


def test_numbers_with_some_words_are_asked_for_and_words_with_some_numbers_are_labels() -> None:
    with pytest.raises(UserError, match=r"such as '0\.5', and 'unknown' \(row 2; 1 of 3 values"):
        labels_of(["0.5", "1.5", "unknown"])
    assert labels_of(["0.5", "cat", "dog"])[0].problem_type == SINGLE


def test_decimal_commas_are_no_labels() -> None:
    with pytest.raises(UserError, match=r"'0,5' \(row 0\): numbers need a decimal point"):
        labels_of(["0,5", "1,25", "3"])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["1", "2"], "all values are whole numbers; data.problem_type=regression takes"),
        ([1, 2], "the values are int64; data.problem_type=regression takes"),
        (["a", "b"], "one a row, because the values are words"),
        ([True, False], "the values are bool"),
        ([["a"], []], "several a row, or none: each row is a list"),
    ],
)
def test_what_a_column_is_taken_for_is_said(values: list[Any], reason: str) -> None:
    assert reason in labels_of(values)[0].reason


def test_what_the_settings_say_is_said_as_theirs() -> None:
    labels, _ = labels_of([1, 2], problem_type="regression")
    assert labels.reason == "a number to predict (regression): data.problem_type says so"
