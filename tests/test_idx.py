"""MNIST's own files: what is read, and every way in which they can be broken."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from idx_files import Bytes, idx_bytes, write_idx_folder
from PIL import Image

from hfbench.config import DataConfig
from hfbench.data.pixels import load_pixels
from hfbench.data.sources import load_source
from hfbench.data.splits import load_splits
from hfbench.errors import UserError

TRAIN: tuple[Bytes, Bytes] = (
    np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3),
    np.arange(40, dtype=np.uint8) % 2,
)
TEST: tuple[Bytes, Bytes] = (TRAIN[0][:4] + 7, TRAIN[1][:4])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_idx_folder(tmp_path / "mnist", TRAIN, TEST)


def error_of(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_source(DataConfig(source=str(folder)))
    return str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_pixels_and_labels_come_back_as_they_were_written(tmp_path: Path, zipped: bool) -> None:
    folder = write_idx_folder(tmp_path, TRAIN, TEST, zipped=zipped)
    splits = load_source(DataConfig(source=str(folder))).splits
    assert list(splits) == ["train", "test"]
    for split, (images, labels) in {"train": TRAIN, "test": TEST}.items():
        assert torch.equal(load_pixels(splits[split], split), torch.from_numpy(images))
        assert splits[split]["label"][:] == labels.tolist()


def test_the_validation_split_is_taken_from_train_stratified(folder: Path) -> None:
    splits = load_splits(DataConfig(source=str(folder), validation_fraction=0.2), "image")
    assert sorted(splits.validation["labels"][:]) == [0] * 4 + [1] * 4
    assert (len(splits.train), len(splits.test)) == (32, 4)
    assert splits.label_names == ("0", "1")
    images = {
        split: load_pixels(getattr(splits, split), split) for split in ("train", "validation")
    }
    assert sorted(torch.cat(list(images.values()))[:, 0, 0].tolist()) == TRAIN[0][:, 0, 0].tolist()


def test_other_contents_have_another_fingerprint(folder: Path, tmp_path: Path) -> None:
    changed = TRAIN[0].copy()
    changed[5, 1, 2] += 1
    other = write_idx_folder(tmp_path / "other", (changed, TRAIN[1]), TEST)
    prints = [
        load_splits(DataConfig(source=str(path)), "image").summary["fingerprint"]
        for path in (folder, folder, other)
    ]
    assert prints[0] == prints[1] != prints[2]


def change(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_bytes(edit(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("harm", "file", "problem"),
    [
        (
            lambda folder: (folder / "t10k-labels-idx1-ubyte").unlink(),
            "mnist",
            "lacks the file t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz",
        ),
        (
            change("train-images-idx3-ubyte", lambda content: b"\x89PNG" + content[4:]),
            "train-images-idx3-ubyte",
            "begins with 0x89504e47, not with the magic number 0x00000803",
        ),
        (
            change("train-labels-idx1-ubyte", lambda content: idx_bytes(TRAIN[0])),
            "train-labels-idx1-ubyte",
            "begins with 0x00000803, not with the magic number 0x00000801",
        ),
        (
            change("t10k-images-idx3-ubyte", lambda content: content[:-1]),
            "t10k-images-idx3-ubyte",
            "is truncated: its header says 4 × 2 × 3 values, 40 bytes in all, and it has 39",
        ),
        (
            change("t10k-images-idx3-ubyte", lambda content: content[:9]),
            "t10k-images-idx3-ubyte",
            "is truncated",
        ),
        (
            change("t10k-images-idx3-ubyte", lambda content: content + b"\0"),
            "t10k-images-idx3-ubyte",
            "is too long",
        ),
        (
            change("train-labels-idx1-ubyte", lambda content: idx_bytes(TRAIN[1][:-1])),
            "train-labels-idx1-ubyte",
            "holds 40 images and .* 39 labels",
        ),
        (
            change("train-images-idx3-ubyte", gzip.compress),
            "train-images-idx3-ubyte",
            "it is compressed: unzip it, or let its name end in .gz",
        ),
        (
            change("train-images-idx3-ubyte", lambda content: b""),
            "train-images-idx3-ubyte",
            "begins with 0x, not",
        ),
    ],
)
def test_a_broken_folder_is_named_with_what_is_wrong(
    folder: Path, harm: Callable[[Path], None], file: str, problem: str
) -> None:
    harm(folder)
    with pytest.raises(UserError, match=problem) as caught:
        load_source(DataConfig(source=str(folder)))
    assert str(folder.parent / "mnist" / file).removesuffix("/mnist") in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (gzip.decompress, "is not a gzip file: it begins with 0x0000"),
        (lambda content: content[: len(content) // 2], "is a truncated or broken gzip file"),
        (
            lambda content: content[:20] + bytes([content[20] ^ 255]) + content[21:],
            "is a truncated or broken gzip file",
        ),
    ],
)
def test_a_broken_gzip_file_is_named(
    tmp_path: Path, edit: Callable[[bytes], bytes], problem: str
) -> None:
    folder = write_idx_folder(tmp_path, TRAIN, TEST, zipped=True)
    change("t10k-images-idx3-ubyte.gz", edit)(folder)
    message = error_of(folder)
    assert "t10k-images-idx3-ubyte.gz" in message
    assert problem in message


def test_images_of_different_sizes_are_an_error(tmp_path: Path) -> None:
    for index, size in enumerate([(8, 8), (8, 8), (9, 8)]):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / "a" / f"{index}.png")
    dataset = load_source(DataConfig(source=str(tmp_path))).splits["train"]
    with pytest.raises(UserError, match="train row 2 has 9 × 8 pixels and row 0 8 × 8"):
        load_pixels(dataset, "train")


def test_encoded_images_give_the_pixels_of_bare_ones(folder: Path) -> None:
    bare = load_source(DataConfig(source=str(folder))).splits["train"]

    def png(content: bytes) -> bytes:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(content)).save(buffer, format="PNG")
        return buffer.getvalue()

    encoded = Dataset.from_dict({"image": [png(content) for content in bare["image"][:]]})
    assert torch.equal(load_pixels(encoded, "train"), torch.from_numpy(TRAIN[0]))
