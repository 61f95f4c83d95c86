"""Where a result comes from: versions, the state of the code, and the machine."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import hfbench

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "evaluate", "timm")
GIT_SECONDS = 10.0  # longest wait for git, for instance on a network drive


def versions() -> dict[str, str]:
    """Versions of Python, hfbench and the libraries, without importing these.

    A library that is not installed is left out.
    """
    found = {"python": platform.python_version(), "hfbench": hfbench.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: str | Path = ".") -> dict[str, Any] | None:
    """``{"commit": hash, "dirty": bool}`` of the repository around ``folder``.

    ``dirty``: tracked files were changed or untracked ones added. None without a repository, a
    commit or git itself.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain")
    if commit is None or status is None:
        return None
    return {"commit": commit, "dirty": status != ""}


def hardware() -> dict[str, Any]:
    """The machine: ``platform``, ``cpu``, ``cores``, ``memory_bytes``, ``gpus``.

    ``cpu`` is the model's name, ``cores`` those that this process may use, ``gpus`` a list of
    names: empty unless PyTorch is loaded and sees CUDA devices.
    """
    return {
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "gpus": _gpu_names(),
    }


def _git(folder: str | Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_bytes() -> int | None:
    """Physical memory; None where the system does not tell (Windows)."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gpu_names() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
