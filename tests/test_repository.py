"""What a result says about the repository it comes from, and that asking runs nothing of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hfbench
from hfbench.repository import git_state


@pytest.fixture(autouse=True)
def _no_configuration_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path.with_name("global")))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def test_git_state_follows_the_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    _git(tmp_path, "init", "--quiet")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("one")
    commit = _commit(tmp_path)
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_git_state_without_git(tmp_path: Path) -> None:
    code = "from hfbench.repository import git_state; print(git_state())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(Path(hfbench.__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"


HOSTILE = {
    "fsmonitor": ["core.fsmonitor={}"],
    "clean": ["filter.evil.clean={}"],
    "required clean": ["filter.evil.clean={}", "filter.evil.required=true"],
    "process": ["filter.evil.process={}"],
    "driver with dots": ["filter.evil.sub.clean={}"],
    "included": ["include.path=more"],
    "hooks": ["core.hooksPath=hooks"],
    "pager": ["core.pager={}", "pager.status=true", "pager.rev-parse=true"],
    "diffs": ["diff.evil.textconv={}", "diff.evil.command={}", "diff.external={}"],
    "alias": ["alias.status=!{}", "alias.rev-parse=!{}"],
    "partial clone": [
        "core.repositoryFormatVersion=1",
        "extensions.partialClone=origin",
        "remote.origin.promisor=true",
        "remote.origin.url=ext::{} ends",
        "protocol.ext.allow=always",
    ],
}


def test_names_of_any_bytes_are_read(tmp_path: Path) -> None:
    folder, _ = _repository(tmp_path)
    _git(folder, "config", "core.quotePath", "false")
    commit = _commit(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("")
    assert git_state(folder) == {"commit": commit, "dirty": True}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_that_a_repository_configures_is_run(tmp_path: Path, kind: str) -> None:
    folder, program = _repository(tmp_path)
    commit = _commit(folder)
    for setting in HOSTILE[kind]:
        key, _, value = setting.format(program).partition("=")
        _git(folder, "config", key, value)
    (folder / ".git/more").write_text('[filter "evil"]\nclean = ' + str(program) + "\n")
    driver = "evil.sub" if kind == "driver with dots" else "evil"
    (folder / ".git/info/attributes").write_text(f"*.x filter={driver}\n")
    for place in (".git/hooks", "hooks") if kind == "hooks" else ():
        (folder / place).mkdir(exist_ok=True)
        shutil.copy(program, folder / place / "post-index-change")
    (folder / ".git/info/exclude").write_text("hooks\n")
    if kind == "partial clone":
        _remove_tree(folder)
    os.utime(folder / "a.x", (1, 1))  # its contents are to be read
    state = git_state(folder)
    assert state == (None if kind == "partial clone" else {"commit": commit, "dirty": False})
    (folder / "a.x").write_text("two")
    state = git_state(folder)
    assert state == (None if kind == "partial clone" else {"commit": commit, "dirty": True})
    assert not (tmp_path / "mark").exists()
    _unguarded_status(folder)
    harmless = kind in ("pager", "diffs", "alias")
    assert (tmp_path / "mark").exists() != harmless  # git itself would have run it


def test_a_filter_that_cannot_be_named_is_not_run_either(tmp_path: Path) -> None:
    folder, program = _repository(tmp_path)
    _commit(folder)
    (folder / ".git/info/attributes").write_text("*.x filter=a=b\n")
    _git(folder, "config", "filter.a=b.clean", str(program))
    os.utime(folder / "a.x", (1, 1))
    assert git_state(folder) is None
    assert not (tmp_path / "mark").exists()


def test_a_filter_of_the_users_own_configuration_is_not_run_either(tmp_path: Path) -> None:
    """Started in the work tree, ``python -m nbstripout`` would run the repository's own module."""
    folder, program = _repository(tmp_path)
    _commit(folder)
    _git(folder, "config", "--global", "filter.evil.clean", str(program))
    os.utime(folder / "a.x", (1, 1))
    assert git_state(folder) == {"commit": _git(folder, "rev-parse", "HEAD"), "dirty": False}
    assert not (tmp_path / "mark").exists()


def test_nothing_that_a_submodule_configures_is_run(tmp_path: Path) -> None:
    folder, program = _repository(tmp_path)
    inner = folder / "inner"
    inner.mkdir()
    _git(inner, "init", "--quiet")
    (inner / "file").write_text("one")
    _commit(inner)
    commit = _commit(folder)
    _git(inner, "config", "core.fsmonitor", str(program))
    assert git_state(folder) == {"commit": commit, "dirty": False}
    assert not (tmp_path / "mark").exists()
    _unguarded_status(folder)
    assert (tmp_path / "mark").exists()


def _repository(place: Path) -> tuple[Path, Path]:
    """A repository with a file that drivers named evil filter; and a program that leaves a mark."""
    program = place / "program"
    program.write_text(f'#!/bin/sh\ntouch {place}/mark\n[ $# -gt 0 ] && [ "$1" = ends ] || cat\n')
    program.chmod(0o700)
    folder = place / "repository"
    folder.mkdir()
    _git(folder, "init", "--quiet")
    (folder / ".gitattributes").write_text("*.x filter=evil diff=evil\n")
    (folder / "a.x").write_text("one")
    return folder, program


def _unguarded_status(folder: Path) -> None:
    """As anybody asks; what it starts may wait for an answer, so its input has ended."""
    subprocess.run(
        ["git", "status"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


def _remove_tree(folder: Path) -> None:
    tree = _git(folder, "rev-parse", "HEAD^{tree}")
    (folder / ".git/objects" / tree[:2] / tree[2:]).unlink()


def _commit(folder: Path) -> str:
    """Of everything in it; returns its name."""
    _git(folder, "add", ".")
    _git(
        folder,
        *("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "one"),
    )
    return _git(folder, "rev-parse", "HEAD")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
