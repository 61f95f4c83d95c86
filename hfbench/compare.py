"""Runs of the same strategy become one group: means and standard deviations over seeds.

Standard library only.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from hfbench.config import NEUTRAL_KEYS, flatten
from hfbench.results import RunResult, Status

SCRATCH = "scratch"


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (divisor n - 1) of one quantity."""

    n: int
    mean: float
    std: float | None  # None for a single value


@dataclass(frozen=True)
class Failure:
    """A run without a result."""

    seed: int
    status: Status
    reason: str


@dataclass(frozen=True)
class Group:
    """All runs of one strategy on one task, checkpoint and data set."""

    task: str
    checkpoint: str
    dataset: str
    strategy: str
    primary_metric: str
    greater_is_better: bool
    n: int  # succeeded runs
    total_parameters: int | None
    trainable_parameters: int | None
    primary: Spread | None  # on the test split
    f1_macro: Spread | None
    train_seconds: Spread | None  # with what a run spent on its frozen prefix
    saved_seconds: float  # by stored outputs of frozen prefixes, all runs together, estimated
    samples_per_second: Spread | None
    peak_memory_bytes: Spread | None
    saved_bytes: Spread | None
    step_seconds: Spread | None
    flops_per_second: Spread | None  # of all processes
    peak_share: Spread | None  # of what a matrix product reaches, from 0 to 1
    predicted_step_flops: Spread | None
    predicted_step_seconds: Spread | None
    predicted_peak_memory_bytes: Spread | None
    failures: tuple[Failure, ...]
    differing_config: tuple[str, ...]  # configuration keys in which the runs differ
    settings: Mapping[str, Any]  # of the first run, without those of the strategy

    @property
    def trainable_percent(self) -> float | None:
        if not self.total_parameters or self.trainable_parameters is None:
            return None
        return 100 * self.trainable_parameters / self.total_parameters


@dataclass(frozen=True)
class ScratchComparison:
    """The best pretrained strategy against training the same network from random weights."""

    best: Group
    scratch: Group
    difference: float  # of the means; positive when the pretrained strategy is better
    pooled_std: float

    @property
    def stds(self) -> float | None:
        """The difference in pooled standard deviations; None when these are 0."""
        return self.difference / self.pooled_std if self.pooled_std else None

    @property
    def beats_scratch(self) -> bool:
        """Whether the difference is more than two pooled standard deviations."""
        return self.difference > 2 * self.pooled_std


def aggregate(results: Iterable[RunResult]) -> list[Group]:
    """One group per (task, checkpoint, dataset, strategy).

    Of several results of the same run the one that started last counts. Groups are ordered by
    task, checkpoint and dataset; within these scratch comes first, then the others by trainable
    parameters.
    """
    ordered = sorted(latest_runs(results), key=_group_key)
    groups = [_group(list(runs)) for _, runs in groupby(ordered, key=_group_key)]
    return sorted(groups, key=lambda group: (*_section_key(group), *_strategy_order(group)))


def latest_runs(results: Iterable[RunResult]) -> list[RunResult]:
    """The last started result of each run: of the same settings, data and seed."""
    latest: dict[tuple[str, ...], RunResult] = {}
    for result in sorted(results, key=lambda run: run.started_at):
        latest[(*_group_key(result), result.run_id)] = result
    return sorted(latest.values(), key=lambda run: (*_group_key(run), run.seed))


def sections(groups: Iterable[Group]) -> list[list[Group]]:
    """The groups that can be compared with each other: same task, checkpoint and dataset."""
    return [list(members) for _, members in groupby(groups, key=_section_key)]


def same_data(groups: Iterable[Group]) -> list[list[Group]]:
    """Groups of several networks that learnt the same data, the best first.

    Only what has a test metric, and only data that more than one network learnt.
    """

    def key(group: Group) -> tuple[str, str]:
        return group.dataset, group.primary_metric

    def quality(group: Group) -> float:
        assert group.primary is not None
        return -group.primary.mean if group.greater_is_better else group.primary.mean

    measured = sorted((group for group in groups if group.primary), key=key)
    members = [sorted(found, key=quality) for _, found in groupby(measured, key=key)]
    return [found for found in members if len({g.checkpoint for g in found}) > 1]


def differing_settings(groups: Sequence[Group]) -> tuple[str, ...]:
    """Settings, the strategy's own apart, in which the strategies of one section differ."""
    first = groups[0].settings
    keys = {key for group in groups for key in group.settings.keys() | first.keys()}
    return tuple(
        sorted(k for k in keys if any(g.settings.get(k) != first.get(k) for g in groups[1:]))
    )


