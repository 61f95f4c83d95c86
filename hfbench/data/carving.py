"""Which samples train, validate and test: the data's own splits, or shares of train."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from hfbench.config import DataConfig
from hfbench.data.split_names import Role, of_role, split_name
from hfbench.data.stratification import SPLIT_SEED, Rows, divide_by_strata
from hfbench.errors import UserError

MISSING_ROLES: tuple[Role, ...] = ("validation", "test")  # that are taken from train
ROW = "row in its split"  # a column that every sample has until the splits are made
# train, share of it for each missing split -> positions that each takes; the rest stays
Take = Callable[[Dataset, Sequence[float]], Sequence[Rows]]
# a split, its rows in random order -> the order in which they are kept
Order = Callable[[Dataset, Rows], Rows]


@dataclass(frozen=True)
class Origin:
    """Where the samples of a split come from: ``rows[i]`` of the data's own ``split``, from 0."""

    split: str
    rows: Sequence[int]

    def name(self, index: int) -> str:
        """``test row 5``."""
        return f"{self.split} row {self.rows[index]}"


def choose_splits(data: DataConfig, available: list[str]) -> dict[str, str]:
    """Role -> split's name; a role without a split is left out.

    Splits that are not configured are found by their names: ``Training`` and ``Test`` too, and
    ``seg_test`` beside ``seg_train``.

    Raises UserError for a configured split that is not there, and for one that is used twice.
    """
    configured = {
        "train": _train_split(data, available),
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
    named = split_name(chosen["train"])
    for role in MISSING_ROLES:
        found = of_role(role, available) or of_role(
            role, available, rest=named.rest if named else ""
        )
        free = [name for name in found if name not in chosen.values()]
        if role not in chosen and free:
            chosen[role] = free[0]
    if len(set(chosen.values())) < len(chosen):
        raise UserError(
            f"one split is used twice ({chosen}): set data.validation_split and data.test_split "
            "to different ones, or leave them out to have them taken from train"
        )
    return chosen


def _train_split(data: DataConfig, available: Sequence[str]) -> str:
    """The configured one; where that is the default and not there, the one with such a name."""
    wanted = data.train_split
    if wanted in available or wanted != DataConfig.train_split:
        return wanted
    any_rest = [name for name in available if (n := split_name(name)) and n.role == "train"]
    found = of_role("train", available) or (any_rest if len(any_rest) == 1 else [])
    return found[0] if found else wanted


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
    train = splits["train"]
    fractions = {"test": data.test_fraction, "validation": data.validation_fraction}
    missing = [role for role in fractions if role not in splits]
    taken = take(train, [fractions[role] for role in missing]) if missing else []
    kept = np.setdiff1d(np.arange(len(train)), np.concatenate([[], *taken]))
    for role, rows in zip(missing, taken, strict=True):
        asked = round(fractions[role] * len(train))
        if not len(rows) or not len(kept):
            raise UserError(
                f"{data.source!r} has no {role} split and {len(train)} {unit} are too few to take "
                f"{fractions[role]:g} of them: raise data.{role}_fraction"
            )
        splits[role] = train.select(rows)
        note = (
            f"no {role} split: {len(rows):,} {unit} were taken from train ({chosen_by}, "
            "the same for every seed)"
        )
        if len(rows) > asked:
            note += (
                f"; data.{role}_fraction={fractions[role]:g} would be {asked:,}, too few to have "
                "every label in it"
            )
        notes.append(note)
    if missing:  # Datasets hashes what it selects: an array whole, a list number by number.
        splits["train"] = train.select(kept)


def by_chance(train: Dataset, shares: Sequence[float]) -> list[Rows]:
    """A :data:`Take` without strata."""
    return divide_by_strata(np.zeros(len(train), dtype=np.int64), shares, cover=False)


def from_the_end(train: Dataset, shares: Sequence[float]) -> list[Rows]:
    """A :data:`Take` of the last rows."""
    taken, end = [], len(train)
    for share in shares:
        border = end - round(share * len(train))
        taken.append(np.arange(max(border, 0), end))
        end = max(border, 0)
    return taken


def as_drawn(dataset: Dataset, order: Rows) -> Rows:
    """The :data:`Order` of chance alone."""
    return order


def subset(dataset: Dataset, limit: int | None, order_of: Order = as_drawn) -> Dataset:
    """At most ``limit`` rows, by chance, in their old order."""
    if limit is None or limit >= len(dataset):
        return dataset
    order = order_of(dataset, np.random.default_rng(SPLIT_SEED).permutation(len(dataset)))
    return dataset.select(sorted(order[:limit].tolist()))


def limited(
    splits: Mapping[str, Dataset],
    data: DataConfig,
    chosen: Mapping[str, str],
    order_of: Order = as_drawn,
) -> tuple[dict[str, Dataset], dict[str, Origin]]:
    """As many samples as are wanted of each split, and where they come from.

    ``chosen``: what the data call the splits that they have. The column ROW goes.
    """
    kept, origins = {}, {}
    for role, split in splits.items():
        limit = data.max_train_samples if role == "train" else data.max_eval_samples
        rows = subset(split, limit, order_of)
        origins[role] = Origin(chosen.get(role, chosen["train"]), rows[ROW][:])
        kept[role] = rows.remove_columns(ROW)
    return kept, origins
