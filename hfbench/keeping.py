"""Which trained models stay on the disk: ``output.keep`` of a run and of a comparison.

A model is always saved and checked first. What goes is what the run's list of saved files names.
No large library.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hfbench.config import RunConfig
from hfbench.record import damage
from hfbench.results import RESULT_FILE, RunResult


def keep_best(runs: Sequence[RunConfig]) -> str | None:
    """Remove the saved models of all finished runs but the one that validates best.

    The test split has no say. Runs without a validation metric keep theirs. Returns what was done,
    for people; None where nothing was.
    """
    folders = [Path(str(run.output_dir)) for run in runs]
    finished = [folder for folder in folders if _has_model(folder)]
    results = {folder: RunResult.load(folder / RESULT_FILE) for folder in finished}
    values = {
        folder: result.best_validation * (1 if result.greater_is_better else -1)
        for folder, result in results.items()
        if result.best_validation is not None
    }
    if len(values) < 2:
        return None
    best = max(values, key=lambda folder: values[folder])  # the first of equals
    sizes = [remove_model(folder, "output.keep=best") for folder in values if folder != best]
    return (
        f"output.keep=best: the model of {best.name} stays, {len(sizes)} others were removed "
        f"({sum(sizes) / 1e6:,.1f} MB)"
    )


def remove_model(folder: Path, why: str) -> int:
    """Remove what a finished run saved, say so in its result, and return the bytes.

    The result comes first: a process that is killed in between leaves no run that seems damaged.
    """
    result = RunResult.load(folder / RESULT_FILE)
    names = result.saved_files or {}
    dataclasses.replace(result, saved_files={}, model_removed=why).save(folder / RESULT_FILE)
    return remove_files(folder, names)


def remove_files(folder: Path, names: Sequence[str] | dict[str, list[object]]) -> int:
    """Remove files inside ``folder``, and the folders that are empty then; returns their bytes."""
    paths = [folder / name for name in names]
    size = sum(path.stat().st_size for path in paths)
    for path in paths:
        path.unlink()
    for parent in sorted({path.parent for path in paths} - {folder}, reverse=True):
        with contextlib.suppress(OSError):  # what else is in it is not ours
            parent.rmdir()
    return size


def _has_model(folder: Path) -> bool:
    if not (folder / RESULT_FILE).is_file() or damage(folder) is not None:
        return False
    result = RunResult.load(folder / RESULT_FILE)
    return result.status == "succeeded" and bool(result.saved_files)
