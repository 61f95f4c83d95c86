"""Runs that differ in the seed alone become one group: means and standard deviations over seeds.

No large library.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from hfbench.results import RunResult, Status
from hfbench.variants import FOUND_OUT, Variant, made_by, trained_with, variants

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
    """All runs of one strategy on one task, checkpoint and data set that differ in the seed alone.

    ``label`` is the strategy, with the settings in which its groups differ where it has several.
    """

    task: str
    checkpoint: str
    dataset: str
    strategy: str
    label: str  # lora, or lora [learning_rate=0.0001]
    primary_metric: str
    greater_is_better: bool
    n: int  # succeeded runs
    total_parameters: int | None
    trainable_parameters: int | None
    primary: Spread | None  # on the test split
    primary_values: tuple[float, ...]  # of the runs in ``primary``, by seed
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
    difference: tuple[tuple[str, Any], ...]  # from the strategy's other groups: key and value
    fingerprint: str | None  # of the data's contents
    settings: Mapping[str, Any]  # of all runs, without those of the strategy
    made_by: tuple[Mapping[str, str], ...]  # libraries and machine of each run

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
    """One group per (task, checkpoint, dataset, strategy) and set of other settings.

    Of several results of the same run the one that started last counts. Groups are ordered by
    task, checkpoint and dataset; within these scratch comes first, then the others by trainable
    parameters.
    """
    ordered = sorted(results, key=_strategy_key)
    groups = [
        _group(variant)
        for _, runs in groupby(ordered, key=_strategy_key)
        for variant in variants(runs)
    ]
    return sorted(groups, key=lambda group: (*_section_key(group), *_strategy_order(group)))


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
    """Settings, the strategy's own apart, in which the strategies of one section differ.

    Those that every row of the section names are left out.
    """
    shown = set.intersection(*({key for key, _ in group.difference} for group in groups))
    values: dict[str, set[str]] = {}
    for group in groups:
        for key, value in group.settings.items():
            if value is not None or key not in FOUND_OUT:
                values.setdefault(key, set()).add(repr(value))
    return tuple(sorted(key for key in values.keys() - shown if len(values[key]) > 1))


def beats_scratch(groups: Sequence[Group]) -> list[ScratchComparison]:
    """Compare the best pretrained strategy of one section with scratch, on the same data.

    The unit is the pooled sample standard deviation of the two groups. Each contents of the data
    has its own comparison; none where there is no scratch group, or fewer than two values in
    either group. Of several scratch groups the best counts. The best are found by their means on
    the same test split, so with many strategies the difference is a little flattering.
    """
    contents = dict.fromkeys(group.fingerprint for group in groups)
    found = (
        _against_scratch([group for group in groups if group.fingerprint == one])
        for one in contents
    )
    return [verdict for verdict in found if verdict is not None]


def _against_scratch(groups: Sequence[Group]) -> ScratchComparison | None:
    """The best of either kind, whatever their other settings."""
    sign = 1 if groups[0].greater_is_better else -1

    def best(found: Iterable[Group]) -> Group | None:
        measured = (group for group in found if group.primary)
        return max(measured, key=lambda g: sign * g.primary.mean if g.primary else 0, default=None)

    scratch = best(group for group in groups if group.strategy == SCRATCH)
    other = best(group for group in groups if group.strategy != SCRATCH)
    if scratch is None or other is None or scratch.primary is None or other.primary is None:
        return None
    if other.primary.std is None or scratch.primary.std is None:
        return None
    pooled = pooled_std([other.primary, scratch.primary])
    assert pooled is not None
    difference = sign * (other.primary.mean - scratch.primary.mean)
    return ScratchComparison(other, scratch, difference, pooled)


def pooled_std(spreads: Iterable[Spread]) -> float | None:
    """``sqrt(Σ (n - 1) s² / Σ (n - 1))`` over groups; None when all are single values.

    For two groups this is the denominator of Cohen's d (Cohen, Statistical Power Analysis for the
    Behavioral Sciences, 1988, section 2.5).
    """
    repeated = [(one.n - 1, one.std) for one in spreads if one.std is not None]
    freedom = sum(n for n, _ in repeated)
    return math.sqrt(sum(n * std**2 for n, std in repeated) / freedom) if freedom else None


def _strategy_key(run: RunResult) -> tuple[str, str, str, str]:
    return run.task, run.checkpoint, run.dataset, run.strategy


def _section_key(group: Group) -> tuple[str, str, str]:
    return group.task, group.checkpoint, group.dataset


def _strategy_order(group: Group) -> tuple[bool, float, str]:
    """Groups of one strategy keep the order of their variants."""
    trainable = group.trainable_parameters
    return group.strategy != SCRATCH, math.inf if trainable is None else trainable, group.strategy


def _group(variant: Variant) -> Group:
    runs = variant.runs
    succeeded = [run for run in runs if run.status == "succeeded"]
    predicted = [run.predicted for run in succeeded if run.predicted]
    first = runs[0]
    values = [run.primary_value for run in succeeded]
    parameters = next((run.parameters for run in runs if run.parameters), None)
    return Group(
        task=first.task,
        checkpoint=first.checkpoint,
        dataset=first.dataset,
        strategy=first.strategy,
        label=first.strategy + variant.suffix,
        primary_metric=first.primary_metric,
        greater_is_better=first.greater_is_better,
        n=len(succeeded),
        total_parameters=parameters.total if parameters else None,
        trainable_parameters=parameters.trainable if parameters else None,
        primary=spread(values),
        primary_values=tuple(value for value in values if value is not None),
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
        difference=variant.difference,
        fingerprint=succeeded[0].data.get("fingerprint") if succeeded else None,
        settings={
            key: value
            for key, value in trained_with(first).items()
            if not key.startswith("strategy.")
        },
        made_by=tuple(map(made_by, succeeded)),
    )


def spread(values: Iterable[float | None]) -> Spread | None:
    """Over the values that were measured and are finite."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    std = statistics.stdev(known) if len(known) > 1 else None
    return Spread(len(known), statistics.fmean(known), std)
