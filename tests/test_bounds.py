"""What is refused before work is done with it: things that never end, and sizes without measure."""

import gzip
import io
import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import soundfile
from transformers import BertConfig

from hfbench.cli import recipe_main
from hfbench.config import ModelConfig, load_config
from hfbench.conversion import parse_value
from hfbench.data.audio import MAX_SAMPLES, decode_audio
from hfbench.data.idx import read_idx
from hfbench.data.media import decode_image
from hfbench.data.tables import load_table
from hfbench.errors import UnreadableError, UserError
from hfbench.models import loading
from hfbench.models.bundled import resolve_checkpoint
from hfbench.models.configuration import find_configuration
from hfbench.models.weight_files import require_whole
from hfbench.plain_files import open_plain
from hfbench.plain_json import DEEPEST, depth, parse_json
from hfbench.results import RunResult


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


ODD = {
    "a pipe": make_pipe,
    "a device": make_link_to_endless_device,
    "a folder": make_folder,
    "a socket": make_socket,
}
READERS: dict[str, Callable[[Path], Any]] = {
    "x.png": lambda path: decode_image(str(path), "RGB", "train row 0"),
    "x.wav": lambda path: decode_audio(
        str(path), sample_rate_hz=16_000, max_seconds=1.0, name="train row 0"
    ),
    "x.txt": load_table,
    "x.csv": load_table,
    "x.jsonl": load_table,
    "x.parquet": load_table,
    "x-ubyte": lambda path: read_idx(path, dimensions=1),
    "x.gz": lambda path: read_idx(path, dimensions=1),
    "result.json": RunResult.load,
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", READERS)
def test_only_regular_files_are_read(tmp_path: Path, name: str, kind: str) -> None:
    ODD[kind](tmp_path / name)
    with pytest.raises(UserError, match=f"it is {kind}, not a regular file"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
def test_a_checkpoint_with_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    ODD[kind](tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=rf"tokenizer\.json.*it is {kind}"):
        resolve_checkpoint(str(tmp_path))


def test_a_link_to_a_regular_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"text")
    (tmp_path / "x").symlink_to("there")
    with open_plain(tmp_path / "x") as file:
        assert file.read() == b"text"


def wav(samples: int, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(samples, dtype=np.float32), rate_hz, format="WAV")
    return buffer.getvalue()


@pytest.mark.parametrize("rate_hz", [1, 2, 7])
def test_a_sound_is_bounded_by_its_resampled_size(rate_hz: int) -> None:
    """2**18 samples at 1 Hz are 2**18 * 16,000 at 16 kHz: 16 GiB of a file of 512 KiB."""
    samples = 2**18
    assert samples * 16_000 / rate_hz > MAX_SAMPLES > samples
    with pytest.raises(UnreadableError, match=rf"at {rate_hz} Hz, which are [\d,]+ at 16,000 Hz"):
        decode_audio(wav(samples, rate_hz), sample_rate_hz=16_000, max_seconds=1.0, name="row 0")


def test_a_slow_sound_that_stays_small_is_read() -> None:
    clip = decode_audio(wav(30, 10), sample_rate_hz=100, max_seconds=9.0, name="row 0")
    assert len(clip) == 300


def idx(values: int, said: tuple[int, ...]) -> bytes:
    head = bytes((0, 0, 8, len(said))) + struct.pack(f">{len(said)}I", *said)
    return head + bytes(values)


@pytest.mark.parametrize("said", [(5,), (0,)])
def test_no_more_is_unzipped_than_the_header_says(
    tmp_path: Path, said: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2**24 zeros are 16 KiB of gzip."""
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(2**24, said)))
    read: list[int] = []
    real = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        found = real(self, size)
        read.append(len(found))
        return found

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(UserError, match=r"too long.* and it has more"):
        read_idx(tmp_path / "x.gz", dimensions=1)
    assert sum(read) == 8 + said[0] + 1


@pytest.mark.parametrize("name", ["x.gz", "x"])
def test_a_header_that_says_too_much_is_refused(tmp_path: Path, name: str) -> None:
    content = idx(10, (2**31, 2**31, 2**31))
    (tmp_path / name).write_bytes(gzip.compress(content) if name == "x.gz" else content)
    with pytest.raises(UserError, match="damaged or too large"):
        read_idx(tmp_path / name, dimensions=3)


def test_an_image_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(UnreadableError, match="exceeds limit"):
        decode_image(b"P5\n20000 20000\n255\n" + bytes(9), "RGB", "row 0")


@pytest.mark.parametrize(
    "shard",
    ["shard.bin", "model.pt", "../other/model.safetensors", "/tmp/model.safetensors", "a\\b"],
)
def test_an_index_names_safetensors_inside_its_folder_alone(tmp_path: Path, shard: str) -> None:
    index = {"weight_map": {"a.weight": "model-1.safetensors", "b.weight": shard}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"safetensors files inside the checkpoint's folder"):
        require_whole(tmp_path)


def nested(levels: int, inner: str = "1") -> str:
    return '{"a":' * levels + inner + "}" * levels


HOSTILE_JSON = {
    "nested": nested(DEEPEST + 1),
    "nested beyond Python's limits": "[" * 100_000 + "]" * 100_000,
    "number": '{"model_type": "bert", "hidden_size": ' + "9" * 400 + "}",
    "number beyond Python's limits": '{"model_type": "bert", "hidden_size": ' + "9" * 5_000 + "}",
}


@pytest.mark.parametrize("kind", HOSTILE_JSON)
def test_results_and_configurations_of_any_nesting_and_digits(tmp_path: Path, kind: str) -> None:
    problem = "nested" if "nested" in kind else "whole number of more than"
    for name in ("result.json", "config.json"):
        (tmp_path / name).write_text(HOSTILE_JSON[kind])
    with pytest.raises(UserError, match=problem):
        RunResult.load(tmp_path / "result.json")
    with pytest.raises(UserError, match=problem):
        find_configuration(str(tmp_path))


def test_depth_is_counted_to_the_limit() -> None:
    assert [depth(value, 9) for value in (1, [], [[]], {"a": [1, {"b": 2}]})] == [0, 1, 2, 3]
    assert depth(parse_json(nested(50)), 9) == 10


@pytest.mark.parametrize("levels", [20, 60, 300])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_a_column_that_is_nested_too_deep_is_left_out(
    tmp_path: Path, levels: int, brackets: tuple[str, str]
) -> None:
    deep = brackets[0] * levels + "1" + brackets[1] * levels
    (tmp_path / "t.jsonl").write_text(f'{{"text": "a", "deep": {deep}}}\n')
    table = load_table(tmp_path / "t.jsonl")
    assert table.rows.column_names == ["text"]
    assert "line 1 holds lists or objects that are nested more than 16 deep" in table.unread["deep"]


def test_a_deep_column_of_parquet_is_left_out(tmp_path: Path) -> None:
    kind = pa.int64()
    value: Any = 1
    for _ in range(50):
        kind, value = pa.struct([("a", kind)]), {"a": value}
    table = pa.table({"text": ["x"], "deep": pa.array([value], kind)})
    pq.write_table(table, tmp_path / "t.parquet")
    assert load_table(tmp_path / "t.parquet").rows.column_names == ["text"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5_000 + "}"])
def test_a_table_beyond_the_limits_of_python_is_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=r"nested too deep|more than 4,300 digits"):
        load_table(tmp_path / "t.json")


BOMB = "".join(
    [
        "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n",
        *(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 12)),
    ]
)
HOSTILE_YAML = {
    "references stand for more than": BOMB,
    "a reference leads into itself": "seed: &a [*a]\n",
    "nested too deep": "seed: " + "[" * 2_000 + "]" * 2_000,
    "a number of 5,002 characters": "seed: 0x" + "f" * 5_000,
    "month must be in": "seed: 2024-99-99\n",
}


@pytest.mark.parametrize("problem", HOSTILE_YAML)
def test_configurations_cannot_stand_for_more_than_they_are(tmp_path: Path, problem: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(HOSTILE_YAML[problem])
    with pytest.raises(UserError, match=rf"run\.yaml' is not valid YAML: .*{problem}"):
        load_config(path, [], task="text_classification")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        parse_value(HOSTILE_YAML[problem], HOSTILE_YAML[problem])
    assert len(str(caught.value)) < 500


def test_references_that_stand_for_little_are_followed() -> None:
    assert parse_value("{a: &x [1, 2], b: *x}", "") == {"a": [1, 2], "b": [1, 2]}


def test_an_index_of_the_hub_is_read_before_any_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "shard.bin"}}))
    monkeypatch.setattr(loading, "hf_hub_download", lambda *_, **__: str(index))
    source = ModelConfig(checkpoint="nobody/sharded")
    with pytest.raises(UserError, match=r"names shard\.bin"):
        loading.load_model(source, BertConfig(), None)


HOSTILE_CHECKPOINTS = {
    "config.json": [
        nested(300),
        nested(3_000),
        HOSTILE_JSON["number"],
        '{"model_type": "bert", "hidden_size": ' + "9" * 30 + "}",
        HOSTILE_JSON["number beyond Python's limits"],
    ],
    "tokenizer_config.json": [nested(3_000), '{"model_max_length": ' + "9" * 5_000 + "}"],
    "tokenizer.json": [nested(3_000)],
    "adapter_config.json": [nested(3_000)],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, text) for name, found in HOSTILE_CHECKPOINTS.items() for text in found],
)
def test_no_json_of_a_checkpoint_ends_a_command_in_a_traceback(
    tmp_path: Path, tiny_bert: Path, name: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "hostile"))
    (folder / name).write_text(content)
    arguments = [f"model.checkpoint={folder}", "data.source=bundled/python-docs", "--dry-run"]
    assert recipe_main("text_classification", None, arguments) == 2
    assert len(capsys.readouterr().err) < 1_000
