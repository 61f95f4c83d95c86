"""Which rows of each label a split takes: sizes, coverage, and what is said of labels that lack."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from hfbench.config import DataConfig
from hfbench.data.splits import Splits, load_splits
from hfbench.data.stratification import allocate, divide_by_labels, divide_by_strata

ROLES = ("train", "validation", "test")


def write(path: Path, counts: dict[str, int]) -> str:
    """A table with so many rows of each label; no two texts are equal."""
    rows = [f"{label} {number},{label}" for label, n in counts.items() for number in range(n)]
    path.write_text("\n".join(["text,label", *rows]))
    return str(path)


def labels_in(splits: Splits, role: str) -> set[str]:
    return {splits.label_names[number] for number in getattr(splits, role)["labels"][:]}


def parts(rows: int, taken: list[np.ndarray]) -> list[np.ndarray]:
    """What was taken and what stays; together each row once."""
    every = [*taken, np.setdiff1d(np.arange(rows), np.concatenate(taken))]
    assert sorted(np.concatenate(every)) == list(range(rows))
    return every


# ---- one label a row


@pytest.mark.parametrize(
    ("counts", "total", "splits_left", "expected"),
    [
        ([50, 30, 20], 10, 1, [5, 3, 2]),
        ([15, 15, 15, 15], 6, 1, [2, 2, 1, 1]),  # not 2 each: rounding up all gives 8
        ([14, 14, 14, 18], 6, 1, [2, 1, 1, 2]),  # 1.4, 1.4, 1.4, 1.8
        ([96, 1, 3], 10, 2, [9, 0, 1]),  # one of one stays, three are enough for three splits
        ([2, 98], 10, 2, [0, 10]),  # 0.2 of a label that two splits at most can have
        ([4] * 40 + [100] * 2, 36, 2, [1] * 42),  # fewer than labels: the split grows
        ([4] * 40 + [1000] * 2, 216, 2, [1] * 40 + [88] * 2),  # the others give what is left
        ([4, 4], 8, 2, [2, 2]),  # one each for validation and for train
        ([3, 97], 0, None, [0, 0]),
    ],
)
def test_largest_remainders_with_room_for_every_split(
    counts: list[int], total: int, splits_left: int | None, expected: list[int]
) -> None:
    assert allocate(np.array(counts), total, splits_left=splits_left).tolist() == expected


@pytest.mark.parametrize("seed", range(40))
def test_every_label_with_enough_rows_is_in_every_split(seed: int) -> None:
    random = np.random.default_rng(seed)
    shares = random.uniform(0.01, 0.3, int(random.integers(1, 3))).tolist()
    counts = random.integers(1, [5, 12, 200][seed % 3], int(random.integers(2, 60)))
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    taken = divide_by_strata(labels, shares)
    every = parts(len(labels), taken)
    again = divide_by_strata(labels, shares)
    assert all(np.array_equal(one, other) for one, other in zip(taken, again, strict=True))
    enough = np.flatnonzero(counts > len(shares))
    for part in every:
        assert set(enough) <= set(labels[part])
    assert set(labels[every[-1]]) == set(range(len(counts)))  # what stays has all
    for part, share in zip(taken, shares, strict=True):
        asked = round(share * len(labels))
        room = sum(counts[enough] - len(shares))
        assert len(part) >= min(asked, room)
        if len(part) > asked:  # no more than a row of each label
            assert len(set(labels[part])) == len(part)


def test_strata_of_numbers_need_not_be_in_a_small_split() -> None:
    tenths = np.arange(100) // 10
    assert [len(part) for part in divide_by_strata(tenths, [0.03, 0.1], cover=False)] == [3, 10]


# ---- splits


def test_rare_labels_are_in_all_three_splits(tmp_path: Path) -> None:
    counts = {f"rare{number:02}": 4 for number in range(40)} | {"often": 100, "usual": 100}
    data = DataConfig(source=write(tmp_path / "all.csv", counts))
    splits = load_splits(data, "text")
    assert [len(labels_in(splits, role)) for role in ROLES] == [42, 42, 42]
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (276, 42, 42)
    assert splits.summary["notes"] == [
        f"no {role} split: 42 samples were taken from train (stratified, the same for every seed); "
        f"data.{role}_fraction=0.1 would be 36, too few to have every label in it"
        for role in ("test", "validation")
    ]
    assert load_splits(data, "text").summary["fingerprint"] == splits.summary["fingerprint"]


def test_labels_that_are_too_rare_for_a_split_are_named(tmp_path: Path) -> None:
    counts = {"often": 60, "usual": 37, "two": 2, "one": 1}
    splits = load_splits(DataConfig(source=write(tmp_path / "all.csv", counts)), "text")
    assert labels_in(splits, "train") == set(counts)
    # a row of two stays; its largest remainder brings the other one to validation
    assert splits.summary["notes"][2:] == [
        "test lacks 2 of 4 labels: one (1 row in all), two (2 rows in all)",
        "validation lacks 1 of 4 labels: one (1 row in all)",
    ]


def test_with_a_test_split_of_its_own_two_rows_are_enough(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"often": 60, "two": 2})
    write(tmp_path / "test.csv", {"often": 3})  # texts of train: another note
    splits = load_splits(DataConfig(source=str(tmp_path)), "text")
    assert [labels_in(splits, role) for role in ROLES] == [{"often", "two"}] * 2 + [{"often"}]
    assert "test lacks 1 of 2 labels: two (2 rows in all)" in splits.summary["notes"]


def test_a_limit_keeps_every_label_that_it_can(tmp_path: Path) -> None:
    counts = {"often": 900, **{f"rare{number}": 10 for number in range(10)}}
    source = write(tmp_path / "all.csv", counts)
    data = DataConfig(source=source, max_train_samples=20, max_eval_samples=11)
    splits = load_splits(data, "text")
    assert [len(getattr(splits, role)) for role in ROLES] == [20, 11, 11]
    assert [labels_in(splits, role) for role in ROLES] == [set(counts)] * 3
    assert not [note for note in splits.summary["notes"] if "lacks" in note]


def test_labels_that_a_limit_leaves_out_are_named(tmp_path: Path) -> None:
    counts = dict.fromkeys("abcd", 10)
    data = DataConfig(source=write(tmp_path / "all.csv", counts), max_train_samples=3)
    splits = load_splits(data, "text")
    (gone,) = set(counts) - labels_in(splits, "train")
    assert splits.summary["notes"][-1] == (
        f"train lacks 1 of 4 labels: {gone} (10 rows in all); they cannot be learnt, and 2 samples "
        "of other splits have them"
    )


# ---- several labels a row


@pytest.mark.parametrize("seed", range(20))
def test_every_label_that_a_split_can_have_beside_others_is_there(seed: int) -> None:
    """As many pairs of split and label as the best of all ways to divide a few rows."""
    random = np.random.default_rng(seed)
    rows = int(random.integers(5, 8))
    applies = random.random((rows, 3)) < random.uniform(0.3, 0.8)

    def pairs(split_of: np.ndarray) -> int:
        return sum(int(applies[split_of == split].any(axis=0).sum()) for split in range(3))

    found = np.full(rows, 2)
    for split, part in enumerate(divide_by_labels(applies, [0.2, 0.2])):
        found[part] = split
    assert pairs(found) == max(pairs(np.array(way)) for way in product(range(3), repeat=rows))


@pytest.mark.parametrize("seed", range(20))
def test_several_labels_are_in_every_split_and_the_sizes_are_right(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, labels = int(random.integers(100, 400)), int(random.integers(2, 30))
    applies = random.random((rows, labels)) < random.uniform(0.01, 0.2, labels)
    taken = divide_by_labels(applies.astype(np.float32), [0.1, 0.2])
    every = parts(rows, taken)
    enough = applies.sum(axis=0) >= 3
    for part in every:
        assert applies[part][:, enough].any(axis=0).all()
    sizes = [len(part) for part in taken]
    asked = [round(0.1 * rows), round(0.2 * rows)]
    assert sizes == asked or (
        labels > 15 and all(s >= a for s, a in zip(sizes, asked, strict=True))
    )
    often = applies.sum(axis=0) >= 30
    shares = applies[taken[1]].sum(axis=0)[often] / applies.sum(axis=0)[often]
    assert ((shares > 0.1) & (shares < 0.3)).all()
