"""Files that are read wrongly by the nearest method: paths, lines, grey levels, headers."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import soundfile
from PIL import Image, PngImagePlugin

from hfbench.config import DataConfig
from hfbench.data.audio import decode_audio
from hfbench.data.bad_rows import BadRows
from hfbench.data.files import load_local
from hfbench.data.media import decode_image
from hfbench.data.splits import load_splits
from hfbench.data.tables import load_table
from hfbench.errors import UnreadableError, UserError


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


def write_metadata(folder: Path, rows: list[tuple[str, str]]) -> None:
    lines = [f"{name},{label}" for name, label in rows]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))


@pytest.mark.parametrize("stray", ["extra/c.png", "c.png"])
def test_a_file_outside_of_the_folders_of_splits_is_an_error(tmp_path: Path, stray: str) -> None:
    write_metadata(tmp_path, [("train/a.png", "x"), ("test/b.png", "y"), (stray, "x")])
    with pytest.raises(UserError, match=rf"1 of 3 files \(row 2: '{stray}'\).*train, test"):
        load_local(tmp_path)


def test_rows_without_a_file_are_bad_rows_of_train(tmp_path: Path) -> None:
    rows = [(f"train/{number}.png", "xy"[number % 2]) for number in range(8)]
    write_metadata(tmp_path, [rows[0], ("", "x"), *rows[1:], ("test/8.png", "x"), ("", "y")])
    bad = BadRows(limit=0)
    splits = load_splits(DataConfig(source=str(tmp_path), validation_fraction=0.3), "image", bad)
    assert [(row.split, row.row) for row in bad.found] == [("train", 1), ("train", 9)]
    assert bad.found[0].reason == "no file and no bytes (column 'image' is empty)"
    assert len(splits.test) == 1


def test_paths_of_large_strings_are_below_the_folder_of_their_table(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": pa.array([f"{number}.png" for number in range(20)], pa.large_string()),
            "label": ["x", "y"] * 10,
        }
    )
    pq.write_table(table, tmp_path / "train.parquet")
    splits = load_splits(DataConfig(source=str(tmp_path / "train.parquet")), "image")
    parts = [*splits.train["image"], *splits.validation["image"], *splits.test["image"]]
    assert set(parts) == {str(tmp_path / f"{number}.png") for number in range(20)}


def test_json_lines_end_with_line_feeds_only(tmp_path: Path) -> None:
    texts = ["one\u2028two", "three\u2029four\u0085five", "six"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "a.jsonl").write_bytes("\r\n".join([*lines, ""]).encode())
    assert load_table(tmp_path / "a.jsonl").rows["text"][:] == texts
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{"]), encoding="utf-8")
    with pytest.raises(UserError, match="line 4"):
        load_table(tmp_path / "a.jsonl")


@pytest.mark.parametrize(("kind", "order"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_grey_levels_of_16_bits_are_scaled_not_clipped(kind: str, order: str) -> None:
    levels = np.array([[0, 128, 129], [257 * 10, 257 * 128, 65535]], dtype=order)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format=kind)
    grey = decode_image(buffer.getvalue(), "L", "train row 0")
    assert np.asarray(grey).tolist() == [[0, 0, 1], [10, 128, 255]]
    colour = decode_image(buffer.getvalue(), "RGB", "train row 0")
    assert np.asarray(colour)[1, 1].tolist() == [128, 128, 128]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_32_bits_are_refused(dtype: type) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((2, 2), dtype=dtype)).save(buffer, format="TIFF")
    with pytest.raises(UnreadableError, match=r"train row 0 is not a readable image: pixels of 32"):
        decode_image(buffer.getvalue(), "RGB", "train row 0")


def test_an_image_with_an_endless_text_is_unreadable() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 2 * PngImagePlugin.MAX_TEXT_CHUNK, zip=True)
    with pytest.raises(UnreadableError, match=r"not a readable image: .*too large"):
        decode_image(png(Image.new("L", (4, 4)), pnginfo=info), "L", "train row 0")


@pytest.mark.parametrize("samples", [0, 2**36 - 1])  # 0 stands for an unknown number
def test_a_header_with_more_samples_than_memory_is_unreadable(samples: int) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(3000), 16000, format="FLAC")
    data = bytearray(buffer.getvalue())
    # FLAC format: 36 bits for the number of samples, from the lower half of byte 21 on.
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    with pytest.raises(UnreadableError, match=r"damaged or too long: its header announces"):
        decode_audio(bytes(data), sample_rate_hz=16000, max_seconds=1, name="train row 0")
