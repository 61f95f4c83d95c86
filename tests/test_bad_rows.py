"""Rows that cannot be read are listed, and skipped up to a limit."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from test_distributed import launch
from tiny_runs import overrides

from hfbench.cli import recipe_main
from hfbench.config import DataConfig, RunConfig, load_config
from hfbench.data import media
from hfbench.data.audio import decode_audio
from hfbench.data.bad_rows import BadRows
from hfbench.data.pixels import load_pixels
from hfbench.data.splits import load_splits
from hfbench.errors import UnreadableError, UserError
from hfbench.tasks import make_task


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """train (20), validation (6) and test (6) of dark and light jpegs; one of each is cut off."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for split, count in (("train", 10), ("validation", 3), ("test", 3)):
        for label, level in (("dark", 40), ("light", 200)):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(level, level + 50, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{index:02}.jpg")
        cut_off(folder / split / "light" / "01.jpg")
    broken = (folder / "test" / "light" / "01.jpg").read_bytes()
    (folder / "train" / "light" / "01.jpg").write_bytes(broken)
    return folder


def cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def listed(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "bad_rows.jsonl").read_text().splitlines()]


def config(task: str, checkpoint: Path, data: Path, folder: Path, *more: str) -> RunConfig:
    return load_config(None, overrides(checkpoint, data, folder, *more), task=task)


# ---- what is bad


def test_texts_and_labels_that_cannot_be_used(tmp_path: Path) -> None:
    rows = [{"text": f"good {i}", "label": "ab"[i % 2]} for i in range(20)]
    rows[3]["text"], rows[5]["text"], rows[7]["label"], rows[9]["label"] = "  ", None, None, ""
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    test = [*rows[:3], {"text": "x", "label": "c"}]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, test)))
    data = DataConfig(source=str(tmp_path), max_bad_rows=5)
    bad = BadRows(limit=5)
    splits = load_splits(data, "text", bad)
    assert [(row.split, row.row, row.reason) for row in bad.found] == [
        ("train", 3, "no text (text='  ')"),
        ("train", 5, "no text (text=None)"),
        ("train", 7, "no label (label=None)"),
        ("train", 9, "no label (label='')"),
        ("test", 3, "the label 'c' (column 'label'), which train lacks"),
    ]
    assert splits.summary["bad_rows"] == {"train": 4, "test": 1}
    assert len(splits.test) == 3
    origin = splits.origins["train"]
    assert [f"good {row}" for row in origin.rows] == splits.train["text"][:]
    assert origin.name(0) == f"train row {origin.rows[0]}"
    with pytest.raises(
        UserError, match=r"(?s)rows that cannot be used: 5.*max_bad_rows=5 \(it is 4"
    ):
        load_splits(replace(data, max_bad_rows=4), "text")


def test_a_label_that_only_the_names_have_is_out_of_range(tmp_path: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["a", "b", "c"])
    for split, labels in (("train", [0, 1] * 10), ("test", [0, 1, 2])):
        columns = {"text": [f"{split} {i}" for i in range(len(labels))], "label": labels}
        kinds = datasets.Features({"text": datasets.Value("string"), "label": names})
        datasets.Dataset.from_dict(columns, features=kinds).to_parquet(
            tmp_path / f"{split}.parquet"
        )
    with pytest.raises(
        UserError, match=r"test row 2 \(.*test.parquet, row 2\): the label 'c' \(column"
    ):
        load_splits(DataConfig(source=str(tmp_path)), "text")
    splits = load_splits(DataConfig(source=str(tmp_path), max_bad_rows=1), "text")
    assert splits.test["labels"][:] == [0, 1]


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_cut_wav_is_truncated_and_one_of_unknown_length_is_not(
    tmp_path: Path, subtype: str
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1600), 16000, subtype=subtype)

    def decode(source: str | bytes) -> int:
        return len(decode_audio(source, sample_rate_hz=16000, max_seconds=1.0, name="it"))

    whole = path.read_bytes()
    assert decode(whole) == decode(str(path)) == 1600
    with pytest.raises(UnreadableError, match="it is a truncated sound: its last 10 bytes"):
        decode(whole[:-10])
    path.write_bytes(whole[:1000])
    with pytest.raises(UnreadableError, match="a truncated sound"):
        decode(str(path))
    start = whole.index(b"data") + 4
    for size in (0xFFFFFFFF, 0x7FFFF000):  # of ffmpeg and sox writing to a pipe
        stream = whole[:start] + size.to_bytes(4, "little") + whole[start + 4 :]
        assert decode(stream) == 1600