def beats_scratch(groups: Sequence[Group]) -> ScratchComparison | None:
    """Compare the best pretrained strategy of one section with scratch.

    The unit is the pooled sample standard deviation of the two groups. None when there is no
    scratch group, or fewer than two values in either group. The best strategy is found by its
    mean on the same test split, so with many strategies the difference is a little flattering.
    """
    scratch = next((group for group in groups if group.strategy == SCRATCH), None)
    others = [group for group in groups if group.strategy != SCRATCH and group.primary]
    if scratch is None or scratch.primary is None or not others:
        return None
    sign = 1 if scratch.greater_is_better else -1
    best = max(others, key=lambda group: sign * group.primary.mean if group.primary else -math.inf)
    one, two = best.primary, scratch.primary
    if one is None or one.std is None or two.std is None:
        return None
    pooled = pooled_std([one, two])
    assert pooled is not None
    return ScratchComparison(best, scratch, sign * (one.mean - two.mean), pooled)


def pooled_std(spreads: Iterable[Spread]) -> float | None:
    """``sqrt(Σ (n - 1) s² / Σ (n - 1))`` over groups; None when all are single values.

    For two groups this is the denominator of Cohen's d (Cohen, Statistical Power Analysis for the
    Behavioral Sciences, 1988, section 2.5).
    """
    repeated = [(one.n - 1, one.std) for one in spreads if one.std is not None]
    freedom = sum(n for n, _ in repeated)
    return math.sqrt(sum(n * std**2 for n, std in repeated) / freedom) if freedom else None


def _group_key(run: RunResult) -> tuple[str, str, str, str]:
    return run.task, run.checkpoint, run.dataset, run.strategy


def _section_key(group: Group) -> tuple[str, str, str]:
    return group.task, group.checkpoint, group.dataset


def _strategy_order(group: Group) -> tuple[bool, float, str]:
    trainable = group.trainable_parameters
    return group.strategy != SCRATCH, math.inf if trainable is None else trainable, group.strategy


def _group(runs: list[RunResult]) -> Group:
    succeeded = [run for run in runs if run.status == "succeeded"]
    predicted = [run.predicted for run in succeeded if run.predicted]
    first = runs[0]
    parameters = next((run.parameters for run in runs if run.parameters), None)
    return Group(
        task=first.task,
        checkpoint=first.checkpoint,
        dataset=first.dataset,
        strategy=first.strategy,
        primary_metric=first.primary_metric,
        greater_is_better=first.greater_is_better,
        n=len(succeeded),
        total_parameters=parameters.total if parameters else None,
        trainable_parameters=parameters.trainable if parameters else None,
        primary=spread(run.primary_value for run in succeeded),
        f1_macro=spread(run.test_metrics.get("f1_macro") for run in succeeded),
        train_seconds=spread(run.learning_seconds for run in succeeded),
        saved_seconds=sum(run.prefix.saved_seconds for run in succeeded if run.prefix),
        samples_per_second=spread(run.samples_per_second for run in succeeded),
        peak_memory_bytes=spread(run.peak_memory_bytes for run in succeeded),
        saved_bytes=spread(run.saved_bytes for run in succeeded),
        step_seconds=spread(run.step_seconds for run in succeeded),
        flops_per_second=spread(run.flops_per_second for run in succeeded),
        peak_share=spread(run.peak_share for run in succeeded),
        predicted_step_flops=spread(p.step_flops for p in predicted),
        predicted_step_seconds=spread(p.step_seconds for p in predicted),
        predicted_peak_memory_bytes=spread(p.peak_memory_bytes for p in predicted),
        failures=tuple(
            Failure(run.seed, run.status, run.reason or "no reason was recorded")
            for run in runs
            if run.status != "succeeded"
        ),
        differing_config=_differing_config(runs),
        settings={
            key: value
            for key, value in flatten(first.settings)
            if not key.startswith("strategy.") and key not in ("seed", *NEUTRAL_KEYS)
        },
    )


def spread(values: Iterable[float | None]) -> Spread | None:
    """Over the values that were measured and are finite."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    std = statistics.stdev(known) if len(known) > 1 else None
    return Spread(len(known), statistics.fmean(known), std)


def _differing_config(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Keys of what was trained that are not the same in all runs."""
    flat = [dict(flatten(run.settings)) for run in runs]
    keys = {key for values in flat for key in values} - {"seed", *NEUTRAL_KEYS}
    return tuple(
        sorted(key for key in keys if any(v.get(key) != flat[0].get(key) for v in flat[1:]))
    )
