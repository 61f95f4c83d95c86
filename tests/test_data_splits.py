"""Columns, labels and splits."""

import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hfbench.config import DataConfig, load_config
from hfbench.data.columns import Columns, Modality, detect_columns
from hfbench.data.labels import OneLabel, find_labels
from hfbench.data.rows import Source
from hfbench.data.splits import describe, fingerprint, load_splits
from hfbench.errors import UserError


def columns_of(columns: dict[str, list], modality: Modality = "text", **data: str) -> Columns:
    return detect_columns(Dataset.from_dict(columns), DataConfig(**data), modality)


def label_names(train: Dataset, column: str) -> tuple[str, ...]:
    return find_labels(train, column, DataConfig()).names


def write_csv(path: Path, rows: int = 20, labels: str = "ab", header: str = "text,label") -> Path:
    lines = [f"words {i},{labels[i % len(labels)]}" for i in range(rows)]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


# ---- columns


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text": ["a"], "label": [0]}, Columns("text", "label")),
        ({"Review": ["a"], "sentiment": ["+"], "id": ["x"]}, Columns("Review", "sentiment")),
        ({"whatever": ["a"], "intent": ["x"]}, Columns("whatever", "intent")),
        (
            {"premise": ["a"], "hypothesis": ["b"], "label": [0]},
            Columns("premise", "label", "hypothesis"),
        ),
        (
            {"sentence1": ["a"], "sentence2": ["b"], "label": [0], "idx": [3]},
            Columns("sentence1", "label", "sentence2"),
        ),
    ],
)
def test_text_columns_are_found_by_name(columns: dict[str, list], expected: Columns) -> None:
    assert columns_of(columns) == expected


def test_a_class_label_is_found_by_its_type_whatever_its_name() -> None:
    features = Features({"text": Value("string"), "fine": ClassLabel(names=["x", "y"])})
    dataset = Dataset.from_dict({"text": ["a"], "fine": [1]}, features=features)
    assert detect_columns(dataset, DataConfig(), "text") == Columns("text", "fine")
    assert label_names(dataset, "fine") == ("x", "y")


def test_configured_columns_win_and_settle_an_ambiguity() -> None:
    columns = {"text": ["a"], "review": ["b"], "label": [0], "category": [1]}
    with pytest.raises(UserError, match=r"label, category.*data.label_column.*text, review"):
        columns_of(columns)
    with pytest.raises(UserError, match=r"text, review.*data.text_column"):
        columns_of(columns, label_column="label")
    found = columns_of(columns, label_column="category", text_column="review")
    assert found == Columns("review", "category")