def test_a_cut_flac_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(size=16000) / 10, 16000)
    cut_off(path)
    with pytest.raises(UnreadableError, match="it is not a readable sound"):
        decode_audio(str(path), sample_rate_hz=16000, max_seconds=1.0, name="it")


# ---- what happens to them


def test_with_a_bad_row_too_many_nothing_is_trained_and_all_are_listed(
    tiny_vit: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    options = overrides(tiny_vit, pictures, folder, "data.max_bad_rows=2")
    assert recipe_main("image_classification", None, options) == 2
    error = capsys.readouterr().err
    assert f"rows that cannot be used: 3, all listed in {folder / 'bad_rows.jsonl'}:" in error
    assert "data.max_bad_rows=3 (it is 2)" in error
    assert "Traceback" not in error
    assert [path.name for path in folder.iterdir()] == ["bad_rows.jsonl"]
    rows = listed(folder)
    assert [(row["split"], row["row"]) for row in rows] == [
        ("train", 11),
        ("validation", 4),
        ("test", 4),
    ]
    assert rows[1]["file"] == str(pictures / "validation/light/01.jpg")
    assert rows[1]["reason"].startswith("not a readable image: ")


def test_bad_rows_up_to_the_limit_are_skipped_and_recorded(
    tiny_vit: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    options = overrides(tiny_vit, pictures, folder, "data.max_bad_rows=3")
    assert recipe_main("image_classification", None, options) == 0
    assert "skipped: 3 rows" in capsys.readouterr().out
    assert len(listed(folder)) == 3
    result = json.loads((folder / "result.json").read_text())
    assert result["data"]["bad_rows"] == {"train": 1, "validation": 1, "test": 1}
    assert [result["data"][s] for s in ("train", "validation", "test")] == [19, 5, 5]
    assert result["data"]["duplicates"] == []  # what is in no split is in no two
    assert np.sum(result["test_metrics"]["confusion_matrix"]) == 5
    assert np.sum(result["history"][0]["validation"]["confusion_matrix"]) == 5
    assert result["steps"] == 2 * 3  # two epochs of 19 samples in batches of 8


def test_skipping_gives_the_run_of_data_without_these_rows(
    tiny_vit: Path, pictures: Path, tmp_path: Path
) -> None:
    clean = tmp_path / "clean"
    shutil.copytree(pictures, clean)
    for split in ("train", "validation", "test"):
        (clean / split / "light" / "01.jpg").unlink()
    metrics = []
    for data, limit in ((pictures, 3), (clean, 0)):
        folder = tmp_path / f"run_{limit}"
        options = overrides(tiny_vit, data, folder, f"data.max_bad_rows={limit}")
        assert recipe_main("image_classification", None, options) == 0
        result = json.loads((folder / "result.json").read_text())
        metrics.append((result["history"], result["test_metrics"]))
    assert metrics[0] == metrics[1]


def test_a_list_of_rows_that_were_mended_does_not_stay(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "bad_rows.jsonl").write_text("{}\n")
    options = overrides(tiny_bert, texts, folder, "training.max_steps=1")
    assert recipe_main("text_classification", None, options) == 0
    assert not (folder / "bad_rows.jsonl").exists()


def test_a_sample_taken_from_train_is_named_by_its_row_there(
    tiny_wav2vec2: Path, sounds: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sounds, copy)
    for path in copy.rglob("*.wav"):
        cut_off(path)
    for label in ("high", "low"):
        shutil.copy(sounds / label / "0.wav", copy / label / "0.wav")
    case = config("audio_classification", tiny_wav2vec2, copy, tmp_path / "run")
    with pytest.raises(UserError, match="rows that cannot be used: 38"):
        make_task(case).prepare_data()
    files = [f"{label}/{path.name}" for label in ("high", "low") for path in in_order(copy / label)]
    for row in listed(tmp_path / "run"):
        assert row["split"] == "train"
        assert row["file"] == str(copy / files[row["row"]])


def in_order(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_split_of_which_nothing_is_left_is_an_error(
    tiny_vit: Path, pictures: Path, tmp_path: Path
) -> None:
    for path in (pictures / "test").rglob("*.jpg"):
        path.write_bytes(b"no")
    limit = "data.max_bad_rows=99"
    case = config("image_classification", tiny_vit, pictures, tmp_path / "run", limit)
    with pytest.raises(UserError, match=r"no sample of test can be read: test row 5 \("):
        make_task(case).prepare_data()


def test_large_splits_are_checked_once_before_training(
    tiny_vit: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own_cache: None,
) -> None:
    """What does not fit into memory is decoded to the end once, and remembered for later runs."""
    limit = "data.max_bad_rows=3"
    case = config("image_classification", tiny_vit, pictures, tmp_path / "run", limit)
    kept = make_task(case).prepare_data()
    monkeypatch.setattr(media, "MEMORY_LIMIT_BYTES", 5 * 32 * 32 * 3)
    decoded = counted(monkeypatch)
    lazy: Any = make_task(case).prepare_data()
    assert len(decoded) == 32
    assert lazy.train.kept is None
    assert lazy.bad_rows == kept.bad_rows
    assert lazy.train.labels() == kept.train.labels()  # type: ignore[attr-defined]
    for index in (0, 10, 18):  # beyond the broken row 11 too
        assert (lazy.train[index]["pixels"] == kept.train[index]["pixels"]).all()
    decoded.clear()
    assert make_task(case).prepare_data().bad_rows == kept.bad_rows
    assert len(decoded) == 3 * 6  # to the limit, not to the end


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that gets an entry for every image that is decoded."""
    decoded: list[object] = []
    decode: Callable[..., Any] = media.decode_image

    def counting(*arguments: Any) -> Any:
        decoded.append(arguments)
        return decode(*arguments)

    monkeypatch.setattr("hfbench.tasks.image_classification.decode_image", counting)
    return decoded


def test_images_that_are_decoded_at_once_are_decoded_once(
    tiny_vit: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = counted(monkeypatch)
    limit = "data.max_bad_rows=3"
    make_task(
        config("image_classification", tiny_vit, pictures, tmp_path / "run", limit)
    ).prepare_data()
    assert len(decoded) == 32


def test_a_network_from_scratch_skips_broken_images_too(pictures: Path, tmp_path: Path) -> None:
    options = [f"data.source={pictures}", f"output_dir={tmp_path / 'run'}"]
    case = load_config(None, [*options, "data.max_bad_rows=3"], task="mnist_mlp")
    data: Any = make_task(case).prepare_data()
    assert [len(data.train), len(data.validation), len(data.test)] == [19, 5, 5]
    assert data.train.labels.tolist() == [0] * 10 + [1] * 9
    assert [(row.split, row.row) for row in data.bad_rows] == [
        ("train", 11),
        ("validation", 4),
        ("test", 4),
    ]
    with pytest.raises(UserError, match="rows that cannot be used: 3"):
        make_task(replace(case, data=replace(case.data, max_bad_rows=0))).prepare_data()
    with pytest.raises(UnreadableError, match=r"train row 11 \(.*01.jpg\) is not a readable image"):
        load_pixels(load_splits(case.data, "image").train, "train")


@pytest.mark.slow
def test_two_processes_skip_the_same_rows(tiny_vit: Path, pictures: Path, tmp_path: Path) -> None:
    settings = tmp_path / "config.yaml"
    settings.write_text("task: image_classification\n")
    options = overrides(tiny_vit, pictures, tmp_path)[:-1]  # without output_dir
    results = [
        launch(
            settings,
            processes,
            tmp_path / str(processes),
            *options,
            "data.max_bad_rows=3",
            task="image_classification",
        )
        for processes in (1, 2)
    ]
    one, two = results
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    assert one["data"] == two["data"]
    assert listed(tmp_path / "1") == listed(tmp_path / "2")
    assert two["test_metrics"]["confusion_matrix"] == one["test_metrics"]["confusion_matrix"]
    assert np.sum(two["test_metrics"]["confusion_matrix"]) == 5
