"""Which samples form which batch: one global order, shared out among the processes.

The order depends on the seed and the epoch only, never on the number of processes, so that the
same configuration takes the same optimiser steps on one CPU or on eight GPUs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch = dict[str, Tensor]
Sample = dict[str, Any]
Collate = Callable[[list[Sample]], Batch]

WINDOW_BATCHES = 50  # are sorted by length together,
FEW_WINDOWS = 4  # with fewer all are sorted together, and to keep chance its say
JITTER = 0.1  # each length is multiplied by a random factor up to this far from 1


class SampleSource(Protocol):
    """Anything with a length and an integer index: a ``datasets.Dataset``, a list, a Dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@runtime_checkable
class BatchSource(SampleSource, Protocol):
    """A source that lies in memory as tensors and gives whole batches without reading samples."""

    def read_batch(self, indices: Sequence[int], device: torch.device) -> Batch:
        """What ``collate`` makes of these samples, on ``device``."""


@dataclass(frozen=True)
class Share:
    """What one process reads of one global batch.

    A process for which nothing is left in the last, short batch reads one sample that does not
    count (``counts=False``), because every process must take part in every backward pass.
    """

    indices: tuple[int, ...]
    counts: bool = True
    global_size: int = 0  # samples of the batch over all processes


def epoch_batches(
    num_samples: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    lengths: Sequence[int] | None = None,
) -> list[list[int]]:
    """The global batches of this epoch: every sample once, only the last batch may be short.

    With ``lengths`` the whole batches hold samples of like length, so that little of them is
    padding: the random order is cut into windows of many batches, each window is sorted by length
    and cut into batches, and these are shuffled over the epoch. An epoch of few batches is one
    window, with lengths that are jittered, so that other samples meet than in the epoch before.
    What the short batch holds stays chance, because its samples weigh more.
    """
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    order = torch.randperm(num_samples, generator=generator)
    whole = num_samples - num_samples % batch_size
    grouped = order[:whole]
    if lengths is not None and min(lengths) < max(lengths):
        key = torch.as_tensor(lengths, dtype=torch.float64)[grouped]
        if whole < FEW_WINDOWS * WINDOW_BATCHES * batch_size:
            chance = torch.rand(whole, generator=generator, dtype=torch.float64)
            key *= 1 + JITTER * (2 * chance - 1)
        else:  # windows stay in their order
            key += torch.arange(whole) // (batch_size * WINDOW_BATCHES) * (max(lengths) + 1)
        batches = grouped[key.argsort(stable=True)].view(-1, batch_size)
        grouped = batches[torch.randperm(len(batches), generator=generator)].flatten()
    indices: list[int] = torch.cat([grouped, order[whole:]]).tolist()
    return [indices[start : start + batch_size] for start in range(0, num_samples, batch_size)]


def split_batches(
    batches: Sequence[Sequence[int]], *, rank: int = 0, num_processes: int = 1
) -> list[Share]:
    """This process's share of each global batch."""
    shares = []
    for batch in batches:
        mine = tuple(batch[rank::num_processes])
        shares.append(
            Share(mine, True, len(batch)) if mine else Share((batch[0],), False, len(batch))
        )
    return shares


def padding_share(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """How much of batches that are padded to their longest sample is padding, from 0 to 1."""
    sizes = np.asarray(lengths)
    padded = sum(len(batch) * int(sizes[batch].max()) for batch in batches)
    return 1 - int(sizes[list(chain.from_iterable(batches))].sum()) / padded


def like_batches(
    count: int,
    batch_size: int,
    lengths: Sequence[int] | None = None,
    *,
    slack: float = 1.0,
) -> list[tuple[int, ...]]:
    """Every one of ``range(count)`` once, in batches of like ``lengths``: little is padded.

    None of a batch is shorter than its longest by more than the share ``slack``; 0: all are equal.
    The longest come first, because memory that does not suffice should show at the start.
    """
    if lengths is None:
        lengths = [1] * count
    batches: list[list[int]] = []
    for index in sorted(range(count), key=lambda index: -lengths[index]):
        if (
            not batches
            or len(batches[-1]) == batch_size
            or lengths[index] < (1 - slack) * lengths[batches[-1][0]]
        ):
            batches.append([])
        batches[-1].append(index)
    return [tuple(batch) for batch in batches]


def equal_parts(batch: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """The samples of a batch in parts of one length each, the longest first."""
    chosen = [lengths[index] for index in batch]
    parts = like_batches(len(batch), len(batch), chosen, slack=0.0)
    return [[batch[place] for place in part] for part in parts]


def divided(batch: Sequence[int], most: int) -> list[Sequence[int]]:
    """The batch in as few parts as have at most ``most`` samples; sizes differ by 1 at most.

    A short last batch that fits stays whole: batch norms refuse single samples.
    """
    parts = math.ceil(len(batch) / most)
    bounds = [len(batch) * part // parts for part in range(parts + 1)]
    return [batch[start:end] for start, end in pairwise(bounds)]


def load_batches(
    data: SampleSource,
    shares: Sequence[Share],
    collate: Collate,
    *,
    device: torch.device,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yield one batch for each share, in order, without touching the random state.

    A :class:`BatchSource` gives it on ``device``; others are collated on the CPU, by
    ``num_workers`` processes ahead of the loop.
    """
    if isinstance(data, BatchSource):
        return (data.read_batch(share.indices, device) for share in shares)
    return iter(
        DataLoader(
            _Indexed(data),
            batch_sampler=[list(share.indices) for share in shares],
            collate_fn=collate,
            num_workers=num_workers,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )
    )


class _Indexed(Dataset[Sample]):
    """Gives the DataLoader plain single-sample reads of any source."""

    def __init__(self, data: SampleSource) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        return self.data[index]

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        """One read of a whole batch where the source can (a ``datasets.Dataset`` can)."""
        read: Callable[[list[int]], list[Sample]] | None = getattr(self.data, "__getitems__", None)
        return [self.data[i] for i in indices] if read is None else read(indices)
