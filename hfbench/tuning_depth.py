"""How many of the last blocks fine-tuning needs: quality against n, from finished runs.

n = 0 is the strategy ``head``, n = L trains all blocks, and ``full`` the embeddings too. Standard
library only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from hfbench.compare import Group, pooled_std
from hfbench.config import StrategyConfig, parse_strategy
from hfbench.errors import UserError

HEAD, FULL = StrategyConfig("head"), StrategyConfig("full")
ROUNDING = 1e-9  # of a share, so that exactly 90 % reaches 90 %


def depth_strategies(counts: Sequence[int]) -> list[StrategyConfig]:
    """``head`` for 0, ``last_n`` for the others, and ``full``."""
    return [*(StrategyConfig("last_n", n=n) if n else HEAD for n in counts), FULL]


@dataclass(frozen=True)
class Reached:
    """The smallest number of last blocks whose share of the gain is at least ``share``."""

    share: float
    n: int
    percent_of_parameters: float
    lost_at: tuple[int, ...]  # larger n, tried too, whose share is below it again


@dataclass(frozen=True)
class TuningDepth:
    """The runs of one task, checkpoint and data set."""

    blocks: int  # of the network
    by_n: dict[int, Group]  # from 0 on
    full: Group

    @classmethod
    def of(cls, groups: Sequence[Group], *, blocks: int) -> Self:
        """``groups`` are one section's, of :func:`depth_strategies`.

        Raises UserError where runs of one strategy differ in more than the seed.
        """
        split = [group.label for group in groups if group.difference]
        if split:
            raise UserError(
                f"these runs differ in more than their seeds: {', '.join(split)}; run them again "
                "with the same settings, in another folder"
            )
        by_n: dict[int, Group] = {}
        for group in groups:
            strategy = parse_strategy(group.strategy)
            if strategy != FULL:
                by_n[strategy.n or 0] = group
        full = next(group for group in groups if parse_strategy(group.strategy) == FULL)
        return cls(blocks, dict(sorted(by_n.items())), full)

    @property
    def gain(self) -> float | None:
        """By how much ``full`` is better than ``head``; None when one has no result."""
        return self._over_head(self.full)

    @property
    def pooled_std(self) -> float | None:
        """Of all strategies together; None when each has a single run."""
        groups = [*self.by_n.values(), self.full]
        return pooled_std([group.primary for group in groups if group.primary is not None])

    @property
    def share_error(self) -> float | None:
        """One standard error of a share: of a difference of two means, over the gain.

        The error of the gain itself is left out, and all strategies are taken to vary alike.
        """
        head, std = self.by_n[0].primary, self.pooled_std
        if not self.gain or head is None or std is None:
            return None
        return math.sqrt(2 / head.n) * std / abs(self.gain)

    def share(self, group: Group) -> float | None:
        """Of the gain of ``full`` over ``head``: 0 for ``head``, 1 for ``full``.

        None without a result, and when ``full`` is not better than ``head``.
        """
        own, gain = self._over_head(group), self.gain
        return None if own is None or gain is None or gain <= 0 else own / gain

    def reached(self, share: float) -> Reached | None:
        """None when no n reaches it, or when there is no gain to share."""
        shares = {n: self.share(group) for n, group in self.by_n.items()}
        known = {n: value for n, value in shares.items() if value is not None}
        enough = {n for n, value in known.items() if value >= share - ROUNDING}
        first = min(enough, default=None)
        if first is None:
            return None
        percent = self.by_n[first].trainable_percent
        assert percent is not None  # a run with a result has its counts
        lost = tuple(n for n in known if n > first and n not in enough)
        return Reached(share, first, percent, lost)

    def _over_head(self, group: Group) -> float | None:
        head = self.by_n[0].primary
        if head is None or group.primary is None:
            return None
        sign = 1 if group.greater_is_better else -1
        return sign * (group.primary.mean - head.mean)
