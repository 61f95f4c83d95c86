"""How long runs that are still to come will take, by what finished ones of their kind took.

Standard library only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class TimeLeft:
    """Expected seconds of all runs together."""

    seconds: float
    at_most: bool  # some strategies have not run yet and count as the longest of those that have

    def __str__(self) -> str:
        return f"{'at most ' if self.at_most else ''}about {duration(self.seconds)}"


class Durations:
    """Seconds of finished runs, by the spelling of their strategy."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def add(self, strategy: str, seconds: float | None) -> None:
        """Of one run; None where that was not recorded."""
        if seconds is not None:
            self._seconds.setdefault(strategy, []).append(seconds)

    def left(self, strategies: Sequence[str]) -> TimeLeft | None:
        """For one run of each of ``strategies``; None before any run has finished.

        Matrices begin with the strategies that train most, so one that has not run yet is taken to
        last no longer than the longest.
        """
        means: Mapping[str, float] = {name: fmean(all_) for name, all_ in self._seconds.items()}
        if not means:
            return None
        longest = max(means.values())
        return TimeLeft(
            sum(means.get(name, longest) for name in strategies),
            at_most=any(name not in means for name in strategies),
        )


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
