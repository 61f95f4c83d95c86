"""Means, deviations and the verdict against scratch, computed by hand."""

import math
from typing import Any

import pytest
from result_factory import make_result

from hfbench.compare import (
    Group,
    aggregate,
    beats_scratch,
    differing_settings,
    same_data,
    sections,
)
from hfbench.results import RunResult


def test_group_has_mean_and_sample_deviation_over_seeds() -> None:
    (group,) = aggregate(make_result(seed=seed, accuracy=a) for seed, a in enumerate((0.6, 0.8)))
    assert group.n == 2
    assert group.primary is not None
    assert group.primary.mean == pytest.approx(0.7)
    assert group.primary.std == pytest.approx(math.sqrt(0.02))  # (0.1² + 0.1²) / (2 - 1)
    assert group.train_seconds is not None
    assert group.train_seconds.mean == pytest.approx(10.5)  # 10 s and 11 s
    assert group.trainable_percent == pytest.approx(100 * 1_538 / 109_483_778)


def test_single_run_has_no_deviation() -> None:
    (group,) = aggregate([make_result()])
    assert group.primary is not None
    assert (group.primary.n, group.primary.std) == (1, None)


def test_failed_runs_are_counted_and_not_averaged() -> None:
    runs = [
        make_result(seed=0, accuracy=0.5),
        make_result(seed=1, status="failed", reason="diverged", accuracy=0.0),
        make_result(seed=2, status="out_of_memory", reason=None, accuracy=None),
    ]
    (group,) = aggregate(runs)
    assert group.n == 1
    assert group.primary is not None
    assert group.primary.mean == 0.5
    assert [(f.seed, f.status, f.reason) for f in group.failures] == [
        (1, "failed", "diverged"),
        (2, "out_of_memory", "no reason was recorded"),
    ]


def test_group_of_failures_has_no_mean_and_keeps_its_parameters() -> None:
    (group,) = aggregate([make_result(status="failed", reason="x", test_metrics={})])
    assert (group.n, group.primary, group.trainable_parameters) == (0, None, 1_538)


def test_metric_that_is_not_finite_is_left_out_of_the_mean() -> None:
    (group,) = aggregate([make_result(seed=0, accuracy=math.nan), make_result(seed=1)])
    assert group.n == 2
    assert group.primary is not None
    assert (group.primary.n, group.primary.mean) == (1, 0.75)


def test_last_started_run_of_a_seed_counts() -> None:
    first = make_result(accuracy=0.1, started_at="2026-01-01T00:00:00+00:00")
    second = make_result(accuracy=0.9, started_at="2026-01-02T00:00:00+00:00")
    (group,) = aggregate([second, first])
    assert (group.n, group.primary and group.primary.mean) == (1, 0.9)


def test_scratch_comes_first_then_by_trainable_parameters() -> None:
    runs = [
        make_result("full", trainable=100),
        make_result("scratch", trainable=100),
        make_result("lora", trainable=20),
        make_result("unknown", parameters=None),
        make_result("head", trainable=5),
        make_result("head", trainable=5, task="audio_classification"),
    ]
    groups = aggregate(runs)
    assert [group.strategy for group in groups] == [
        "head",
        "scratch",
        "head",
        "lora",
        "full",
        "unknown",
    ]
    assert [len(section) for section in sections(groups)] == [1, 5]


def run_with(seed: int = 0, accuracy: float = 0.75, **training: Any) -> RunResult:
    config = {"seed": seed, "output_dir": f"runs/{seed}{training}", "training": training}
    return make_result("full", seed, accuracy, config=config)


def test_runs_of_another_learning_rate_are_no_seeds() -> None:
    runs = [run_with(seed, 0.5, learning_rate=1e-4) for seed in (0, 1)]
    runs += [run_with(seed, 0.9, learning_rate=1e-5) for seed in (0, 1, 2)]
    low, high = aggregate(runs)
    assert (low.label, low.n) == ("full [learning_rate=1e-05]", 3)
    assert (high.label, high.n) == ("full [learning_rate=0.0001]", 2)
    assert [group.primary and group.primary.mean for group in (low, high)] == [0.9, 0.5]
    assert low.primary_values == (0.9, 0.9, 0.9)
    assert differing_settings([low, high]) == ()  # each row names it


