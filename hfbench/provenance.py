"""Where a result comes from: versions, the code, and the machine."""

import hashlib
import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import hfbench

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "evaluate", "timm")
# Instructions for bfloat16, float16 and matrices, as Linux names them
HALF_PRECISION = {"avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "bf16", "sve", "sme"}


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


@cache
def code_digest() -> str:
    """Of every module of this package: a development copy changes without its version."""
    digest = hashlib.sha256()
    folder = Path(hfbench.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def hardware() -> dict[str, Any]:
    """The machine: ``platform``, ``cpu``, ``cores``, ``memory_bytes``, ``gpus``.

    ``cpu`` is the model's name, ``cores`` those that this process may use, ``gpus`` a list of
    names: empty unless PyTorch is loaded and sees CUDA devices.
    """
    return {
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "gpus": _gpu_names(),
    }


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def half_precision_instructions() -> list[str] | None:
    """Which instructions for bfloat16 and for matrices the processor has; None: not known here."""
    flags = _cpuinfo("flags") or _cpuinfo("Features")  # x86, ARM
    if flags is None:
        return None
    return sorted(HALF_PRECISION.intersection(flags.split()))


def _cpuinfo(entry: str) -> str | None:
    """What Linux says of the first processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return None
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == entry:
            return value.strip()
    return None


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
