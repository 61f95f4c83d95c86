"""Which samples train, validate and test: the data's own splits, or shares of train."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from hfbench.config import DataConfig
from hfbench.data.labels import Encoded
from hfbench.errors import UserError

SPLIT_SEED = 0  # not the run's: all seeds of a comparison share their splits
VALIDATION_NAMES = ("validation", "valid", "val", "dev")
TEST_NAMES = ("test",)
ROW = "row in its split"  # a column that every sample has until the splits are made
# train, share of it -> positions that stay and positions that are taken
Take = Callable[[Dataset, float], tuple[Sequence[int], Sequence[int]]]


@dataclass(frozen=True)
class Origin:
    """Where the samples of a split come from: ``rows[i]`` of the data's own ``split``, from 0."""

    split: str
    rows: Sequence[int]

    def name(self, index: int) -> str:
        """``test row 5``."""
        return f"{self.split} row {self.rows[index]}"


def choose_splits(data: DataConfig, available: list[str]) -> dict[str, str]:
    """Role -> split's name; a role without a split is left out."""
    configured = {
        "train": data.train_split,
        "validation": data.validation_split,
        "test": data.test_split,
    }
    for role, split in configured.items():
        if split is not None and split not in available:
            raise UserError(
                f"data.{role}_split={split!r} is not in {data.source!r}; "
                f"its splits are: {', '.join(available)}"
            )
    chosen = {role: split for role, split in configured.items() if split is not None}
    for role, names in (("validation", VALIDATION_NAMES), ("test", TEST_NAMES)):
        free = [name for name in names if name in available and name not in chosen.values()]
        if role not in chosen and free:
            chosen[role] = free[0]
    if len(set(chosen.values())) < len(chosen):
        raise UserError(
            f"one split is used twice ({chosen}): set data.validation_split and data.test_split "
            "to different ones, or leave them out to have them taken from train"
        )
    return chosen


def unused_splits(
    data: DataConfig, available: Iterable[str], chosen: Mapping[str, str]
) -> list[str]:
    """A note that names the splits of the data that nothing reads; none where all are used."""
    unused = [split for split in available if split not in chosen.values()]
    if not unused:
        return []
    used = ", ".join(f"{role} = {split}" for role, split in chosen.items())
    return [
        f"no use is made of {', '.join(unused)} among the splits of {data.source!r} ({used}): "
        "data.train_split, data.validation_split and data.test_split choose"
    ]


def carve(
    splits: dict[str, Dataset],
    data: DataConfig,
    notes: list[str],
    *,
    take: Take,
    chosen_by: str,
    unit: str = "samples",
) -> None:
    """Take missing splits from train, test first, as fractions of the whole train split.

    ``chosen_by`` and ``unit`` say in the notes how ``take`` chooses, and what.

    Raises UserError where a split would be empty, and where nothing would stay.
    """
    whole = len(splits["train"])
    for role, fraction in (("test", data.test_fraction), ("validation", data.validation_fraction)):
        if role in splits:
            continue
        train = splits["train"]
        kept, taken = take(train, fraction * whole / len(train))
        if not taken or not kept:
            raise UserError(
                f"{data.source!r} has no {role} split and {whole} {unit} are too few to take "
                f"{fraction:g} of them: raise data.{role}_fraction"
            )
        # Datasets hashes what it selects: an array whole, a list number by number.
        splits["train"], splits[role] = (train.select(np.asarray(part)) for part in (kept, taken))
        notes.append(
            f"no {role} split: {len(taken):,} {unit} were taken from train ({chosen_by}, "
            "the same for every seed)"
        )


def by_strata(strata: Callable[[Dataset], Sequence[int] | Encoded]) -> Take:
    """By chance, of equal ``strata`` the same share."""
    return lambda train, fraction: stratified_split(strata(train), fraction, SPLIT_SEED)


def by_chance(train: Dataset, fraction: float) -> tuple[list[int], list[int]]:
    """A :data:`Take` without strata."""
    return stratified_split([0] * len(train), fraction, SPLIT_SEED)


def from_the_end(train: Dataset, fraction: float) -> tuple[range, range]:
    """A :data:`Take` of the last rows."""
    border = len(train) - round(fraction * len(train))
    return range(border), range(border, len(train))


def subset(dataset: Dataset, limit: int | None) -> Dataset:
    if limit is None or limit >= len(dataset):
        return dataset
    order = np.random.default_rng(SPLIT_SEED).permutation(len(dataset))
    return dataset.select(sorted(order[:limit].tolist()))


def stratified_split(
    labels: Sequence[int] | Encoded, fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Positions that stay and positions that are taken, both in their old order.

    Of every label the nearest whole number to ``fraction`` is taken, but never all of it.
    """
    generator = np.random.default_rng(seed)
    values = np.asarray(labels)
    taken: list[int] = []
    for label in np.unique(values):
        positions = generator.permutation(np.flatnonzero(values == label))
        count = min(round(len(positions) * fraction), len(positions) - 1)
        taken.extend(positions[:count].tolist())
    chosen = set(taken)
    return [i for i in range(len(values)) if i not in chosen], sorted(taken)


def limited(
    splits: Mapping[str, Dataset], data: DataConfig, chosen: Mapping[str, str]
) -> tuple[dict[str, Dataset], dict[str, Origin]]:
    """As many samples as are wanted of each split, and where they come from.

    ``chosen``: what the data call the splits that they have. The column ROW goes.
    """
    kept, origins = {}, {}
    for role, split in splits.items():
        rows = subset(split, data.max_train_samples if role == "train" else data.max_eval_samples)
        origins[role] = Origin(chosen.get(role, chosen["train"]), rows[ROW][:])
        kept[role] = rows.remove_columns(ROW)
    return kept, origins