def test_paths_of_images_are_no_texts(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    with pytest.raises(UserError, match=r"'image' holds files such as .*a\.png.*reads texts"):
        columns_of({"image": [str(picture)], "label": ["a"]})
    with pytest.raises(UserError, match="'text' holds files such as"):
        columns_of({"text": [str(picture)], "label": ["a"]})
    assert columns_of({"image": ["seen in a.png"], "label": ["a"]}) == Columns("image", "label")
    named = {"image": [str(picture)], "caption": ["a cat"], "label": ["a"]}
    assert columns_of(named, text_column="caption") == Columns("caption", "label")


def test_an_unknown_column_is_an_error_that_lists_the_columns() -> None:
    with pytest.raises(UserError, match=r"data.text_column='txet' .*text, label"):
        columns_of({"text": ["a"], "label": [0]}, text_column="txet")
    with pytest.raises(UserError, match=r"none is recognised: set data.audio_column.*text, label"):
        columns_of({"text": ["a"], "label": [0]}, "audio")


# ---- labels


def test_label_names_are_sorted_as_numbers_when_all_are_integers() -> None:
    assert label_names(Dataset.from_dict({"y": ["10", "9", "0"]}), "y") == ("0", "9", "10")
    assert label_names(Dataset.from_dict({"y": ["10", "9", "b"]}), "y") == ("10", "9", "b")
    assert label_names(Dataset.from_dict({"y": [10, 9]}), "y") == ("9", "10")


def test_labels_become_positions_in_the_names() -> None:
    dataset = Dataset.from_dict({"y": ["no", "yes", "no"]})
    labels, problems = OneLabel(("no", "yes")).encode(dataset, "y")
    assert (labels.tolist(), problems) == ([0, 1, 0], {})


@pytest.mark.parametrize(
    ("values", "kind", "rows"),
    [
        ([0, None], Value("int64"), [1]),
        (["0", ""], Value("string"), [1]),
        ([0, -1], ClassLabel(names=["0", "1"]), [1]),
        ([-1, -1], Value("int64"), [0, 1]),
    ],
)
def test_a_withheld_label_is_none(values: list, kind: Value | ClassLabel, rows: list[int]) -> None:
    dataset = Dataset.from_dict({"y": values}, features=Features({"y": kind}))
    _, problems = OneLabel(("0", "1")).encode(dataset, "y")
    assert problems == {row: f"no label (y={values[row]!r})" for row in rows}


def test_a_split_without_any_label_is_an_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv")
    write_csv(tmp_path / "test.csv", labels=" ")
    with pytest.raises(UserError, match=r"'test' has no row with a label .*data.test_split"):
        load_splits(DataConfig(source=str(tmp_path)), "text")


def test_minus_one_beside_other_whole_numbers_is_a_label() -> None:
    dataset = Dataset.from_dict({"y": [1, -1, 1]})
    assert label_names(dataset, "y") == ("-1", "1")
    assert OneLabel(("-1", "1")).encode(dataset, "y")[0].tolist() == [1, 0, 1]


def test_a_digit_that_is_no_number_is_a_word() -> None:
    assert label_names(Dataset.from_dict({"y": ["²", "10", "9"]}), "y") == ("10", "9", "²")


def test_lists_are_no_single_labels() -> None:
    with pytest.raises(UserError, match="one label a row"):
        OneLabel(("0",)).encode(Dataset.from_dict({"y": [[1, 2]]}), "y")


# ---- splits


def test_missing_splits_are_taken_from_train_the_same_every_time(tmp_path: Path) -> None:
    data = DataConfig(source=str(write_csv(tmp_path / "all.csv", rows=100)), test_fraction=0.2)
    first, second = load_splits(data, "text"), load_splits(data, "text")
    assert [len(s) for s in (first.train, first.validation, first.test)] == [70, 10, 20]
    assert sum(first.test["labels"]) == 10  # half of each label
    texts = [*first.train["text"], *first.validation["text"], *first.test["text"]]
    assert len(set(texts)) == 100
    assert list(second.test["text"]) == list(first.test["text"])
    assert second.summary == first.summary
    assert "no test split: 20 samples were taken" in describe(first.summary)


def test_a_folder_of_tables_is_split_by_file_name(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", rows=20)
    write_csv(tmp_path / "dev.csv", rows=4)
    rows = [{"text": "w", "label": "a"}, {"text": "v", "label": "b"}]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    splits = load_splits(DataConfig(source=str(tmp_path)), "text")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [20, 4, 2]
    assert [note for note in splits.summary["notes"] if note.startswith("no ")] == []


def test_a_split_used_as_test_is_not_used_for_validation_too(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", rows=40)
    write_csv(tmp_path / "validation.csv", rows=4)
    splits = load_splits(DataConfig(source=str(tmp_path), test_split="validation"), "text")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [36, 4, 4]
    assert set(splits.validation["text"]).isdisjoint(splits.train["text"])
    twice = DataConfig(source=str(tmp_path), test_split="validation", validation_split="validation")
    with pytest.raises(UserError, match="used twice"):
        load_splits(twice, "text")


def test_other_column_names_in_another_split_are_mapped_and_noted(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", header="sentence,label")
    write_csv(tmp_path / "test.csv", header="content,label")
    splits = load_splits(DataConfig(source=str(tmp_path)), "text")
    assert splits.test.column_names == ["text", "labels"]
    assert (
        splits.summary["notes"][0] == "in split 'test' the column 'content' is read as 'sentence'"
    )
    write_csv(tmp_path / "test.csv", header="a,b")
    with pytest.raises(UserError, match=r"split 'test' lacks the columns label, sentence"):
        load_splits(DataConfig(source=str(tmp_path)), "text")


def test_a_label_that_train_lacks_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", labels="ab")
    write_csv(tmp_path / "test.csv", labels="abc")
    with pytest.raises(
        UserError,
        match=r"test row 2 \(.*test.csv, line 4\): the label 'c' \(column 'label'\), which",
    ):
        load_splits(DataConfig(source=str(tmp_path)), "text")


def test_empty_splits_and_single_labels_are_errors(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv")
    write_csv(tmp_path / "test.csv", rows=0)
    with pytest.raises(UserError, match=r"split 'test' of .* is empty"):
        load_splits(DataConfig(source=str(tmp_path)), "text")
    single = write_csv(tmp_path / "single.csv", labels="a")
    with pytest.raises(UserError, match="single label"):
        load_splits(DataConfig(source=str(single)), "text")
    few = write_csv(tmp_path / "few.csv", rows=4)
    with pytest.raises(UserError, match=r"too few .* raise data.test_fraction"):
        load_splits(DataConfig(source=str(few)), "text")


def test_an_unknown_split_is_an_error_that_lists_them(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv")
    with pytest.raises(UserError, match=r"data.test_split='tset'.*splits are: train"):
        load_splits(DataConfig(source=str(tmp_path), test_split="tset"), "text")


def test_limits_keep_a_random_subset_and_all_label_names(tmp_path: Path) -> None:
    source = str(write_csv(tmp_path / "all.csv", rows=100))
    data = DataConfig(source=source, max_train_samples=7, max_eval_samples=5)
    splits = load_splits(data, "text")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [7, 5, 5]
    assert splits.label_names == ("a", "b")
    assert {"a", "b"} == {splits.label_names[label] for label in splits.train["labels"]}


def test_the_fingerprint_follows_the_contents() -> None:
    def of(text: str) -> str:
        one = Dataset.from_dict({"text": [text], "labels": [0]})
        return fingerprint({"train": one, "validation": one, "test": one})

    assert of("a") == of("a") != of("b")
    assert of("/" + "a" * 5000) != of("b")  # a text, too long to be asked for as a file


@pytest.mark.parametrize("extra", [("extra",), ("test_mismatched", "unsupervised"), ()])
def test_splits_that_nothing_reads_are_named(
    extra: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Dataset.from_dict({"text": [f"words {i}" for i in range(40)], "label": 20 * ["x", "y"]})
    splits = dict.fromkeys(("train", "test", *extra), rows)
    monkeypatch.setattr("hfbench.data.splits.load_source", lambda _: Source.of(splits))
    notes = load_splits(DataConfig(source="a/b"), "text").summary["notes"]
    said = [note for note in notes if note.startswith("no use is made of")]
    assert len(said) == (1 if extra else 0)
    for note in said:
        assert note.startswith(f"no use is made of {', '.join(extra)} among the splits of 'a/b'")
        assert "(train = train, test = test)" in note


def test_a_recipes_file_reads_the_own_test_split_of_another_source(tmp_path: Path) -> None:
    """The file says ``name: sst2, test_split: validation`` of GLUE."""
    for split, rows in (("train", 40), ("validation", 10), ("test", 6)):
        write_csv(tmp_path / f"{split}.csv", rows)
    file = Path(__file__).parents[1] / "recipes/configs/bert_base_sst2.yaml"
    data = load_splits(load_config(file, [f"data.source={tmp_path}"]).data, "text")
    assert [len(data.train), len(data.validation), len(data.test)] == [40, 10, 6]
