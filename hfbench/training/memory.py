"""Peak memory of a training: of the GPU where there is one, else of the process."""

import os
import sys
from pathlib import Path

import torch

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak(device: torch.device) -> None:
    """Start a new measurement. On Linux the kernel's high-water mark is set back."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access(_CLEAR_REFS, os.W_OK):
        _CLEAR_REFS.write_text("5")  # proc(5): resets VmHWM to the present resident size


def peak_bytes(device: torch.device) -> int | None:
    """Highest memory since :func:`reset_peak`, in bytes.

    GPU: allocated tensors. Linux CPU: resident size of the process, libraries included. None
    where the system has no such measure.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _resident_bytes("VmHWM")


def present_bytes(device: torch.device) -> int | None:
    """Memory in use now, measured as :func:`peak_bytes` does."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _resident_bytes("VmRSS")


def _resident_bytes(entry: str) -> int | None:
    if sys.platform != "linux":
        return None
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith(entry))
    return int(line.split()[1]) * 1024
