"""Means, deviations and the verdict against scratch, computed by hand."""

import math

import pytest
from result_factory import make_result

from hfbench.compare import Group, aggregate, beats_scratch, latest_runs, same_data, sections
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
    assert latest_runs([second, first]) == [second]
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


def test_different_configuration_of_averaged_runs_is_reported() -> None:
    runs = [
        make_result(seed=seed, config={"seed": seed, "training": {"learning_rate": rate}})
        for seed, rate in ((0, 1e-4), (1, 1e-5))
    ]
    (group,) = aggregate(runs)
    assert group.differing_config == ("training.learning_rate",)
    (group,) = aggregate([make_result(seed=0), make_result(seed=1)])
    assert group.differing_config == ()


def test_runs_that_a_measurement_gave_another_precision_were_not_run_alike() -> None:
    def trained_in(precision: str, seed: int) -> RunResult:
        config = {"seed": seed, "training": {"mixed_precision": "auto"}}
        hardware = {"cpu": "a processor", "cores": 2, "gpus": [], "precision": precision}
        return make_result(seed=seed, config=config, hardware=hardware)

    (group,) = aggregate([trained_in("bf16", 0), trained_in("no", 1)])
    assert group.differing_config == ("training.mixed_precision",)
    (group,) = aggregate([trained_in("bf16", 0), trained_in("bf16", 1)])
    assert group.differing_config == ()
    assert group.settings["training.mixed_precision"] == "bf16"


def test_distance_to_scratch_in_pooled_deviations() -> None:
    # scratch: mean 0.5, variance 0.02 (n = 2); lora: mean 0.9, variance 0.01 (n = 3)
    # pooled: (1 * 0.02 + 2 * 0.01) / 3 = 0.04 / 3
    groups = aggregate(
        [make_result("scratch", seed, a) for seed, a in enumerate((0.4, 0.6))]
        + [make_result("lora", seed, a) for seed, a in enumerate((0.8, 0.9, 1.0))]
        + [make_result("head", seed, 0.7) for seed in range(2)]
    )
    verdict = beats_scratch(groups)
    assert verdict is not None
    assert verdict.best.strategy == "lora"
    assert verdict.difference == pytest.approx(0.4)
    assert verdict.pooled_std == pytest.approx(math.sqrt(0.04 / 3))
    assert verdict.stds == pytest.approx(0.4 / math.sqrt(0.04 / 3))  # 3.46
    assert verdict.beats_scratch


def test_difference_within_two_deviations_does_not_beat_scratch() -> None:
    groups = _two_groups(scratch=(0.4, 0.6), head=(0.5, 0.7))  # 0.1 / sqrt(0.02) = 0.71
    verdict = beats_scratch(groups)
    assert verdict is not None
    assert verdict.stds == pytest.approx(0.1 / math.sqrt(0.02))
    assert not verdict.beats_scratch


def test_equal_runs_have_no_distance_in_deviations() -> None:
    verdict = beats_scratch(_two_groups(scratch=(0.5, 0.5), head=(0.75, 0.75)))
    assert verdict is not None
    assert verdict.stds is None
    assert verdict.beats_scratch
    verdict = beats_scratch(_two_groups(scratch=(0.5, 0.5), head=(0.5, 0.5)))
    assert verdict is not None
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
    verdict = beats_scratch(aggregate(runs))
    assert verdict is not None
    assert verdict.best.strategy == "full"
    assert verdict.difference == pytest.approx(0.7)
    assert verdict.beats_scratch


@pytest.mark.parametrize("values", [{"head": (0.5, 0.6)}, {"scratch": (0.5, 0.6)}])
def test_no_verdict_without_both_sides(values: dict[str, tuple[float, ...]]) -> None:
    assert beats_scratch(_two_groups(**values)) is None


def test_no_verdict_from_single_runs() -> None:
    assert beats_scratch(_two_groups(scratch=(0.5,), head=(0.9, 0.9))) is None
    assert beats_scratch(_two_groups(scratch=(0.5, 0.6), head=(0.9,))) is None


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
