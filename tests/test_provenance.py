"""What a result says about code and machine."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import hfbench
from hfbench.provenance import git_state, hardware, versions


def test_versions_are_those_installed() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["hfbench"] == hfbench.__version__
    for package in ("torch", "transformers", "datasets", "accelerate", "peft"):
        assert found[package] == metadata.version(package)


def test_git_state_follows_the_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    _git(tmp_path, "init", "--quiet")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("one")
    _git(tmp_path, "add", "file")
    _git(
        tmp_path,
        *("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "one"),
    )
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_git_state_without_git(tmp_path: Path) -> None:
    code = "from hfbench.provenance import git_state; print(git_state())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(Path(hfbench.__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"


def test_hardware_of_this_machine() -> None:
    found = hardware()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert isinstance(found["gpus"], list)


def test_asking_for_versions_and_hardware_does_not_load_torch() -> None:
    code = (
        "import sys; from hfbench.provenance import hardware, versions; versions()\n"
        "assert hardware()['gpus'] == []\n"
        "print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