@pytest.mark.parametrize(
    ("one", "two", "labels"),
    [
        ({"epochs": 1}, {"epochs": 2}, ["full [epochs=1]", "full [epochs=2]"]),
        ({}, {"epochs": 5}, ["full [epochs=3]", "full [epochs=5]"]),  # 3 is the default
        ({"max_steps": 10}, {}, ["full [max_steps=10]", "full [max_steps=null]"]),
        (
            {"lr_scheduler_type": "linear", "l1": 0.1},
            {"lr_scheduler_type": "cosine", "l1": 0.1},
            ["full [lr_scheduler_type=cosine]", "full [lr_scheduler_type=linear]"],
        ),
        ({"epochs": 3}, {}, ["full"]),  # an older result without the key
        ({"save_steps": 5}, {"save_steps": 6, "eval_batch_size": 2}, ["full"]),  # changes nothing
    ],
)
def test_a_row_says_in_what_its_runs_differ(
    one: dict[str, Any], two: dict[str, Any], labels: list[str]
) -> None:
    assert [group.label for group in aggregate([run_with(0, **one), run_with(1, **two)])] == labels


def test_other_contents_of_the_data_are_a_row_of_their_own() -> None:
    runs = [
        make_result("full", 0, data={"fingerprint": "1111111111aa"}),
        make_result("full", 1, data={"fingerprint": "2222222222bb"}),
        make_result("full", 2, None, status="failed", reason="x", data={}, test_metrics={}),
    ]
    one, two = aggregate(runs)
    assert (one.label, two.label) == ("full [fingerprint=11111111]", "full [fingerprint=22222222]")
    assert [len(group.failures) for group in (one, two)] == [1, 0]  # it never saw its data


def test_another_commit_of_the_checkpoint_is_a_row_of_its_own() -> None:
    groups = aggregate(make_result("full", s, checkpoint_commit=c) for s, c in enumerate("abb"))
    assert [(group.label, group.n) for group in groups] == [
        ("full [commit=a]", 1),
        ("full [commit=b]", 2),
    ]


def test_a_seed_counts_once_whatever_its_run_is_called() -> None:
    """A copied data file has another time, and so has the run another name."""
    first = make_result(accuracy=0.1, run_id="a", started_at="2026-01-01T00:00:00+00:00")
    second = make_result(accuracy=0.9, run_id="b", started_at="2026-01-02T00:00:00+00:00")
    (group,) = aggregate([second, first])
    assert (group.n, group.primary_values) == (1, (0.9,))


def test_runs_that_a_measurement_gave_another_precision_are_rows_of_their_own() -> None:
    def trained_in(precision: str, seed: int) -> RunResult:
        config = {"seed": seed, "training": {"mixed_precision": "auto"}}
        hardware = {"cpu": "a processor", "cores": 2, "gpus": [], "precision": precision}
        return make_result(seed=seed, config=config, hardware=hardware)

    groups = aggregate([trained_in("bf16", 0), trained_in("no", 1)])
    assert [group.label for group in groups] == [
        "head [mixed_precision=bf16]",
        "head [mixed_precision=no]",
    ]
    (group,) = aggregate([trained_in("bf16", 0), trained_in("bf16", 1)])
    assert group.label == "head"
    assert group.settings["training.mixed_precision"] == "bf16"


def test_strategies_that_were_run_otherwise_are_named() -> None:
    other = make_result("head", config={"training": {"learning_rate": 5e-5, "epochs": 9}})
    groups = aggregate([run_with(0, learning_rate=1.0), run_with(0, learning_rate=5e-5), other])
    assert differing_settings(groups) == ("training.epochs", "training.learning_rate")


def test_the_best_is_compared_with_the_best_scratch_on_the_same_data() -> None:
    def group_of(strategy: str, data: str, values: tuple[float, ...], epochs: int = 3) -> list:
        config, contents = {"training": {"epochs": epochs}}, {"fingerprint": data}
        return [
            make_result(strategy, seed, value, config=config, data=contents)
            for seed, value in enumerate(values)
        ]

    runs = group_of("scratch", "a", (0.5, 0.6)) + group_of("scratch", "a", (0.7, 0.8), epochs=9)
    runs += group_of("head", "a", (0.8, 0.9)) + group_of("head", "b", (0.99, 1.0))
    (verdict,) = beats_scratch(aggregate(runs))
    assert verdict.best.label == "head [fingerprint=a]"
    assert verdict.scratch.label == "scratch [epochs=9]"
    assert verdict.difference == pytest.approx(0.1)


