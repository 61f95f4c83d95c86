"""In what runs of one strategy differ, seed apart: what may be averaged and what may not.

No large library.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfbench.config import NEUTRAL_KEYS, RunConfig, flatten
from hfbench.results import RunResult

# What a run finds out, beside what it was told; a run that failed early does not know it.
FOUND_OUT = ("data.fingerprint", "model.commit")
SHOWN_DIGITS = 8  # of a fingerprint or a commit

# Settings of today for the keys that a result of an older version does not have.
_DEFAULTS = dict(flatten(RunConfig().to_dict()))


@dataclass(frozen=True)
class Variant:
    """Runs that differ in the seed alone, of the runs of one strategy.

    Attributes:
        difference: ``(section.key, value)`` in which the variants of the strategy differ; empty
            when there is one variant.
    """

    difference: tuple[tuple[str, Any], ...]
    runs: tuple[RunResult, ...]

    @property
    def suffix(self) -> str:
        """The difference, short: `` [learning_rate=0.0001]``; empty when there is none."""
        names = [key.rpartition(".")[2] for key, _ in self.difference]
        texts = [
            f"{name if names.count(name) == 1 else key}={_text(key, value)}"
            for name, (key, value) in zip(names, self.difference, strict=True)
        ]
        return f" [{', '.join(texts)}]" if texts else ""


def trained_with(run: RunResult) -> dict[str, Any]:
    """All that decides what was learnt, seed apart: settings, contents of the data, checkpoint."""
    settings = _DEFAULTS | dict(flatten(run.settings))
    found_out = (run.data.get("fingerprint"), run.checkpoint_commit)
    return {
        key: value for key, value in settings.items() if key not in ("seed", *NEUTRAL_KEYS)
    } | dict(zip(FOUND_OUT, found_out, strict=True))


def variants(runs: Iterable[RunResult]) -> list[Variant]:
    """The runs of one strategy, apart wherever they differ in more than the seed.

    Of several runs of one seed in a variant the one that started last counts. What a failed run
    did not find out is no difference.
    """
    found: list[tuple[dict[str, Any], dict[int, RunResult]]] = []
    newest_last = sorted(runs, key=lambda run: run.started_at)
    for run in sorted(newest_last, key=lambda run: run.status != "succeeded"):
        own = trained_with(run)
        failed = run.status != "succeeded"
        alike = (one for values, one in found if not _differ(values, own, failed=failed))
        by_seed = next(alike, None)
        if by_seed is None:
            by_seed = {}
            found.append((own, by_seed))
        earlier = by_seed.get(run.seed)
        if earlier is None or run.started_at >= earlier.started_at:
            by_seed[run.seed] = run
    keys = {key for values, _ in found for key in _differ(found[0][0], values, failed=False)}
    split = [
        Variant(
            tuple((key, values.get(key)) for key in sorted(keys)),
            tuple(by_seed[seed] for seed in sorted(by_seed)),
        )
        for values, by_seed in found
    ]
    return sorted(split, key=lambda variant: [_order(value) for _, value in variant.difference])


def made_by(run: RunResult) -> dict[str, str]:
    """What may change a run's numbers and its time but is no setting: libraries and machine."""
    machine = run.hardware
    made = dict(run.versions) | {
        "processor": machine.get("cpu"),
        "GPUs": ", ".join(machine["gpus"]) or "none" if "gpus" in machine else None,
        "processes": str(run.num_processes),
    }
    return {name: str(value) for name, value in made.items() if value is not None}


def unlike(made: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Name -> the values, where runs that know it were not all made by the same."""
    values: dict[str, set[str]] = {}
    for one in made:
        for name, value in one.items():
            values.setdefault(name, set()).add(value)
    return {name: sorted(found) for name, found in values.items() if len(found) > 1}


def _differ(one: Mapping[str, Any], two: Mapping[str, Any], *, failed: bool) -> list[str]:
    """The keys of different values; of ``two`` unknown ones are left out where it ``failed``."""
    return [
        key
        for key in one.keys() | two.keys()
        if one.get(key) != two.get(key)
        and not (failed and key in FOUND_OUT and two.get(key) is None)
    ]


def _text(key: str, value: Any) -> str:
    if key in FOUND_OUT and value is not None:
        return str(value)[:SHOWN_DIGITS]
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value)


def _order(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, (int, float))
    return not number, value if number else 0.0, str(value)
