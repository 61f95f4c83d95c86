"""Runs that something outside of them ended at once, so that they could not say it themselves.

No large library: the matrix of runs reads this.
"""

import dataclasses
import signal
from collections.abc import Mapping
from typing import Any

from hfbench.claim import claimed
from hfbench.config import RunConfig
from hfbench.record import STARTED, run_folder, run_id
from hfbench.results import RESULT_FILE, Prediction, RunResult


def record_killed(config: RunConfig, number: int) -> str:
    """Say in the result of a run that had begun which signal ended it; the reason, for people.

    The record of a run that said more itself stays as it is. What its process was writing goes.

    Raises:
        UserError: another process works in the run's folder by now, or its record is damaged.
    """
    folder = run_folder(config)
    path = folder / RESULT_FILE
    with claimed(folder, run_id(config)):
        result = RunResult.load(path) if path.is_file() else None
        known = (None, {}) if result is None else (result.predicted, result.hardware)
        reason = killed(number, *known)
        if result is not None and result.reason == STARTED:
            dataclasses.replace(result, reason=reason).save(path)
    return reason


def killed(number: int, predicted: Prediction | None, hardware: Mapping[str, Any]) -> str:
    """Of a process that signal ``number`` ended, with what is known of its run."""
    name = signal.Signals(number).name
    if number != signal.SIGKILL:
        return f"killed ({name})"
    peak = None if predicted is None else predicted.peak_memory_bytes
    expected = "nothing was predicted yet" if peak is None else f"the plan predicted {_gib(peak)}"
    memory = hardware.get("memory_bytes")
    machine = f", the machine has {_gib(memory)}" if isinstance(memory, int) else ""
    return f"killed ({name}), perhaps by the kernel for want of memory: {expected}{machine}"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.3g} GiB"
