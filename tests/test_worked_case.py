"""The worked case: what it prints is what it measured, and its statistics are right."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RECIPES))
    import worked_case

    monkeypatch.setattr(worked_case, "SEEDS", range(3))
    monkeypatch.setattr(worked_case, "DIFFICULTIES", (0.9,))
    return worked_case


def test_every_printed_number_was_measured(case: Any, capsys: pytest.CaptureFixture[str]) -> None:
    case.main()
    lines = capsys.readouterr().out.splitlines()
    distance = 2 * 1.2815515655446004  # the 90 % quantile of the normal distribution
    data = [case.draw(100, distance, seed) for seed in range(3)]
    for rate, steps in case.RUNS:
        (line,) = (text for text in lines if text.startswith(f"SGD {rate:g}, {steps:,} steps"))
        runs = [case.train(x, y, rate, steps, seed) for seed, (x, y) in enumerate(data)]
        expected = []
        for column, scale, digits in ((0, 1, 3), (1, 100, 1), (2, 100, 1)):
            values = [scale * run[column] for run in runs]
            centre = sum(values) / 3
            deviation = math.sqrt(sum((value - centre) ** 2 for value in values) / 2)
            expected += [f"{centre:.{digits}f}", "±", f"{deviation:.{digits}f}"]
        assert line.split("steps")[1].split() == expected
    claimed = [case.train(x, y, 0.01, 100, seed) for seed, (x, y) in enumerate(data)]
    low = sum(run[0] < 0.15 for run in claimed)
    high = sum(round(30 * run[2]) >= 27 for run in claimed)
    assert f"As claimed, of 3 seeds: loss about 0.1: {low}, test 90 % or more: {high}" in lines


def test_the_claimed_steps_do_not_reach_the_claimed_loss(case: Any) -> None:
    """Easy data too: 0.693 is the loss of guessing, and the rate times the steps is 1."""
    for best_accuracy_distance in (2.563, 4.653):  # 90 % and 99 %
        x, y = case.draw(100, best_accuracy_distance, 0)
        start = case.train(x, y, 0.01, 0, 0)[0]
        claimed, longer, faster = (case.train(x, y, *run, 0)[0] for run in case.RUNS[:3])
        assert start == pytest.approx(math.log(2), abs=0.2)
        assert start > claimed > 0.15 > longer
        assert faster == pytest.approx(longer, rel=0.1)  # only the product counts


def test_the_data_are_as_hard_as_said(case: Any) -> None:
    x, y = case.draw(100_000, 2.563, 0)
    right = ((x[:, 0] > 0) == (y == 1)).double().mean().item()
    assert right == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 100_000))
    odds = 2.563 * x[:, 0] * (2 * y - 1)  # of the two densities: exp(d x)
    assert case.best_loss(2.563) == pytest.approx(
        torch.log1p(torch.exp(-odds)).mean().item(), abs=0.005
    )
    assert case.best_loss(0.0) == pytest.approx(math.log(2))


def test_nearest_neighbours_and_the_larger_class_by_hand(case: Any) -> None:
    x, y = torch.zeros(100, 10), torch.zeros(100, dtype=torch.int64)
    x[:30, 0], y[:30] = 5.0, 1  # of the 70 training samples 40 have label 0
    x[70:80, 0], y[70:80] = 4.0, 1  # ten test samples near them, as labelled
    x[80:86, 0] = 4.0  # six near them, labelled otherwise
    neighbours, larger = case.untrained(x, y)
    assert neighbours == pytest.approx(24 / 30)
    assert larger == pytest.approx(20 / 30)


def test_the_interval_is_where_the_accuracy_is_1_96_standard_errors_away(
    case: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for right in (0, 15, 27, 30):
        for bound in case.wilson_interval(right, 30):
            if 1e-9 < bound < 1 - 1e-9:
                error = math.sqrt(bound * (1 - bound) / 30)
                assert abs(right / 30 - bound) == pytest.approx(1.959964 * error, rel=1e-5)
    # By hand: (27 + 1.9207 ± 1.96 sqrt(2.7 + 0.9604)) / 33.8415
    assert case.wilson_interval(27, 30) == pytest.approx((0.74379, 0.96540), abs=2e-5)
    monkeypatch.setattr(case, "DIFFICULTIES", ())
    case.main()
    assert capsys.readouterr().out.split("\n")[1:3] == [
        "One of 30 test samples is 3.3 points. 27 right:",
        "standard error 5.5 points, 95 % interval 74.4 to 96.5 % (Wilson)",
    ]