def test_distance_to_scratch_in_pooled_deviations() -> None:
    # scratch: mean 0.5, variance 0.02 (n = 2); lora: mean 0.9, variance 0.01 (n = 3)
    # pooled: (1 * 0.02 + 2 * 0.01) / 3 = 0.04 / 3
    groups = aggregate(
        [make_result("scratch", seed, a) for seed, a in enumerate((0.4, 0.6))]
        + [make_result("lora", seed, a) for seed, a in enumerate((0.8, 0.9, 1.0))]
        + [make_result("head", seed, 0.7) for seed in range(2)]
    )
    (verdict,) = beats_scratch(groups)
    assert verdict.best.strategy == "lora"
    assert verdict.difference == pytest.approx(0.4)
    assert verdict.pooled_std == pytest.approx(math.sqrt(0.04 / 3))
    assert verdict.stds == pytest.approx(0.4 / math.sqrt(0.04 / 3))  # 3.46
    assert verdict.beats_scratch


def test_difference_within_two_deviations_does_not_beat_scratch() -> None:
    groups = _two_groups(scratch=(0.4, 0.6), head=(0.5, 0.7))  # 0.1 / sqrt(0.02) = 0.71
    (verdict,) = beats_scratch(groups)
    assert verdict.stds == pytest.approx(0.1 / math.sqrt(0.02))
    assert not verdict.beats_scratch


def test_equal_runs_have_no_distance_in_deviations() -> None:
    (verdict,) = beats_scratch(_two_groups(scratch=(0.5, 0.5), head=(0.75, 0.75)))
    assert verdict.stds is None
    assert verdict.beats_scratch
    (verdict,) = beats_scratch(_two_groups(scratch=(0.5, 0.5), head=(0.5, 0.5)))
    assert not verdict.beats_scratch


def test_smaller_metric_can_be_better() -> None:
    runs = [
        make_result(
            strategy,
            seed,
            value,
            primary_metric="wer",
            test_metrics={"wer": value},
            greater_is_better=False,
        )
        for strategy, values in (
            ("scratch", (0.8, 0.9)),
            ("head", (0.5, 0.6)),
            ("full", (0.1, 0.2)),
        )
        for seed, value in enumerate(values)
    ]
    (verdict,) = beats_scratch(aggregate(runs))
    assert verdict.best.strategy == "full"
    assert verdict.difference == pytest.approx(0.7)
    assert verdict.beats_scratch


@pytest.mark.parametrize("values", [{"head": (0.5, 0.6)}, {"scratch": (0.5, 0.6)}])
def test_no_verdict_without_both_sides(values: dict[str, tuple[float, ...]]) -> None:
    assert beats_scratch(_two_groups(**values)) == []


def test_no_verdict_from_single_runs() -> None:
    assert beats_scratch(_two_groups(scratch=(0.5,), head=(0.9, 0.9))) == []
    assert beats_scratch(_two_groups(scratch=(0.5, 0.6), head=(0.9,))) == []


def _two_groups(**values: tuple[float, ...]) -> list[Group]:
    return aggregate(
        make_result(strategy, seed, value)
        for strategy, many in values.items()
        for seed, value in enumerate(many)
    )


def test_predicted_and_measured_become_means_over_the_seeds() -> None:
    """20 steps in 10 and 11 s; 1 GFLOP a step; 8 GFLOP/s in a product; predicted 0.4 s a step."""
    runs = [make_result("head", 0), make_result("head", 1), make_result("head", 2, predicted=None)]
    (group,) = aggregate(runs)
    assert group.step_seconds is not None
    assert group.step_seconds.mean == pytest.approx(0.55)
    assert group.flops_per_second is not None
    assert group.flops_per_second.n == 2
    assert group.flops_per_second.mean == pytest.approx((1e9 / 0.5 + 1e9 / 0.55) / 2)
    assert group.peak_share is not None
    assert group.peak_share.mean == pytest.approx((1 / 0.5 + 1 / 0.55) / 2 / 8)
    assert group.predicted_step_seconds is not None
    assert group.predicted_step_seconds.mean == 0.4
    assert group.predicted_peak_memory_bytes is not None
    assert group.predicted_peak_memory_bytes.mean == 2 * 2**30


def test_networks_that_learnt_the_same_data_stand_together_the_best_first() -> None:
    runs = [
        make_result("head", 0, 0.7),
        make_result("scratch", 0, 0.8, checkpoint="mlp-8"),
        make_result("full", 0, 0.9),
        make_result("full", 0, 0.99, dataset="another"),
        make_result("full", 0, None, checkpoint="mlp-9", test_metrics={}),
    ]
    (found,) = same_data(aggregate(runs))
    assert [(group.checkpoint, group.strategy) for group in found] == [
        ("google-bert/bert-base-uncased", "full"),
        ("mlp-8", "scratch"),
        ("google-bert/bert-base-uncased", "head"),
    ]
    assert same_data(aggregate(runs[2:])) == []
