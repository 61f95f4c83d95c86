"""The order of the runs of a comparison."""

from pathlib import Path

import pytest

from hfbench import matrix
from hfbench.config import load_config, parse_strategy
from hfbench.matrix import plan_matrix, run_matrix


def test_longer_frozen_prefixes_come_after_the_shorter_ones_they_go_on_from(tmp_path: Path) -> None:
    given = ["head", "last_1", "scratch", "lora:last_n=2", "last_4", "full"]
    strategies = [parse_strategy(text) for text in given]
    runs = plan_matrix(load_config(None), strategies, [3, 5], tmp_path)
    order = ["scratch", "full", "last_4", "lora:last_n=2", "last_1", "head"]
    assert [run.strategy.label for run in runs] == 2 * order
    assert [run.seed for run in runs] == [3] * 6 + [5] * 6
    assert {run.cache for run in runs} == {"always"}


@pytest.mark.parametrize(("asked", "expected"), [("off", "off"), ("auto", "always")])
def test_a_matrix_stores_for_its_later_runs_unless_told_not_to(
    asked: str, expected: str, tmp_path: Path
) -> None:
    config = load_config(None, [f"cache={asked}"])
    (run,) = plan_matrix(config, [config.strategy], [0], tmp_path)
    assert run.cache == expected


def test_parameters_are_listed_once_a_strategy_and_the_runs_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def in_child(context: object, target: object, *arguments: object) -> int:
        calls.append((target, *arguments[:2]))
        return 0

    monkeypatch.setattr(matrix, "_in_child", in_child)
    strategies = [parse_strategy(text) for text in ("head", "full")]
    runs = plan_matrix(load_config(None), strategies, [0, 1], tmp_path)
    assert run_matrix(runs) == 0
    (first, *_), *rest = calls
    assert first is matrix._check_in_child
    assert rest == [
        (matrix._run_in_child, run, brief)
        for run, brief in zip(runs, (False, False, True, True), strict=True)
    ]
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split(";")[0] for line in lines] == [
        "4 runs (2 strategies × 2 seeds), none finished",
        "[1/4] full, seed 0",
        "1 of 4 runs done",
        "[2/4] head, seed 0",
        "2 of 4 runs done",
        "[3/4] full, seed 1",
        "3 of 4 runs done",
        "[4/4] head, seed 1",
    ]
    assert lines[2].endswith("the others take at most about 1 s")  # no run of head is known yet
    assert lines[4].endswith("the others take about 1 s")


def test_what_a_failed_run_may_not_have_listed_the_next_one_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    briefs = []

    def in_child(context: object, target: object, run: object, brief: bool, *more: object) -> int:
        if target is matrix._run_in_child:
            briefs.append(brief)
        return 1 if len(briefs) == 1 else 0

    monkeypatch.setattr(matrix, "_in_child", in_child)
    runs = plan_matrix(load_config(None), [parse_strategy("full")], [0, 1, 2], tmp_path)
    assert run_matrix(runs) == 1
    assert briefs == [False, False, True]
