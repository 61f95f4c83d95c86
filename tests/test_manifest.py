"""A folder of ours is whole, or what is wrong with it is named."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from damages import DAMAGES

from hfbench.manifest import MANIFEST, DamagedError, check, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "part").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "part/b.txt").write_text("b")
    seal(tmp_path, {"run": "one"})
    return tmp_path


def test_a_whole_folder_says_whose_it_is(folder: Path) -> None:
    assert check(folder) == {"run": "one"}
    assert list(json.loads((folder / MANIFEST).read_text())["files"]) == ["a.bin", "part/b.txt"]


def _link(path: Path) -> None:
    other = path.with_name("elsewhere")
    path.rename(other)
    path.symlink_to(other)


KINDS: dict[str, Callable[[Path], object]] = {
    **DAMAGES,
    "link": _link,
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", KINDS)
@pytest.mark.parametrize("name", ["a.bin", "part/b.txt", MANIFEST])
def test_every_damage_names_its_file(folder: Path, name: str, damage: str) -> None:
    KINDS[damage](folder / name)
    with pytest.raises(DamagedError, match=Path(name).name):
        check(folder)


def test_a_manifest_of_another_version_is_no_proof(folder: Path) -> None:
    values = json.loads((folder / MANIFEST).read_text())
    values["about"]["run"] = "two"  # by hand: its checksum stays
    (folder / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(DamagedError, match="not as it was written"):
        check(folder)


def test_a_pipe_in_a_files_place_is_damage_and_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    seal(tmp_path, {})
    (tmp_path / "empty").unlink()
    os.mkfifo(tmp_path / "empty")
    with pytest.raises(DamagedError, match="it is a pipe"):
        check(tmp_path)
