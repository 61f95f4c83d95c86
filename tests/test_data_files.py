"""Local files of every kind, and the bundled data."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image

from hfbench.config import DataConfig
from hfbench.data.media import decode_image
from hfbench.data.sources import load_bundled
from hfbench.data.splits import load_splits
from hfbench.data.tables import load_table
from hfbench.errors import UserError

# ---- local files


def test_csv_fields_may_be_quoted_and_tsv_quotes_are_characters(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one, two ""x""\nthree",0\nfour,1\n')
    (tmp_path / "a.tsv").write_text('label\ttext\n0\t" one\n1\ttwo\n')
    assert load_table(tmp_path / "a.csv").rows["text"][0] == 'one, two "x"\nthree'
    assert load_table(tmp_path / "a.tsv").rows["text"][0] == '" one'


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "text,label\nx\n", r"line 2: 1 fields, but the first line names 2"),
        ("a.csv", "", "first line"),
        ("a.csv", 'text,label\n"x,0\n', "not a valid csv"),
        ("a.json", "{", "not a valid json"),
        ("a.json", "[1, 2]", "list of objects"),
        ("a.jsonl", '{"a": 1}\n{', "line 2"),
        ("a.parquet", "no", "not a valid parquet"),
        ("a.xlsx", "no", r"'.xlsx' are not read; choose: .csv"),
    ],
)
def test_an_unreadable_table_is_an_error(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=problem):
        load_splits(DataConfig(source=str(tmp_path / name)), "text")


def test_json_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": f"w {i}", "label": i % 2} for i in range(40)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    found = [
        load_splits(DataConfig(source=str(tmp_path / name)), "text").summary["fingerprint"]
        for name in ("a.json", "a.parquet")
    ]
    assert found[0] == found[1]


def test_shards_with_columns_of_different_types_are_an_error(tmp_path: Path) -> None:
    for number, label in enumerate((1, "b")):
        rows = {"text": ["w"], "label": [label]}
        Dataset.from_dict(rows).to_parquet(tmp_path / f"train-{number}.parquet")
    with pytest.raises(
        UserError, match=r"'label' cannot be read: .*int64.* in train-0.parquet and .*string.*same"
    ):
        load_splits(DataConfig(source=str(tmp_path)), "text")


@pytest.mark.parametrize(
    ("value", "kind"),
    [("a.png", Value("string")), ({"bytes": b"x", "path": None}, datasets.Image(decode=False))],
)
def test_a_row_without_an_image_is_named(
    tmp_path: Path, value: str | dict, kind: Value | datasets.Image
) -> None:
    rows = {"image": [value, None] * 20, "label": list("aabb" * 10)}
    typed = Dataset.from_dict(rows).cast(Features({"image": kind, "label": Value("string")}))
    typed.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(
        UserError, match=r"train row 1 \(.*train.parquet, row 1\): no file .*'image' is empty"
    ):
        load_splits(DataConfig(source=str(tmp_path)), "image")


def test_class_folders_of_images_with_and_without_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / f"{i}.png")
    splits = load_splits(DataConfig(source=str(tmp_path)), "image")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [18, 2, 20]
    assert splits.label_names == ("cat", "dog")
    single = load_splits(DataConfig(source=str(tmp_path / "train")), "image")
    assert len(single.train) == 16
    with pytest.raises(UserError, match=r"none is recognised: set data.audio_column"):
        load_splits(DataConfig(source=str(tmp_path)), "audio")


def test_class_folders_of_sounds_and_tables_with_relative_paths(tmp_path: Path) -> None:
    lines = ["audio,label"]
    for label in ("yes", "no"):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for i in range(10):
            path = tmp_path / "sounds" / label / f"{i}.wav"
            soundfile.write(path, np.zeros(8, dtype=np.float32), 8000)
            lines.append(f"sounds/{label}/{i}.wav,{label}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    folder = load_splits(DataConfig(source=str(tmp_path / "sounds")), "audio")
    table = load_splits(DataConfig(source=str(tmp_path / "list.csv")), "audio")
    assert folder.label_names == table.label_names == ("no", "yes")
    assert Path(table.train[0]["audio"]).is_file()


def test_a_folder_of_neither_shape_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images, sounds or texts in class folders"):
        load_splits(DataConfig(source=str(tmp_path)), "image")


def test_a_broken_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG no")
    with pytest.raises(UserError, match=r"train row 2.* not a readable image"):
        decode_image(str(tmp_path / "a.png"), "RGB", "train row 2")
    with pytest.raises(UserError, match="not a readable image"):
        decode_image(str(tmp_path / "missing.png"), "RGB", "train row 2")


def test_a_rotated_photograph_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    image.paste((255, 255, 255), (0, 0, 2, 2))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise by a quarter
    image.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    upright = np.asarray(decode_image(str(tmp_path / "a.jpg"), "L", "x"))
    assert upright.shape == (4, 2)
    assert (upright > 200).tolist() == [[True, True]] * 2 + [[False, False]] * 2  # left became top


def test_typed_columns_of_hub_files_stay_encoded_and_keep_their_label_order(tmp_path: Path) -> None:
    clip, image = tmp_path / "clip.wav", tmp_path / "image.png"
    soundfile.write(clip, np.zeros(800, dtype=np.float32), 8000)
    Image.new("L", (4, 4)).save(image)
    for modality, path, kind in (
        ("image", image, datasets.Image(decode=False)),
        ("audio", clip, datasets.Audio(decode=False)),
    ):
        rows = {
            "blob": [{"bytes": path.read_bytes(), "path": path.name}] * 40,
            "kind": [0, 1] * 20,
        }
        features = Features({"blob": kind, "kind": ClassLabel(names=["z", "a"])})
        typed = Dataset.from_dict(rows).cast(features)
        typed.to_parquet(tmp_path / f"{modality}.parquet")
        data = DataConfig(source=str(tmp_path / f"{modality}.parquet"))
        splits = load_splits(data, modality)  # type: ignore[arg-type]
        assert splits.label_names == ("z", "a")
        assert splits.summary["columns"] == {modality: "blob", "label": "kind"}
        assert splits.train[0][modality]["bytes"] == path.read_bytes()


# ---- bundled


def test_the_digits_are_split_stratified_into_800_300_697() -> None:
    splits = load_splits(DataConfig(source="bundled/digits"), "image")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [800, 300, 697]
    assert splits.label_names == tuple("0123456789")
    images = [splits.train[i]["image"] for i in range(800)]
    assert decode_image(images[0], "L", "x").size == (8, 8)
    levels = {v for image in images for v in np.asarray(decode_image(image, "L", "x")).flat}
    assert (min(levels), max(levels), len(levels)) == (0, 255, 17)
    for split in (splits.train, splits.validation, splits.test):
        counts = np.bincount(split["labels"])
        assert counts.min() > 0.9 * len(split) / 10


@pytest.mark.parametrize("name", ["python-docs", "spoken-digits"])
def test_bundled_data_load_and_have_every_label_in_every_split(name: str) -> None:
    splits = load_bundled(name)
    assert set(splits) == {"train", "validation", "test"}
    labels = {split: set(dataset["label"][:]) for split, dataset in splits.items()}
    assert labels["train"] == labels["validation"] == labels["test"]
    assert len(labels["train"]) > 1
