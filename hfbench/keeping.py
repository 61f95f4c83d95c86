"""Which trained models stay on the disk: ``output.keep`` of a run and of a comparison.

A model is always saved and checked first. What goes is what the run's list of saved files names.
No large library.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from hfbench.claim import claimed
from hfbench.config import RunConfig
from hfbench.errors import UserError
from hfbench.manifest import DamagedError, inside
from hfbench.record import damage
from hfbench.results import RESULT_FILE, RunResult


def keep_best(runs: Sequence[RunConfig]) -> str | None:
    """Remove the saved models of all finished runs but the one that validates best.

    The test split has no say. Runs without a validation metric keep theirs, and all do where the
    best one's was removed before. Returns what was done, for people; None where nothing was.
    """
    results = {folder: result for run in runs for folder, result in _finished(run)}
    values = {
        folder: result.best_validation * (1 if result.greater_is_better else -1)
        for folder, result in results.items()
        if result.best_validation is not None and math.isfinite(result.best_validation)
    }
    if len(values) < 2:
        return None
    best = max(values, key=lambda folder: values[folder])  # the first of equals
    others = [folder for folder in values if folder != best and _has_files(folder, results[folder])]
    if not others:
        return None
    if (why := results[best].model_removed) is not None:
        return (
            f"output.keep=best: nothing is removed, because the model of the best run {best.name} "
            f"was removed before ({why}); output.keep=all trains it again"
        )
    said, size, count = f"output.keep=best: the model of {best.name} stays", 0, 0
    for folder in others:
        try:
            size += remove_model(folder, "output.keep=best")
            count += 1
        except (UserError, DamagedError) as error:
            said += f"; that of {folder.name} too: {error}"
    return f"{said}, {count} others were removed ({size / 1e6:,.1f} MB)"


def remove_model(folder: Path, why: str) -> int:
    """Remove what a finished run saved, say so in its result, and return the bytes.

    The result comes first: a process that is killed in between leaves no run that seems damaged.

    Raises:
        UserError: another process works there, or there is a link.
        DamagedError: the result names files that are not inside.
    """
    result = RunResult.load(folder / RESULT_FILE)
    with claimed(folder, result.run_id):
        names = result.saved_files or {}
        paths = [inside(folder, name) for name in names]
        dataclasses.replace(result, model_removed=why).save(folder / RESULT_FILE)
        return _remove(folder, paths)


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files inside ``folder``, and the folders that are empty then."""
    _remove(folder, [inside(folder, name) for name in names])


def _remove(folder: Path, paths: Sequence[Path]) -> int:
    there = [path for path in paths if path.is_file()]
    size = sum(path.stat().st_size for path in there)
    for path in there:
        path.unlink()
    for parent in sorted({path.parent for path in paths} - {folder}, reverse=True):
        with contextlib.suppress(OSError):  # what else is in it is not ours
            parent.rmdir()
    return size


def _finished(run: RunConfig) -> list[tuple[Path, RunResult]]:
    folder = Path(str(run.output_dir))
    if not (folder / RESULT_FILE).is_file() or damage(folder) is not None:
        return []
    result = RunResult.load(folder / RESULT_FILE)
    return [(folder, result)] if result.status == "succeeded" else []


def _has_files(folder: Path, result: RunResult) -> bool:
    return any((folder / name).is_file() for name in result.saved_files or {})
