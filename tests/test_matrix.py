"""The order of the runs of a comparison."""

from pathlib import Path

import pytest

from hfbench.config import load_config, parse_strategy
from hfbench.matrix import plan_matrix


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
