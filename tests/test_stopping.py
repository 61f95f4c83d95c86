"""What a run leaves that failed: its first cause, once."""

from pathlib import Path

import pytest
from accelerate import Accelerator

from hfbench.config import load_config
from hfbench.errors import OtherProcessFailedError, TrainingFailedError, UserError
from hfbench.record import STARTED, Record
from hfbench.results import Failure, RunResult
from hfbench.stopping import ends_recorded, failing_together
from hfbench.training.divergence import DivergedError


@pytest.fixture
def record(tmp_path: Path) -> Record:
    config = load_config(None, [f"output_dir={tmp_path}"])
    return Record(
        config, tmp_path, primary_metric="accuracy", greater_is_better=True, num_processes=1
    )


def fail(record: Record, error: Exception) -> RunResult:
    with failing_together(), ends_recorded(record, Accelerator(cpu=True), lambda: None):
        raise error


def result_of(record: Record) -> RunResult:
    return RunResult.load(record.folder / "result.json")


@pytest.mark.parametrize(
    ("error", "status", "reason", "raised"),
    [
        (KeyError("labels"), "failed", "KeyError: 'labels'", KeyError),
        (MemoryError("full"), "out_of_memory", "MemoryError: full", TrainingFailedError),
        (DivergedError("nan"), "diverged", "DivergedError: nan", DivergedError),
    ],
)
def test_a_failure_is_recorded_with_its_process_and_traceback(
    record: Record, error: Exception, status: str, reason: str, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        fail(record, error)
    result = result_of(record)
    assert (result.status, result.reason) == (status, reason)
    assert result.failure is not None
    assert result.failure.rank == 0
    assert "in fail" in str(result.failure.traceback)


@pytest.mark.parametrize("begun", [False, True])
def test_a_mistake_before_the_training_leaves_no_result(record: Record, begun: bool) -> None:
    record.begun = begun
    with pytest.raises(UserError):
        fail(record, UserError("data.source is wrong"))
    assert (record.folder / "result.json").exists() == begun


def test_the_first_failure_stays(record: Record) -> None:
    record.write("failed", STARTED)
    record.write_failure("failed", "first", Failure(1, None))
    record.write_failure("out_of_memory", "second", Failure(0, "Traceback"))
    with pytest.raises(OtherProcessFailedError):
        record.write("succeeded", None)
    assert (result_of(record).reason, result_of(record).failure) == ("first", Failure(1, None))


def test_what_fails_after_the_end_changes_no_result(record: Record) -> None:
    record.write("succeeded", None)
    with pytest.raises(KeyError):
        fail(record, KeyError("later"))
    assert result_of(record).status == "succeeded"
    assert result_of(record).failure is None
