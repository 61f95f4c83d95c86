"""Every file of a folder is used, or counted, or an error."""

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from hfbench.cli import recipe_main
from hfbench.config import DataConfig
from hfbench.data.audio import decode_audio
from hfbench.data.files import load_local
from hfbench.data.inputs import read_inputs
from hfbench.data.kinds import AUDIO_SUFFIXES, IMAGE_SUFFIXES, visible_files
from hfbench.data.media import decode_image
from hfbench.data.splits import load_splits
from hfbench.errors import UserError


def write(root: Path, *names: str) -> None:
    """Images where the ending is one, and otherwise bytes that are no image."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jfif", ".avif"):
            Image.new("RGB", (8, 8)).save(path)
        else:
            path.write_bytes(b"no image")


def labels_of(folder: Path) -> list[str]:
    labels: list[str] = load_local(folder).splits["train"]["label"][:]
    return labels


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_pillow_decodes_every_kind_of_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    mode = {".pbm": "1", ".pgm": "L"}.get(suffix, "RGB")
    Image.new(mode, (16, 16), "white").save(path)
    decoded = np.asarray(decode_image(str(path), "L", "x"))
    assert decoded.shape == (16, 16)
    assert decoded.min() > 250


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_libsndfile_decodes_every_kind_of_recording(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    kinds = {
        ".aif": "AIFF",
        ".aifc": "AIFF",
        ".snd": "AU",
        ".sph": "NIST",
        ".oga": "OGG",
        ".opus": "OGG",
    }
    kind = kinds.get(suffix, suffix[1:].upper())
    subtype = "OPUS" if suffix == ".opus" else None
    soundfile.write(path, np.zeros(16000, dtype=np.float32), 16000, format=kind, subtype=subtype)
    clip = decode_audio(str(path), sample_rate_hz=16000, max_seconds=2, name="x")
    assert abs(len(clip) - 16000) < 3000  # mp3 adds its frames


def test_classes_of_newer_endings_are_classes(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "b/1.jfif", "c/1.avif", "c/2.avif")
    assert labels_of(tmp_path) == ["a", "b", "c", "c"]


def test_hidden_files_and_folders_never_count(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "b/1.png", "b/deep/2.png")
    hidden = (
        *(".ipynb_checkpoints/1.png", "a/.ipynb_checkpoints/1-checkpoint.png", "__MACOSX/a/1.png"),
        *("a/._1.png", "a/__MACOSX/._1.png", "b/deep/.cache/x.png", "a/Thumbs.db", "b/.DS_Store"),
        "desktop.ini",
    )
    for name in hidden:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    source = load_local(tmp_path)
    assert source.splits["train"]["label"][:] == ["a", "b", "b"]
    assert source.notes == ()


def test_what_lies_below_a_hidden_folder_counts_when_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, ".cache/data/a/1.png", ".cache/data/b/1.png")
    assert labels_of(tmp_path / ".cache/data") == ["a", "b"]


def test_other_files_are_counted_by_ending_and_reason(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "a/2.heic", "a/3.HEIC", "a/4.svg", "b/1.png", "b/info.txt")
    write(tmp_path, "c.png", "readme.md", "docs/how.md", "labels.csv", "LICENSE")
    source = load_local(tmp_path)
    assert source.splits["train"]["label"][:] == ["a", "b"]
    assert set(source.notes) == {
        "files that are not used, as Pillow cannot read them: 3 (2 .heic, 1 .svg; the first: "
        "a/2.heic)",
        "files that are not used, as they are in no class folder: 1 (1 .png; the first: c.png)",
        "files that are not used, as they are no images: 5 (2 .md, 1 .csv, 1 .txt, 1 without "
        "an ending; the first: LICENSE)",
    }


def test_the_notes_are_said_before_the_training(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/{i}.png" for label in "ab" for i in range(10)), "a/x.heic")
    notes = load_splits(DataConfig(source=str(tmp_path)), "image").summary["notes"]
    assert "files that are not used, as Pillow cannot read them: 1" in notes[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("b/1.heic", "b/2.svg"), r"b' has 2 files and none that can be read: .heic .svg \(Pillow"),
        (("b/1.xyz",), r"b' has 1 files and none that can be read: .xyz"),
        (("b/photo",), r"b' has 1 files and none that can be read: photo"),
        (("b/.hidden.png",), r"b' is empty"),
    ],
)
def test_a_class_without_a_readable_file_is_an_error(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    write(tmp_path, "a/1.png", "c/1.png", *files)
    with pytest.raises(UserError, match=rf"the class folder .*{message}"):
        load_local(tmp_path)


@pytest.mark.parametrize("split", ["", "test/"])
def test_an_empty_class_is_an_error_in_every_split(tmp_path: Path, split: str) -> None:
    write(tmp_path, *(f"{s}{c}/1.png" for s in {split, "train/" if split else ""} for c in "ab"))
    (tmp_path / f"{split}c").mkdir()
    with pytest.raises(UserError, match=rf"class folder '.*{split}c' is empty"):
        load_local(tmp_path)


def test_recordings_and_texts_that_cannot_be_read_are_counted_or_refused(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        soundfile.write(tmp_path / label / "1.wav", np.zeros(160), 16000)
    (tmp_path / "a/2.m4a").write_bytes(b"x")
    (note,) = load_local(tmp_path).notes
    assert "libsndfile cannot read them: 1 (1 .m4a" in note
    texts = tmp_path / "texts"
    write(texts, "neg/1.txt", "pos/1.md")
    with pytest.raises(UserError, match=r"pos' has 1 files .*texts of classes are .txt files"):
        load_local(texts)


def test_files_that_no_row_names_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "sub/1.png", "sub/2.png", "3.png", "4.heic", "notes.md")
    (tmp_path / "metadata.csv").write_text("file_name,label\nsub/1.png,x\n./3.png,y\n")
    assert set(load_local(tmp_path).notes) == {
        "files that are not used, as no row of the metadata names them: 1 (1 .png; the first: "
        "sub/2.png)",
        "files that are not used, as Pillow cannot read them: 1 (1 .heic; the first: 4.heic)",
        "files that are not used, as they are no images: 1 (1 .md; the first: notes.md)",
    }


def test_a_row_whose_file_is_missing_is_a_bad_row(
    tiny_vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    names = [f"{c}/{i}.png" for c in ("dark", "light") for i in range(20)]
    write(data, *(name for name in names if name != "dark/3.png"))
    lines = ["file_name,label", *(f"{name},{name[:4]}" for name in names)]
    (data / "metadata.csv").write_text("\n".join(lines))
    options = [f"model.checkpoint={tiny_vit}", f"data.source={data}"]
    options.append(f"output_dir={tmp_path / 'run'}")
    assert recipe_main("image_classification", None, options) == 2
    error = capsys.readouterr().err
    lost = data / "dark/3.png"
    assert f"train row 3 ({data / 'metadata.csv'}, line 5: {lost}): not a readable" in error


def test_names_of_files_that_are_numbers_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": 5, "label": "a"}\n')
    with pytest.raises(UserError, match=r"needs a column file_name with paths"):
        load_local(tmp_path)


def test_folders_behind_links_are_read_once_each(tmp_path: Path) -> None:
    write(tmp_path / "stored", "1.png", "2.png")
    write(tmp_path, "data/a/1.png")
    (tmp_path / "data/b").symlink_to(tmp_path / "stored")
    (tmp_path / "data/a/more").symlink_to(tmp_path / "stored")
    (tmp_path / "stored/back").symlink_to(tmp_path / "stored")
    assert labels_of(tmp_path / "data") == ["a", "a", "a", "b", "b"]
    assert len(visible_files(tmp_path / "data")) == 5


def test_two_spellings_of_one_class_are_one_label(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write(tmp_path, f"train/{composed}/1.png", "train/tea/1.png", f"test/{decomposed}/1.png")
    source = load_local(tmp_path)
    assert source.splits["train"]["label"][:] == [composed, "tea"]
    assert source.splits["test"]["label"][:] == [composed]
    (note,) = source.notes
    assert f"is read as the label {composed!r}" in note


def test_hidden_files_are_no_inputs_of_predictions(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.avif", "3.heic")
    for name in ("._1.png", ".ipynb_checkpoints/4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = read_inputs([str(tmp_path)], "image", standard_input=io.BytesIO())
    assert [Path(name).name for name in found.names] == ["1.png", "2.avif"]
    assert found.notes == (f"{tmp_path}: 2 images; other files, left out: 1",)
