"""Your own files in every shape: what the label column holds, splits, duplicates, folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, Dataset, Features, List
from PIL import Image

from hfbench.config import DataConfig
from hfbench.data.files import load_local
from hfbench.data.labels import LabelColumns, Number, SeveralLabels, find_labels
from hfbench.data.splits import describe, load_splits
from hfbench.errors import UserError

# ---- what the label column holds


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["a", "b"], None, "single_label_classification"),
        (["1", "2"], None, "single_label_classification"),
        (["1.0", "2.0"], None, "single_label_classification"),
        (["1.5", "2", ""], None, "regression"),
        ([1.5, 2.0, None], None, "regression"),
        ([[], ["a"]], None, "multi_label_classification"),
        ([["a"], None], None, "multi_label_classification"),
    ],
)
def test_the_problem_is_seen_where_it_is_beyond_doubt(
    values: list[Any], kind: Any, expected: str
) -> None:
    dataset = Dataset.from_dict({"y": values})
    assert find_labels(dataset, "y", DataConfig()).problem_type == expected


def test_whole_numbers_as_floats_are_asked_for() -> None:
    dataset = Dataset.from_dict({"y": [1.0, 2.0, 2.0]})
    with pytest.raises(UserError, match=r"whole numbers as float64.*data.problem_type"):
        find_labels(dataset, "y", DataConfig())
    single = find_labels(dataset, "y", DataConfig(problem_type="single_label_classification"))
    assert single.names == ("1", "2")
    assert single.encode(dataset, "y")[0].tolist() == [0, 1, 1]
    number = find_labels(dataset, "y", DataConfig(problem_type="regression"))
    assert number.encode(dataset, "y")[0].tolist() == [1, 2, 2]


def test_lists_become_zeros_and_ones() -> None:
    train = Dataset.from_dict({"y": [["b", "a"], [], ["c"], None, ["b", "d"]]})
    assert find_labels(train, "y", DataConfig()).names == ("a", "b", "c", "d")
    labels, problems = SeveralLabels(("a", "b", "c")).encode(train, "y")
    assert labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert problems == {
        3: "no list of labels (y=None)",
        4: "the label 'd' (column 'y'), which train lacks",
    }
    typed = Features({"y": List(ClassLabel(names=["x", "y", "z"]))})
    dataset = Dataset.from_dict({"y": [[2, 0], [1]]}, features=typed)
    found = find_labels(dataset, "y", DataConfig())
    assert found.names == ("x", "y", "z")
    assert found.encode(dataset, "y")[0].tolist() == [[1, 0, 1], [0, 1, 0]]


def test_columns_of_zeros_and_ones_become_labels() -> None:
    dataset = Dataset.from_dict({"a": ["1", "0", "2"], "b": ["0", "1", "1"]})
    labels, problems = LabelColumns(("a", "b")).encode(dataset, "a")
    assert labels.tolist()[:2] == [[1, 0], [0, 1]]
    assert problems == {2: "neither 0 nor 1 (a='2')"}
    flags = Dataset.from_dict({"a": [True, False], "b": [1, 0]})
    assert LabelColumns(("a", "b")).encode(flags, "a")[0].tolist() == [[1, 1], [0, 0]]


def test_what_is_no_number_is_named() -> None:
    dataset = Dataset.from_dict({"y": ["1.5", "many", "", "inf", "-2"]})
    labels, problems = Number(("y",)).encode(dataset, "y")
    assert (labels[0], labels[4]) == (1.5, -2)
    assert problems == {1: "no number (y='many')", 2: "no number (y='')", 3: "no number (y='inf')"}


# ---- splits and duplicates


def test_splits_of_several_labels_have_the_rare_ones_too(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "labels": ["often"] * (i % 4 != 0)} for i in range(180)]
    rows += [{"text": f"r {i}", "labels": ["often", "rare"]} for i in range(20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    splits = load_splits(DataConfig(source=str(path)), "text")
    assert splits.label_names == ("often", "rare")
    # of 20 samples a tenth of 45 without a label, of 155 with the frequent and 20 with the rare one
    for split in (splits.test, splits.validation):
        labels = np.array(split["labels"][:])
        assert labels[:, 1].sum() == 2
        assert labels[:, 0].sum() in (15, 16)
        assert (labels.sum(axis=1) == 0).sum() in (4, 5)
    assert "stratified by labels, the rarest first" in describe(splits.summary)
    assert "2 labels of which several may apply: often, rare" in describe(splits.summary)


def test_splits_of_numbers_have_the_same_distribution(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"t {i},{i / 2}" for i in range(200)]
    path.write_text("\n".join(["text,label", *lines]))
    splits = load_splits(DataConfig(source=str(path)), "text")
    for split in (splits.validation, splits.test):
        tenths = np.histogram(split["labels"][:], bins=10, range=(0, 100))[0]
        assert len(split) == 20
        assert tenths.min() >= 1
    train = np.array(splits.train["labels"][:])
    assert splits.summary["targets"]["mean"] == pytest.approx(train.mean())
    assert splits.summary["targets"]["std"] == pytest.approx(train.std())
    assert "regression, numbers of train from" in describe(splits.summary)


def test_texts_in_two_splits_are_counted_and_named(tmp_path: Path) -> None:
    rows = {
        "train": ["one a", "two b", "three a", "four b"],
        "validation": ["five a", " two b"],
        "test": ["six a", "two  b", "one a", "five a", "one b"],
    }
    for split, lines in rows.items():
        table = ["text,label", *(f"{line[:-2]} ,{line[-1]}" for line in lines)]
        (tmp_path / f"{split}.csv").write_text("\n".join(table))
    summary = load_splits(DataConfig(source=str(tmp_path)), "text").summary
    # "two " with one more space at its end is the same text, whatever its label
    assert summary["duplicates"] == [
        {
            "split": "validation",
            "of": "train",
            "count": 1,
            "examples": [["validation row 1", "train row 1"]],
        },
        {
            "split": "test",
            "of": "train",
            "count": 3,
            "examples": [
                ["test row 1", "train row 1"],
                ["test row 2", "train row 0"],
                ["test row 4", "train row 0"],
            ],
        },
        {
            "split": "test",
            "of": "validation",
            "count": 2,
            "examples": [
                ["test row 1", "validation row 1"],
                ["test row 3", "validation row 0"],
            ],
        },
    ]
    note = "samples of test with the input of one of train: 3, for instance test row 1 as train row"
    assert any(text.startswith(note) for text in summary["notes"])


def test_images_in_two_splits_are_equal_as_bytes(images: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("dark", "light"):
            (tmp_path / split / label).mkdir(parents=True)
    for index in range(20):
        for label in ("dark", "light"):
            content = (images / label / f"{index}.png").read_bytes()
            (tmp_path / "train" / label / f"{index}.png").write_bytes(content)
    (tmp_path / "test/light/copy.png").write_bytes((images / "light/3.png").read_bytes())
    pixels = np.asarray(Image.open(images / "dark/3.png"))
    Image.fromarray(pixels).save(tmp_path / "test/dark/again.png", compress_level=1)
    summary = load_splits(DataConfig(source=str(tmp_path)), "image").summary
    (found,) = summary["duplicates"]
    assert (found["split"], found["of"], found["count"]) == ("test", "train", 1)
    # rows in the order of the paths: 20 dark ones, then 0, 1, 10 to 19, 2, 3
    assert found["examples"] == [["test row 1", "train row 33"]]


# ---- folders


def write_media(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        soundfile.write(path, np.zeros(160), 16000)
    else:
        Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize(("kind", "suffix"), [("image", "png"), ("audio", "wav")])
def test_metadata_name_the_files_of_a_folder(tmp_path: Path, kind: str, suffix: str) -> None:
    names = [f"sub/{i}.{suffix}" for i in range(4)]
    for name in names:
        write_media(tmp_path / name)
    lines = ["file_name,mood", *(f"{name},{'ab'[i % 2]}" for i, name in enumerate(names))]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    found = load_local(tmp_path).splits
    assert list(found) == ["train"]
    assert found["train"]["mood"][:] == ["a", "b", "a", "b"]
    assert found["train"][kind][:] == [str(tmp_path / name) for name in names]


def test_metadata_of_each_split_and_of_all_give_the_same(tmp_path: Path) -> None:
    counts = {"train": 6, "validation": 2, "test": 2}
    whole = []
    for split, count in counts.items():
        rows = [{"file_name": f"{i}.png", "label": i % 2 + 0.5} for i in range(count)]
        for row in rows:
            write_media(tmp_path / "each" / split / row["file_name"])
            write_media(tmp_path / "all" / split / row["file_name"])
            whole.append(row | {"file_name": f"{split}/{row['file_name']}"})
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / "each" / split / "metadata.jsonl").write_text(lines)
    (tmp_path / "all/metadata.jsonl").write_text("\n".join(map(json.dumps, whole)))
    for folder in ("each", "all"):
        splits = load_splits(DataConfig(source=str(tmp_path / folder)), "image")
        assert {split: len(getattr(splits, split)) for split in counts} == counts
        assert splits.problem_type == "regression"
        assert splits.test["image"][1] == str(tmp_path / folder / "test/1.png")


def test_metadata_that_miss_something_are_errors(tmp_path: Path) -> None:
    write_media(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file,label\na.png,x\n")
    with pytest.raises(UserError, match=r"needs a column file_name.*it has: file, label"):
        load_local(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,label\na.txt,x\n")
    with pytest.raises(UserError, match="holds no images"):
        load_local(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"metadata.csv and metadata.jsonl: keep one"):
        load_local(tmp_path)


def test_class_folders_of_texts(tmp_path: Path) -> None:
    for split, label, name, text in (
        ("train", "neg", "1.txt", "bad\nfilm"),
        ("train", "pos", "2.txt", "good film"),
        ("test", "pos", "1.txt", "great"),
    ):
        (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / split / label / name).write_text(text)
    found = load_local(tmp_path).splits
    assert found["train"]["text"][:] == ["bad\nfilm", "good film"]
    assert found["train"]["label"][:] == ["neg", "pos"]
    assert found["test"]["text"][:] == ["great"]
    (tmp_path / "test/pos/1.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"1.txt', line 1: byte 4, 0xe9, is no UTF-8"):
        load_local(tmp_path)
