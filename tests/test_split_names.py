"""Splits by the names that people give to folders and files."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from hfbench.config import DataConfig
from hfbench.data.carving import choose_splits
from hfbench.data.files import load_local
from hfbench.data.split_names import split_name
from hfbench.data.splits import load_splits
from hfbench.errors import UserError


def write_images(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name)


def write_classes(root: Path, *splits: str) -> None:
    """Two classes of two images each in every split."""
    names = [f"{s}/{c}/{i}.png" for s in splits for c in ("cat", "dog") for i in "ab"]
    write_images(root, *names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", ("train", "")),
        ("Training", ("train", "")),
        ("TRAIN_SET", ("train", "")),
        ("training-data", ("train", "")),
        ("TrainSet", ("train", "")),
        ("trainset", ("train", "")),
        ("Test Images", ("test", "")),
        ("Testing", ("test", "")),
        ("Valid", ("validation", "")),
        ("val", ("validation", "")),
        ("dev", ("validation", "")),
        ("eval", ("validation", "")),
        ("测试集", ("test", "")),
        ("seg_train", ("train", "seg")),
        ("val2017", ("validation", "2017")),
        ("trainA", ("train", "a")),
        ("train_test", None),
        ("trains", None),
        ("Testament", None),
        ("value", None),
        ("cat", None),
    ],
)
def test_names_of_splits(name: str, expected: tuple[str, str] | None) -> None:
    found = split_name(name)
    assert (found and (found.role, found.rest)) == expected


@pytest.mark.parametrize(
    ("folders", "roles"),
    [
        (("Training", "Testing"), {"train": "Training", "test": "Testing"}),
        (
            ("Train", "Test", "Valid"),
            {"train": "Train", "validation": "Valid", "test": "Test"},
        ),
        (("training_set", "test_set"), {"train": "training_set", "test": "test_set"}),
        (("seg_train", "seg_test"), {"train": "seg_train", "test": "seg_test"}),
        (("data/Train", "data/val"), {"train": "Train", "validation": "val"}),
        (("archive/set/train", "archive/set/test"), {"train": "train", "test": "test"}),
    ],
)
def test_folders_are_splits_whatever_the_spelling(
    tmp_path: Path, folders: tuple[str, ...], roles: dict[str, str]
) -> None:
    write_classes(tmp_path, *folders)
    splits = load_local(tmp_path).splits
    assert choose_splits(DataConfig(source="x"), list(splits)) == roles
    assert set(splits) == set(roles.values())
    for rows in splits.values():
        assert rows["label"][:] == ["cat", "cat", "dog", "dog"]


def test_a_split_keeps_its_name_on_the_disk(tmp_path: Path) -> None:
    write_classes(tmp_path, "Training", "Testing")
    swapped = DataConfig(source=str(tmp_path), train_split="Testing", test_split="Training")
    data = dataclasses.replace(swapped, validation_fraction=0.5)
    assert "Training" in load_splits(data, "image").test["image"][0]
    with pytest.raises(UserError, match=r"data.test_split='test'.*its splits are: Testing, Train"):
        load_splits(DataConfig(source=str(tmp_path), test_split="test"), "image")


@pytest.mark.parametrize(
    ("available", "chosen"),
    [
        (["train", "dev", "validation", "test"], ("train", "validation", "test")),
        (["Train", "Eval"], ("Train", "Eval", None)),
        (["seg_train", "seg_test"], ("seg_train", None, "seg_test")),
        (["train", "test_mismatched"], ("train", None, None)),
        (["train", "Training", "test"], ("train", None, "test")),
    ],
)
def test_roles_of_splits(available: list[str], chosen: tuple[str | None, ...]) -> None:
    found = choose_splits(DataConfig(source="x"), available)
    assert tuple(found.get(role) for role in ("train", "validation", "test")) == chosen


def test_no_train_split_among_several_is_an_error() -> None:
    with pytest.raises(UserError, match=r"'train' is not in 'x'; its splits are: train_a, train_b"):
        choose_splits(DataConfig(source="x"), ["train_a", "train_b", "test"])


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("train/cat/a.png", "extra/b.png"), "extra"),
        (("Training/cat/a.png", "Testing/cat/a.png", "unlabeled/b.png"), "unlabeled"),
        (("seg_train/cat/a.png", "seg_test/cat/a.png", "seg_pred/b.png"), "seg_pred"),
        (("train/a.png", "bus/a.png", "car/a.png"), "bus, car"),
        (("Test/a.png", "Control/a.png"), "Control"),
        (("trainA/a.png", "testA/a.png", "trainB/a.png", "testB/a.png"), "trainB"),
    ],
)
def test_a_folder_that_is_neither_split_nor_class_is_named(
    tmp_path: Path, files: tuple[str, ...], named: str
) -> None:
    write_images(tmp_path, *files)
    with pytest.raises(UserError, match=rf"{named}.*neither a split nor a class. Move"):
        load_local(tmp_path)


def test_a_split_with_a_number_is_no_split_of_its_own(tmp_path: Path) -> None:
    write_classes(tmp_path, "train", "Test2")
    with pytest.raises(UserError, match="Test2, with files as well, which is neither a split"):
        load_local(tmp_path)


def test_folders_of_other_files_are_counted(tmp_path: Path) -> None:
    write_classes(tmp_path, "Train", "Test")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/readme.md").write_text("x")
    source = load_local(tmp_path)
    assert list(source.tables) == ["Test", "Train"]
    assert source.notes == (
        "files that are not used, as they are no images: 1 (1 .md; the first: docs/readme.md)",
    )


def test_classes_may_be_called_like_a_part_of_a_split(tmp_path: Path) -> None:
    write_images(tmp_path, "train_station/a.png", "bus_station/a.png", "blood_test/a.png")
    rows = load_local(tmp_path).splits["train"]
    assert rows["label"][:] == ["blood_test", "bus_station", "train_station"]


def test_splits_inside_of_classes_are_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, "cat/train/a.png", "cat/test/b.png", "dog/train/a.png")
    with pytest.raises(UserError, match=r"cat' holds the splits test, train: put .*outside"):
        load_local(tmp_path)


def test_images_of_a_split_without_classes_are_an_error(tmp_path: Path) -> None:
    write_classes(tmp_path, "train")
    write_images(tmp_path, "test/a.png", "test/b.png")
    with pytest.raises(UserError, match=r"test' holds 2 images and no folders of classes"):
        load_local(tmp_path)


# ---- tables


def write_table(path: Path, rows: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{path.stem} words {i},{'ab'[i % 2]}" for i in range(rows)]
    path.write_text("\n".join(["text,label", *lines]))


@pytest.mark.parametrize(
    "names",
    [
        ("Train.csv", "Valid.csv", "Test.csv"),
        ("data/TRAINING.csv", "data/Dev.csv", "data/testing.csv"),
        ("twitter_training.csv", "twitter_validation.csv", "twitter_test.csv"),
    ],
)
def test_tables_are_splits_whatever_the_spelling(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, rows in zip(names, (20, 6, 4), strict=True):
        write_table(tmp_path / name, rows)
    splits = load_splits(DataConfig(source=str(tmp_path)), "text")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [20, 6, 4]


def test_parts_of_one_table_are_one_split(tmp_path: Path) -> None:
    for name in (
        "train-00000-of-00002.csv",
        "train-00001-of-00002.csv",
        "test_1.csv",
        "test_2.csv",
    ):
        write_table(tmp_path / name, 3)
    source = load_local(tmp_path)
    assert {name: len(rows) for name, rows in source.splits.items()} == {"test": 6, "train": 6}
    place = source.tables["train"].place
    assert place is not None
    assert place(4) == f"{tmp_path / 'train-00001-of-00002.csv'}, line 3"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("train.csv", "train.jsonl"),
            "several tables for the split train: train.csv, train.jsonl",
        ),
        (("train.csv", "Training.csv"), "several tables for the split train"),
        (("train.csv", "train_extra.csv"), "several tables for the split train"),
        (("train.csv", "test.csv", "test_labels.csv"), "for the split test: test.csv, test_labels"),
        (
            ("train.csv", "train-1.csv"),
            "several tables for the split train: train-1.csv, train.csv",
        ),
        (("train-00000-of-00003.csv",), "1 of 3 files of the split train"),
    ],
)
def test_several_tables_for_one_split_are_an_error(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    for name in names:
        write_table(tmp_path / name)
    with pytest.raises(UserError, match=message):
        load_local(tmp_path)


def test_tables_that_are_no_split_are_named(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv")
    write_table(tmp_path / "sample_submission.csv")
    write_images(tmp_path, "images/a.png")
    assert load_local(tmp_path).notes == (
        "files that are not used, as their names are no split's: 1 (1 .csv; the first: "
        "sample_submission.csv)",
        "files that are not used, as no column of the tables names them: 1 (1 .png; the first: "
        "images/a.png)",
    )


def test_files_that_a_column_names_are_used(tmp_path: Path) -> None:
    write_images(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    (tmp_path / "train.csv").write_text("image,label\nimages/a.png,x\n./images/b.png,y\n")
    (note,) = load_local(tmp_path).notes
    assert note.endswith("names them: 1 (1 .png; the first: images/c.png)")


def test_first_folders_of_metadata_are_splits_whatever_the_spelling(tmp_path: Path) -> None:
    names = [f"Training/{i}.png" for i in range(6)] + ["Testing/0.png", "Testing/1.png"]
    write_images(tmp_path, *names)
    lines = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(names)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    source = load_local(tmp_path)
    assert {name: len(rows) for name, rows in source.splits.items()} == {
        "Training": 6,
        "Testing": 2,
    }
    place = source.tables["Testing"].place
    assert place is not None
    assert place(1) == f"{tmp_path / 'metadata.csv'}, line 9"
