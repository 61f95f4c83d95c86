"""Which rows a split takes, so that every label that has enough of them is in every split."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SPLIT_SEED = 0  # not the run's: all seeds of a comparison share their splits
ROUNDING = 9  # decimals of a share that count; what lies behind them is the float's

Rows = npt.NDArray[np.int64]  # positions, ascending
Counts = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


def divide_by_strata(
    values: Array,
    shares: Sequence[float],
    *,
    strata: Callable[[Array], Array] = lambda values: values,
    cover: bool = True,
) -> list[Rows]:
    """The rows of each split that is taken, one after the other; the rest stays.

    Args:
        values: of each row.
        shares: of all rows, for each split.
        strata: (rows,), integers: which values are alike.
        cover: whether every stratum of enough rows must be in every split. A split that is
            smaller than its number of strata grows for it.
    """
    left, taken = np.arange(len(values)), []
    for number, share in enumerate(shares):
        generator = np.random.default_rng(SPLIT_SEED)
        alike = strata(values[left])
        order = np.argsort(alike, kind="stable")
        counts = np.unique(alike, return_counts=True)[1]
        splits_left = len(shares) - number if cover else None
        chosen = [
            generator.permutation(rows)[:count]
            for rows, count in zip(
                np.split(order, np.cumsum(counts)[:-1]),
                allocate(counts, round(share * len(values)), splits_left=splits_left),
                strict=True,
            )
        ]
        positions = np.sort(np.concatenate(chosen))
        taken.append(left[positions])
        left = np.delete(left, positions)
    return taken


def allocate(counts: Counts, total: int, *, splits_left: int | None) -> Counts:
    """How many rows a split takes of each stratum: its share, by the largest remainders.

    At least one row of every stratum stays.

    Args:
        counts: rows of each stratum.
        splits_left: how many splits are still taken, with this one: strata that have a row for each
            and for what stays give one to this split and keep the others. None: no stratum must
            be in any split.
    """
    most = counts - 1
    least = np.zeros_like(counts)
    if splits_left is not None:
        enough = counts > splits_left
        least[enough] = 1
        most = np.where(enough, counts - splits_left, most)
    total = int(np.clip(total, least.sum(), most.sum()))
    low, high = 0.0, 1.0
    for _ in range(100):  # the share of the strata that are between their bounds
        share = (low + high) / 2
        if np.clip(share * counts, least, most).sum() < total:
            low = share
        else:
            high = share
    wanted = np.round(np.clip(high * counts, least, most), ROUNDING)
    found: Counts = np.floor(wanted).astype(np.int64)
    first = np.argsort(found - wanted, kind="stable")[: total - int(found.sum())]
    found[first] += 1
    return found


def divide_by_labels(applies: Array, shares: Sequence[float]) -> list[Rows]:
    """The rows of each split that is taken where a row has several labels; the rest stays.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of
    Multi-Label Data", 2011): rows of the rarest label are given away first, each to the split that
    wants most of it. Then rows are exchanged while that brings a label into a split without it.

    Args:
        applies: (rows, labels), above 0 where a label applies.
        shares: of all rows, for each split.
    """
    return _Division(applies > 0, shares).rows()


class _Division:
    """Rows of several labels on their way into splits; the last split is what stays."""

    def __init__(self, applies: Array, shares: Sequence[float]) -> None:
        self.applies = applies
        self.splits = len(shares) + 1
        self.left = applies.sum(axis=0)  # rows of each label that are in no split yet
        self.everywhere = self.left >= self.splits  # labels that each split can hold
        self.wanted = np.zeros((self.splits, applies.shape[1]), dtype=np.int64)
        self.room = np.zeros(self.splits, dtype=np.int64)  # rows that a split still wants
        unassigned, total = self.left.copy(), int(self.left.sum())
        for number, share in enumerate(shares):
            having = np.flatnonzero(unassigned)
            self.wanted[number, having] = allocate(
                unassigned[having], round(share * total), splits_left=len(shares) - number
            )
            unassigned -= self.wanted[number]
            self.room[number] = round(share * len(applies))
        self.wanted[-1], self.room[-1] = unassigned, len(applies) - self.room.sum()
        self.split = np.full(len(applies), -1)
        self.held = np.zeros_like(self.wanted)  # rows of each split and label

    def rows(self) -> list[Rows]:
        order = np.random.default_rng(SPLIT_SEED).permutation(len(self.applies))
        labels, places = np.nonzero(self.applies[order].T)
        of_label = np.split(order[places], np.searchsorted(labels, range(1, len(self.left))))
        while self.left.any():
            label = int(np.where(self.left > 0, self.left, len(order) + 1).argmin())
            for row in of_label[label]:
                if self.split[row] < 0:
                    self._put(row, self._wanting(label))
        for row in order[self.split[order] < 0]:
            self._put(row, int(self.room.argmax()))
        while self._mend():
            pass
        return [np.flatnonzero(self.split == number) for number in range(self.splits - 1)]

    def _wanting(self, label: int) -> int:
        """The split that lacks the label and shall have it, or else has room and wants it most."""
        wanted = self.wanted[:, label] - self.held[:, label]
        lacks = (self.held[:, label] == 0) & (wanted > 0)
        return int(np.lexsort((self.room, wanted, self.room > 0, lacks))[-1])

    def _put(self, row: int, split: int) -> None:
        before = self.split[row]
        if before < 0:
            self.left -= self.applies[row]
        else:
            self.held[before] -= self.applies[row]
            self.room[before] += 1
        self.split[row] = split
        self.held[split] += self.applies[row]
        self.room[split] -= 1

    def _mend(self) -> bool:
        """Bring one label into one split that lacks it, if no label leaves another split for it."""
        for split, label in np.argwhere((self.held == 0) & self.everywhere):
            rows = np.flatnonzero(self.applies[:, label] & self._may_leave())
            if len(rows):
                giver = int(self.split[rows[0]])
                self._put(rows[0], split)
                back = np.flatnonzero((self.split == split) & self._may_leave())
                if len(back):
                    self._put(back[0], giver)
                return True
        return False

    def _may_leave(self) -> Array:
        """(rows,): whether no label of a row would be missing where the row is."""
        last: Array = (self.applies & (self.held == 1)[self.split]).any(axis=1)
        return ~last
