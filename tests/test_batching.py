"""Batches: one global order, shared out exactly once."""

import torch

from hfbench.training.batching import epoch_order, load_batches, split_batches


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    first = epoch_order(100, seed=1, epoch=0)
    assert sorted(first) == list(range(100))
    assert first == epoch_order(100, seed=1, epoch=0)
    assert first != epoch_order(100, seed=1, epoch=1)
    assert first != epoch_order(100, seed=2, epoch=0)


def test_processes_share_every_global_batch_without_overlap() -> None:
    order = epoch_order(23, seed=0, epoch=0)
    shares = [split_batches(order, 5, rank=rank, num_processes=3) for rank in range(3)]
    assert {len(share) for share in shares} == {5}  # 4 whole batches and one of 3
    for number in range(5):
        parts = [i for share in shares for i in share[number].indices if share[number].counts]
        assert sorted(parts) == sorted(order[5 * number : 5 * number + 5])


def test_a_process_without_a_sample_reads_one_that_does_not_count() -> None:
    shares = [split_batches([7, 8, 9, 4], 3, rank=rank, num_processes=2)[1] for rank in range(2)]
    assert (shares[0].indices, shares[0].counts) == ((4,), True)
    assert (shares[1].indices, shares[1].counts) == ((4,), False)


def test_loading_leaves_the_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = [{"labels": index} for index in range(10)]
    shares = split_batches(range(10), 4)
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
