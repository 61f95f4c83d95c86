"""Where a run writes, what identifies it, and the record that grows while it goes on.

No large library: the matrix of runs needs the names without loading the libraries.
"""

import hashlib
import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hfbench import provenance
from hfbench.config import NEUTRAL_KEYS, RunConfig
from hfbench.errors import OtherProcessFailedError, UserError
from hfbench.manifest import DamagedError, check_files
from hfbench.repository import git_state
from hfbench.results import RESULT_FILE, Failure, RunResult, Status


def run_folder(config: RunConfig) -> Path:
    """Where a run writes: ``output_dir``, or a folder named after what is run."""
    if config.output_dir is not None:
        return Path(config.output_dir)
    what = f"{slug(config.start)}_{slug(config.data.label)}"
    return Path("runs") / config.task / what / run_name(config)


def run_name(config: RunConfig) -> str:
    """Folder name of one strategy and seed, such as ``last_2_seed0``."""
    return f"{slug(config.strategy.label)}_seed{config.seed}"


def finished_result(folder: Path, config: RunConfig) -> RunResult | None:
    """The result of the same run if it succeeded in ``folder``; None when it must be run.

    It must be run too where what it left is not as it was written (:func:`damage`), and where its
    model was removed that is to be kept now.

    Raises:
        UserError: ``folder`` holds another run.
    """
    path = folder / RESULT_FILE
    if not path.exists() or damage(folder) is not None:
        return None
    result = RunResult.load(path)
    if result.run_id != run_id(config):
        raise UserError(
            f"{str(folder)!r} holds another run ({result.strategy}, seed {result.seed}, with other "
            "settings, data or checkpoint): choose another output_dir or remove that folder"
        )
    if result.model_removed is not None and config.output.keep == "all":
        return None
    return result if result.status == "succeeded" else None


def removed(folder: Path) -> str | None:
    """That the model of the finished run in ``folder`` was removed, for people; or None."""
    try:
        why = RunResult.load(folder / RESULT_FILE).model_removed
    except UserError:  # missing, or damaged
        return None
    return None if why is None else f"its model was removed ({why})"


def damage(folder: Path) -> str | None:
    """What is not as it was written of a finished run's record, model and check; or None.

    Of a run that did not succeed only the record counts.
    """
    if not (folder / RESULT_FILE).is_file():
        return None
    try:
        result = RunResult.load(folder / RESULT_FILE)
        if result.model_removed is None:
            check_files(folder, result.saved_files or {})
    except (UserError, DamagedError) as error:
        return str(error)
    return None


def run_id(config: RunConfig) -> str:
    """A name that two runs share exactly when their settings and local files are the same."""
    values = config.to_dict()
    values["local files"] = [
        _file_stamps(config.model.checkpoint, "checkpoints"),
        _file_stamps(config.data.source, "data"),
    ]
    for key in NEUTRAL_KEYS:
        section, _, name = key.rpartition(".")
        (values[section] if section else values).pop(name)
    values.pop("output")  # which has no other key
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return f"{run_name(config)}-{digest[:12]}"


STARTED = "the process ended before the run: killed, or interrupted"  # until something is known


class Record:
    """Collects the fields of a result while the run goes on."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        primary_metric: str,
        greater_is_better: bool,
        num_processes: int,
    ) -> None:
        self.folder = folder
        self.begun = False  # what fails from now on leaves a result in any case
        self._final = False  # how the run ended is written
        self._lock = threading.Lock()
        self.fields: dict[str, Any] = {
            "run_id": run_id(config),
            "task": config.task,
            "checkpoint": config.start,
            "checkpoint_commit": None,
            "dataset": config.data.label,
            "strategy": config.strategy.label,
            "seed": config.seed,
            "config": config.to_dict(),
            "versions": provenance.versions(),
            "git": git_state(),
            "hardware": provenance.hardware(),
            "parameters": None,
            "predicted": None,
            "not_predicted": None,
            "history": (),
            "primary_metric": primary_metric,
            "greater_is_better": greater_is_better,
            "best_validation": None,
            "prefix": None,
            "test_metrics": {},
            "data": {},
            "train_seconds": None,
            "total_seconds": None,
            "samples_per_second": None,
            "steps": 0,
            "peak_memory_bytes": None,
            "saved_bytes": None,
            "saved_files": None,
            "model_removed": None,
            "failure": None,
            "num_processes": num_processes,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def update(self, **fields: Any) -> None:
        self.fields.update(fields)

    def build(self, status: Status, reason: str | None) -> RunResult:
        return RunResult(status=status, reason=reason, **self.fields)

    def write(self, status: Status, reason: str | None) -> RunResult:
        """Build the result and save it, whole or not at all.

        Raises OtherProcessFailedError where another thread has written why the run failed.
        """
        with self._lock:
            if self._final:
                raise OtherProcessFailedError("the run has failed meanwhile")
            self._final = status != "failed"  # that is written at the beginning
            return self._save(status, reason)

    def write_failure(self, status: Status, reason: str, failure: Failure) -> None:
        """Save why the run failed, unless its end was written before."""
        with self._lock:
            if not self._final:
                self._final = True
                self.update(failure=failure)
                self._save(status, reason)

    def _save(self, status: Status, reason: str | None) -> RunResult:
        result = self.build(status, reason)
        result.save(self.folder / RESULT_FILE)
        return result


def _file_stamps(name: str, kind: str) -> list[tuple[str, int, int]]:
    """Name, size and time of every file of a local source; empty for a hub name."""
    bundled = Path(__file__).parent / "bundled" / kind / name.removeprefix("bundled/")
    path = bundled if name.startswith("bundled/") else Path(name).expanduser()
    if not name or not path.exists():
        return []
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    stamps = ((file, file.stat()) for file in files)
    return [(str(f.relative_to(path)), s.st_size, s.st_mtime_ns) for f, s in stamps]


def slug(text: str) -> str:
    """``text`` as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text.strip("/.")).strip("_")
