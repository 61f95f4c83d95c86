"""The files of stored prefixes: trusted only when whole, and the oldest make room."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hfbench.training.prefix import store

pytestmark = pytest.mark.usefixtures("own_cache")


def write(key: str, values: Tensor, *, close: bool = True) -> Path:
    folder = store.start(key)
    writer = store.RowWriter(folder, 0)
    writer.add(range(len(values)), values)
    writer.close()
    return store.finish(folder, key, writer, parts=1, seconds=1.0) if close else folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_different_length_come_back_in_any_order(dtype: torch.dtype) -> None:
    folder = store.start("a")
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(length, 3, generator=generator).to(dtype) for length in (4, 2, 4, 1)]
    writers = [store.RowWriter(folder, part) for part in (0, 1)]
    writers[0].add([0, 2], torch.stack([rows[0], rows[2]]))
    padded = nn.utils.rnn.pad_sequence([rows[3], rows[1]], batch_first=True, padding_value=9.0)
    writers[1].add([3, 1], padded, [1, 2])
    for writer in writers:
        writer.close()
    store.finish(folder, "a", writers[0], parts=2, seconds=1.0)
    found = store.find("a")
    assert found is not None
    assert found.lengths.tolist() == [4, 2, 4, 1]
    expected = nn.utils.rnn.pad_sequence([rows[i] for i in (3, 0, 1)], batch_first=True)
    assert torch.equal(found.read([3, 0, 1]), expected)
    assert torch.equal(found.read([1]), rows[1][None])
    assert found.size_bytes == 11 * 3 * dtype.itemsize
    found.close()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["0.bin", "0.npy", "manifest.json"])
def test_a_damaged_entry_is_named_and_deleted(
    name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write("a", torch.ones(2, 3, 4))
    assert store.is_whole("a")
    DAMAGES[damage](folder / name)
    assert not store.is_whole("a")
    assert name in capsys.readouterr().out
    assert list(store.entries_folder().iterdir()) == []


def test_an_entry_under_another_name_is_not_used() -> None:
    write("a", torch.ones(2, 3, 4)).rename(store.entries_folder() / "b")
    assert not store.is_whole("b")


def test_what_others_put_into_the_cache_is_no_entry() -> None:
    write("a", torch.ones(2, 3, 4))
    (store.entries_folder() / ".DS_Store").write_text("x")
    (store.entries_folder() / "b").write_text("x")
    assert store.make_room(0) is None
    assert not store.is_whole("b")
    assert store.is_whole("a")


def test_a_cache_that_cannot_be_is_a_reason(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "Not a directory" in str(store.make_room(0))
    assert not store.is_whole("a")


def test_an_entry_that_another_program_finished_first_is_kept() -> None:
    slow = store.start("a")
    writer = store.RowWriter(slow, 0)
    writer.add([0], torch.ones(1, 1, 1))
    writer.close()
    write("a", torch.zeros(1, 1, 1))
    store.finish(slow, "a", writer, parts=1, seconds=1.0)
    found = store.find("a")
    assert found is not None
    assert found.read([0]).item() == 0.0
    assert [path.name for path in store.entries_folder().iterdir()] == ["a"]


@pytest.mark.parametrize("deletable", [True, False])
def test_a_damaged_entry_is_not_taken_over(
    deletable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = store.start("a")
    writer = store.RowWriter(own, 0)
    writer.add([0], torch.ones(1, 1, 1))
    writer.close()
    (write("a", torch.zeros(1, 1, 1)) / "0.bin").write_bytes(b"")
    if deletable:
        store.finish(own, "a", writer, parts=1, seconds=1.0)
        found = store.find("a")
        assert found is not None
        assert found.read([0]).item() == 1.0
        found.close()
    else:
        monkeypatch.setattr(store, "delete", lambda folder: None)  # of another user
        with pytest.raises(OSError, match="not empty"):
            store.finish(own, "a", writer, parts=1, seconds=1.0)


def test_an_entry_that_cannot_be_opened_leaves_no_file_open() -> None:
    folder = store.start("a")
    writers = [store.RowWriter(folder, part) for part in (0, 1)]
    for part, writer in enumerate(writers):
        writer.add([part], torch.ones(1, 1, 1))
        writer.close()
    final = store.finish(folder, "a", writers[0], parts=2, seconds=1.0)
    (final / "1.bin").unlink()
    before = os.listdir("/proc/self/fd")
    assert store.find("a") is None
    assert os.listdir("/proc/self/fd") == before


def test_a_process_killed_while_writing_leaves_nothing_that_is_trusted() -> None:
    script = (
        "import sys, time, torch; from hfbench.training.prefix import store\n"
        "writer = store.RowWriter(store.start('a'), 0)\n"
        "while True:\n"
        "    writer.add([0], torch.ones(1, 1000, 10)); print('written', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert store.find("a") is None
    left = list(store.entries_folder().iterdir())
    assert len(left) == 1
    old = time.time() - 2 * store.ABANDONED_SECONDS
    for path in (*left[0].iterdir(), left[0]):
        os.utime(path, (old, old))
    assert store.make_room(0) is None
    assert list(store.entries_folder().iterdir()) == []


def test_the_entries_used_longest_ago_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    for age, key in enumerate(["new", "old", "older"]):
        folder = write(key, torch.ones(1, 250, 1))  # 1,000 bytes and an index
        for path in (*folder.iterdir(), folder):
            os.utime(path, (10_000 - age, 10_000 - age))
    found = store.find("older")  # reading it makes it the newest
    assert found is not None
    monkeypatch.setattr(store, "LIMIT_BYTES", 4000)
    assert store.make_room(1000) is None
    assert {path.name for path in store.entries_folder().iterdir()} == {"older", "new"}
    assert found.read([0]).sum() == 250
    assert "do not fit" in str(store.make_room(5000))
    assert len(list(store.entries_folder().iterdir())) == 2
