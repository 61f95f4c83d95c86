"""One label written in several ways: merged where that is beyond doubt, noted, or an error."""

import unicodedata
from pathlib import Path

import pytest
from datasets import Dataset

from hfbench.config import DataConfig
from hfbench.data.labels import Labels, find_labels
from hfbench.data.splits import load_splits
from hfbench.errors import UserError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def labels_of(values: list) -> tuple[Labels, Dataset]:
    rows = Dataset.from_dict({"y": values})
    return find_labels(rows, "y", DataConfig()), rows


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["1", "0", "True"], r"'1' \(1 row, the first: row 0\), '0' .*'True' \(1 row.*row 2\)"),
        (["1", "1.0", "True"], r"'1' .*'1\.0' \(1 row, the first: row 1\), 'True'"),
        (["false", "x", "0.0"], r"'false' .*'0\.0'"),
        ([["1"], ["true", "a"]], r"'1' .*row 0.*'true' .*row 1"),
    ],
)
def test_truth_beside_its_numbers_is_an_error_with_rows(values: list, named: str) -> None:
    with pytest.raises(UserError, match=f"writes labels in several ways: .*{named}"):
        labels_of(values)


def test_a_whole_number_with_and_without_a_fraction_is_one_label() -> None:
    labels, rows = labels_of(["1", "0", "1.0", "0", "2"])
    assert labels.names == ("0", "1", "2")
    assert labels.encode(rows, "y")[0].tolist() == [1, 0, 1, 0, 2]
    assert labels.notes == ("labels 1.0 and 1 are one label, 1: whole numbers, 1 row and 1 row",)


def test_another_split_may_write_whole_numbers_in_the_other_way() -> None:
    labels, _ = labels_of(["1", "0"])
    other = Dataset.from_dict({"y": ["1.0", "0.00", "1.5"]})
    encoded, problems = labels.encode(other, "y")
    assert encoded.tolist()[:2] == [1, 0]
    assert problems == {2: "the label '1.5' (column 'y'), which train lacks"}
    labels, _ = labels_of(["1.0", "0.0"])
    assert labels.names == ("0.0", "1.0")
    assert labels.encode(Dataset.from_dict({"y": ["1", "0"]}), "y")[0].tolist() == [1, 0]


def test_a_whole_number_beside_versions_may_be_one_of_them() -> None:
    with pytest.raises(
        UserError, match=r"'1' .*'1\.0' .*beside numbers with fractions or versions"
    ):
        labels_of(["1", "1.0", "1.0.2"])
    labels, _ = labels_of(["1.0", "1.0.2"] * 3)
    assert labels.encode(Dataset.from_dict({"y": ["1"]}), "y")[1] == {
        0: "the label '1' (column 'y'), which train lacks"
    }


@pytest.mark.parametrize(
    "pair", [("Red", "red"), ("a b", "a  b"), ("01", "1"), ("a\u200bb", "ab"), ("\uff21", "a")]
)
def test_labels_that_look_alike_are_two_and_a_note_says_so(pair: tuple[str, str]) -> None:
    labels, _ = labels_of([*pair, "other"])
    assert set(labels.names) == {*pair, "other"}
    (note,) = labels.notes
    for row, name in enumerate(pair):
        assert f"{name!r} (1 row, the first: row {row})" in note


def test_unlike_labels_have_no_note() -> None:
    assert labels_of(["red", "blue", "10", "1", "1st"])[0].notes == ()


def test_white_space_around_labels_is_left_out_and_said() -> None:
    labels, rows = labels_of(["red", " red", "blue\t"])
    assert labels.encode(rows, "y")[0].tolist() == [1, 1, 0]
    assert labels.notes == (
        "labels are read without the white space around them: 2 rows, the first: row 1 (' red')",
    )


def test_unicode_forms_of_a_label_are_one(tmp_path: Path) -> None:
    labels, rows = labels_of([COMPOSED, DECOMPOSED, "tea"])
    assert labels.names == (COMPOSED, "tea")
    assert labels.encode(rows, "y")[0].tolist() == [0, 0, 1]
    (note,) = labels.notes
    assert note.startswith(
        "labels are read without decomposed letters, in Unicode's form NFC: 1 row,"
    )
    for split, form in (("train", "NFD"), ("test", "NFC")):
        lines = [f"{split} {i},{(COMPOSED, 'tea')[i % 2]}" for i in range(20)]
        text = unicodedata.normalize(form, "\n".join(["text,label", *lines]))
        (tmp_path / f"{split}.csv").write_text(text, encoding="utf-8")
    splits = load_splits(DataConfig(source=str(tmp_path)), "text")
    assert splits.label_names == (COMPOSED, "tea")
    assert sum(splits.test["labels"][:]) == 10
    assert any("decomposed letters" in note for note in splits.summary["notes"])


def test_a_label_of_another_split_that_train_writes_otherwise_is_named() -> None:
    labels, _ = labels_of(["red", "blue"])
    problems = labels.encode(Dataset.from_dict({"y": ["Red", "green"]}), "y")[1]
    assert problems == {
        0: "the label 'Red' (column 'y'), which train lacks (it has 'red')",
        1: "the label 'green' (column 'y'), which train lacks",
    }


def test_mixed_types_of_json_and_lines_of_a_csv_are_named(tmp_path: Path) -> None:
    rows = ['{"text": "a", "label": 0}', '{"text": "b", "label": 1.0}']
    for value in ("true", '"1"'):
        mixed = [*rows, f'{{"text": "c", "label": {value}}}']
        (tmp_path / "a.jsonl").write_text("\n".join(mixed))
        with pytest.raises(UserError, match=r"line 3 holds ('1'|True), which does not go with"):
            load_splits(DataConfig(source=str(tmp_path / "a.jsonl")), "text")
    (tmp_path / "a.csv").write_text("text,label\na,1\nb,0\nc,True\n")
    with pytest.raises(UserError, match=r"'True' \(1 row, the first: row 2 \(.*line 4\)\)"):
        load_splits(DataConfig(source=str(tmp_path / "a.csv")), "text")
