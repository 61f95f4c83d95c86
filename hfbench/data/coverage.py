"""Which labels of the data a split has: none vanishes unsaid."""

from collections.abc import Mapping

import numpy as np
from datasets import Dataset

from hfbench.data.labels import Labels
from hfbench.data.spellings import counted_rows
from hfbench.data.stratification import Counts, Rows

SHOWN = 10  # labels that a note names


def rows_of_labels(labels: Labels, dataset: Dataset) -> Counts:
    """How many rows have each label; empty for numbers."""
    _, numbers = labels.held(np.asarray(dataset["labels"][:]))
    return np.bincount(numbers, minlength=len(labels.names))[: len(labels.names)]


def with_every_label_first(labels: Labels, dataset: Dataset, order: Rows) -> Rows:
    """``order`` with the first row of each label ahead of all others."""
    rows, numbers = labels.held(np.asarray(dataset["labels"][:])[order])
    first = np.unique(rows[np.unique(numbers, return_index=True)[1]])
    return np.concatenate([order[first], np.delete(order, first)])


def describe_missing(labels: Labels, whole: Counts, splits: Mapping[str, Dataset]) -> list[str]:
    """A note for each split that lacks labels.

    Args:
        whole: rows of each label in train before splits were taken and limited.
    """
    notes = []
    counts = {role: rows_of_labels(labels, splits[role]) for role in splits}
    for role, found in counts.items():
        missing = np.flatnonzero((found == 0) & (whole > 0))
        if not len(missing):
            continue
        named = [_described(labels, whole, int(number)) for number in missing[:SHOWN]]
        more = ", ..." if len(missing) > SHOWN else ""
        note = (
            f"{role} lacks {len(missing):,} of {np.count_nonzero(whole):,} labels: "
            f"{', '.join(named)}{more}"
        )
        if role == "train":
            tested = sum(int(counts[other][missing].sum()) for other in counts if other != "train")
            note += f"; they cannot be learnt, and {tested:,} samples of other splits have them"
        notes.append(note)
    return notes


def _described(labels: Labels, whole: Counts, number: int) -> str:
    return f"{labels.names[number]} ({counted_rows(int(whole[number]))} in all)"
