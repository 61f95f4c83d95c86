"""Batches: one global order, shared out exactly once."""

import numpy as np
import pytest
import torch

from hfbench.training.batching import (
    epoch_batches,
    equal_parts,
    like_batches,
    load_batches,
    padding_share,
    split_batches,
)


def random_lengths(count: int) -> list[int]:
    lengths: list[int] = np.random.default_rng(0).integers(1, 100, count).tolist()
    return lengths


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    (first,) = epoch_batches(100, 100, seed=1, epoch=0)
    assert sorted(first) == list(range(100))
    assert [first] == epoch_batches(100, 100, seed=1, epoch=0)
    assert [first] != epoch_batches(100, 100, seed=1, epoch=1)
    assert [first] != epoch_batches(100, 100, seed=2, epoch=0)


def test_without_lengths_batches_are_the_order_cut_up() -> None:
    (order,) = epoch_batches(23, 23, seed=4, epoch=2)
    expected = [order[0:10], order[10:20], order[20:23]]
    assert epoch_batches(23, 10, seed=4, epoch=2) == expected
    assert epoch_batches(23, 10, seed=4, epoch=2, lengths=[7] * 23) == expected


@pytest.mark.parametrize("count", [3, 8, 40, 1003, 2048])
def test_grouped_batches_hold_every_sample_once_and_only_the_last_is_short(count: int) -> None:
    lengths = random_lengths(count)
    batches = epoch_batches(count, 8, seed=1, epoch=0, lengths=lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert [len(batch) for batch in batches] == [
        len(batch) for batch in epoch_batches(count, 8, seed=1, epoch=0)
    ]
    assert batches == epoch_batches(count, 8, seed=1, epoch=0, lengths=lengths)


def test_grouped_batches_depend_on_seed_and_epoch() -> None:
    lengths = random_lengths(1000)
    first = epoch_batches(1000, 8, seed=1, epoch=0, lengths=lengths)
    for seed, epoch in ((1, 1), (2, 0)):
        other = epoch_batches(1000, 8, seed=seed, epoch=epoch, lengths=lengths)
        shared = {tuple(sorted(batch)) for batch in first} & {tuple(sorted(b)) for b in other}
        assert not shared


def test_windows_of_like_lengths_leave_little_padding_and_come_in_random_order() -> None:
    """Lengths from 1 to 99 in batches of 8: without grouping the longest is near 89, the mean 50.

    In windows of 400 samples a sorted batch spans some 2 of the 99 lengths.
    """
    lengths = random_lengths(4000)
    plain = epoch_batches(4000, 8, seed=0, epoch=0)
    grouped = epoch_batches(4000, 8, seed=0, epoch=0, lengths=lengths)
    assert padding_share(plain, lengths) == pytest.approx(1 - 50 / 89, abs=0.02)
    assert padding_share(grouped, lengths) < 0.04
    widths = [max(lengths[index] for index in batch) for batch in grouped]
    assert abs(np.corrcoef(widths, range(len(widths)))[0, 1]) < 0.1
    assert abs(np.corrcoef(widths[1:], widths[:-1])[0, 1]) < 0.1


def test_padding_is_what_fills_batches_up_to_their_longest() -> None:
    """(1, 3) in a batch of width 3, (2, 2) in one of width 2, (5) alone: 2 of 15 places."""
    assert padding_share([[0, 1], [2, 3], [4]], [1, 3, 2, 2, 5]) == pytest.approx(2 / 15)


@pytest.mark.parametrize("grouped", [False, True])
def test_processes_share_every_global_batch_without_overlap(grouped: bool) -> None:
    lengths = random_lengths(23) if grouped else None
    batches = epoch_batches(23, 5, seed=0, epoch=0, lengths=lengths)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    for processes in (1, 2, 3, 4):
        shares = [split_batches(batches, rank=r, num_processes=processes) for r in range(processes)]
        for number, batch in enumerate(batches):
            mine = [share[number] for share in shares]
            assert sorted(i for s in mine if s.counts for i in s.indices) == sorted(batch)
            assert {share.global_size for share in mine} == {len(batch)}


def test_a_process_without_a_sample_reads_one_that_does_not_count() -> None:
    shares = [split_batches([[7, 8, 9], [4]], rank=rank, num_processes=2)[1] for rank in range(2)]
    assert (shares[0].indices, shares[0].counts) == ((4,), True)
    assert (shares[1].indices, shares[1].counts) == ((4,), False)


def test_loading_leaves_the_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = [{"labels": index} for index in range(10)]
    shares = split_batches([range(4), range(4, 8), range(8, 10)])
    batches = list(
        load_batches(
            data,
            shares,
            lambda items: {"labels": torch.tensor([i["labels"] for i in items])},
            device=torch.device("cpu"),
        )
    )
    assert [batch["labels"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_of_like_length_share_a_batch() -> None:
    lengths = [3, 5, 3, 3, 5, 4]
    assert like_batches(6, 2, lengths, slack=0.0) == [(1, 4), (5,), (0, 2), (3,)]
    assert like_batches(6, 3, lengths, slack=0.2) == [(1, 4, 5), (0, 2, 3)]
    assert like_batches(3, 2, None, slack=0.0) == [(0, 1), (2,)]


def test_a_batch_falls_into_parts_of_one_length() -> None:
    assert equal_parts([4, 0, 3, 2], [7, 1, 9, 7, 9]) == [[4, 2], [0, 3]]
