"""One of several processes fails: its cause is recorded and said, and all end within seconds."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faulty_recipe import BOOM
from tiny_runs import overrides

from hfbench.choices import kept_choices

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")

TESTS = Path(__file__).parent
RECIPE = TESTS / "faulty_recipe.py"
LAUNCHER = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0"]
LAUNCHER += ["--config_file", str(TESTS.parent / "accelerate_configs/multi_cpu.yaml")]
ENDED_SECONDS = 15.0  # after the fault, with everything that the launcher does
STATUSES = {"error": "failed", "memory": "out_of_memory", "kill": "failed"}
REASONS = {"error": f"ValueError: {BOOM}", "memory": f"MemoryError: {BOOM}"}


@dataclass(frozen=True)
class Ended:
    """What a run on two processes left."""

    folder: Path
    code: int
    out: str
    error: str
    seconds: float  # after the fault

    @property
    def result(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return values

    @property
    def said(self) -> list[str]:
        """What is ours of standard error, in whole lines."""
        return [line for line in self.error.splitlines() if line.startswith("hfbench: ")]


def launched(settings: list[str], tmp_path: Path, faults: str, limit: float | None = None) -> Ended:
    folder = tmp_path / "run"
    environment = {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "FAULTS": faults,
        "FAULT_FILE": str(tmp_path / "fault"),
    }
    if limit is not None:
        environment["LIMIT_SECONDS"] = str(limit)
    process = subprocess.Popen(
        [sys.executable, *LAUNCHER, str(RECIPE), *settings, f"output_dir={folder}"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out, error = process.communicate(timeout=120)
    assert working_in(folder) == []
    seconds = time.time() - (tmp_path / "fault").stat().st_mtime
    return Ended(folder, process.returncode, out, error, seconds)


@pytest.fixture
def settings(tiny_bert: Path, texts: Path, tmp_path: Path) -> list[str]:
    return [*overrides(tiny_bert, texts, tmp_path / "run")[:-1], "strategy=last_1", "cache=always"]


QUICK = [("step", "kill", 1), ("prefix", "error", 1)]
SWEEP = [
    (phase, kind, rank)
    for phase in ("data", "prefix", "step", "evaluation", "save", "writing")
    for kind in STATUSES
    for rank in (0, 1)
    if (phase, rank) != ("writing", 1)
]


@pytest.mark.parametrize(
    ("phase", "kind", "rank"),
    [pytest.param(*c, marks=[] if c in QUICK else pytest.mark.slow) for c in SWEEP],
)
def test_the_process_that_fails_first_is_named_with_its_reason(
    phase: str, kind: str, rank: int, settings: list[str], tmp_path: Path
) -> None:
    ended = launched(settings, tmp_path, f"{rank}/{phase}:{kind}")
    assert ended.code != 0
    result = ended.result
    assert result["status"] == STATUSES[kind], result["reason"]
    assert result["failure"]["rank"] == rank
    if kind == "kill":
        assert result["reason"].startswith(f"process {rank} was killed (SIGKILL), perhaps by the ")
        assert result["failure"]["traceback"] is None
    else:
        assert result["reason"] == REASONS[kind]
        assert "in burst" in result["failure"]["traceback"] or kind == "memory"
    (line,) = ended.said
    assert (f"process {rank}" if kind == "kill" else f"(process {rank})") in line
    assert ended.seconds < ENDED_SECONDS
    assert leftovers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("faults", ["0/data:mistake,1/data:mistake", "1/data:mistake"])
def test_a_mistake_is_said_once_and_leaves_nothing(
    faults: str, settings: list[str], tmp_path: Path
) -> None:
    ended = launched(settings, tmp_path, faults)
    assert [line.partition("): ")[2] for line in ended.said] == [BOOM]
    assert "Traceback" not in ended.error.partition("hfbench: error")[0]
    assert not ended.folder.exists()


@pytest.mark.slow
def test_the_main_process_may_work_longer_than_a_collective_waits(
    settings: list[str], tmp_path: Path
) -> None:
    """While it prepares the data and while it saves the model."""
    ended = launched(settings, tmp_path, "0/data:slow,0/writing:slow", limit=5.0)
    assert ended.code == 0, ended.error
    assert ended.result["status"] == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["error", "kill"])
def test_a_process_that_nothing_wakes_records_the_cause_and_ends(
    kind: str, settings: list[str], tmp_path: Path
) -> None:
    ended = launched(settings, tmp_path, f"0/step:stuck,1/step:{kind}")
    assert ended.result["status"] == "failed"
    assert ended.result["failure"]["rank"] == 1
    (line,) = ended.said
    assert ("process 1 was killed" if kind == "kill" else "(process 1)") in line
    assert ended.seconds < ENDED_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("faults", ["1/step:memory", "1/step:memory,0/step:stuck"])
def test_parts_are_kept_whichever_process_was_out_of_memory(
    faults: str, settings: list[str], tmp_path: Path
) -> None:
    ended = launched([*settings, "training.oom=retry"], tmp_path, faults)
    assert ended.result["status"] == "out_of_memory"
    assert kept_choices(ended.folder).parts == 2
    (line,) = ended.said
    assert "(process 1): out of memory: when it starts again" in line


def working_in(folder: Path) -> list[int]:
    """Each worker has a session of its own, so their words tell them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:  # ended just now
            continue
        if f"output_dir={folder}".encode() in words:
            found.append(int(path.parent.name))
    return found


def leftovers(folder: Path) -> list[str]:
    return sorted(
        path.name
        for path in folder.rglob("*")
        if path.name.endswith(".tmp")
        or path.name.startswith(".partial")
        or ".writing-" in path.name
    )
