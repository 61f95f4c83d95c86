"""Results survive the disk unchanged, whole or not at all."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from result_factory import make_result

from hfbench.errors import UserError
from hfbench.results import EpochRecord, ParameterReport, ParameterRow, RunResult, load_all


def test_result_survives_a_round_trip_through_a_file(tmp_path: Path) -> None:
    result = make_result()
    result.save(tmp_path / "deep" / "result.json")
    assert RunResult.load(tmp_path / "deep" / "result.json") == result
    assert RunResult.from_dict(result.to_dict()) == result


def test_failed_run_without_measurements_survives(tmp_path: Path) -> None:
    result = make_result(
        status="out_of_memory",
        reason="no room",
        parameters=None,
        git=None,
        history=(),
        test_metrics={},
        train_seconds=None,
        peak_memory_bytes=None,
    )
    result.save(tmp_path / "result.json")
    loaded = RunResult.load(tmp_path / "result.json")
    assert loaded == result
    assert loaded.primary_value is None


def test_saving_leaves_one_file_and_replaces_an_older_one(tmp_path: Path) -> None:
    make_result(accuracy=0.1).save(tmp_path / "result.json")
    make_result(accuracy=0.2).save(tmp_path / "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert RunResult.load(tmp_path / "result.json").primary_value == 0.2


def test_a_failed_save_keeps_the_older_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_result(accuracy=0.1).save(tmp_path / "result.json")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(UserError, match=r"result\.json.*No space left.*output_dir"):
        make_result(accuracy=0.2).save(tmp_path / "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert RunResult.load(tmp_path / "result.json").primary_value == 0.1


def test_numbers_that_are_not_finite_become_null_with_a_reason(tmp_path: Path) -> None:
    record = EpochRecord(epoch=1.0, step=1, train_loss=math.nan, validation={"accuracy": 0.5})
    result = make_result(history=(record,), test_metrics={"accuracy": 0.5, "wer": math.inf})
    result.save(tmp_path / "result.json")
    loaded = RunResult.load(tmp_path / "result.json")
    assert loaded.history[0].train_loss is None
    assert loaded.test_metrics == {"accuracy": 0.5, "wer": None}
    assert loaded.reason == (
        "not finite, written as null: history.0.train_loss (nan), test_metrics.wer (inf)"
    )
    failed = replace(result, status="failed", reason="diverged").to_dict()
    assert failed["reason"].startswith("diverged; not finite")


def test_unknown_schema_version_names_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, make_result().to_dict() | {"schema_version": 99})
    with pytest.raises(UserError, match=r"result\.json.*schema_version 99"):
        RunResult.load(path)


@pytest.mark.parametrize("key", ["history", "seed", "parameters"])
def test_missing_key_names_the_file_and_the_key(tmp_path: Path, key: str) -> None:
    values = make_result().to_dict()
    del values[key]
    with pytest.raises(UserError, match=rf"result\.json.*{key}"):
        RunResult.load(_write(tmp_path, values))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "zero"),
        ("seed", True),
        ("status", "perhaps"),
        ("history", [1]),
        ("parameters", {"total": 1}),
        ("colour", "red"),
    ],
)
def test_mistyped_or_unknown_entry_names_the_file_and_the_key(
    tmp_path: Path, key: str, value: object
) -> None:
    with pytest.raises(UserError, match=r"result\.json") as caught:
        RunResult.load(_write(tmp_path, make_result().to_dict() | {key: value}))
    assert key in str(caught.value) or "EpochRecord" in str(caught.value) or key == "parameters"


@pytest.mark.parametrize("content", [b"{broken", b"[1]", b"\xff\xfe\xfa", b""])
def test_file_that_is_no_result_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a.result\.json"):
        load_all(tmp_path)


def test_load_all_finds_nested_results_in_a_fixed_order(tmp_path: Path) -> None:
    for folder, strategy, seed in (("x", "head", 1), ("y/z", "head", 0), ("a", "lora", 0)):
        make_result(strategy, seed).save(tmp_path / folder / "result.json")
    (tmp_path / "x" / "other.json").write_text("{}")
    found = [(result.strategy, result.seed) for result in load_all(tmp_path)]
    assert found == [("head", 0), ("head", 1), ("lora", 0)]
    with pytest.raises(UserError, match="absent"):
        load_all(tmp_path / "absent")


def test_parameter_report_derives_frozen_and_percent() -> None:
    row = ParameterRow("block 0", total=200, trainable=50)
    report = ParameterReport(200, 50, buffers=7, by_depth=(row,), by_layer_type=(row,))
    assert (row.frozen, report.frozen, report.trainable_percent) == (150, 150, 25.0)
    assert ParameterReport.from_dict(report.to_dict()) == report
    assert ParameterReport(0, 0, 0, (), ()).trainable_percent == 0.0


def _write(folder: Path, values: dict[str, object]) -> Path:
    path = folder / "result.json"
    path.write_text(json.dumps(values))
    return path
