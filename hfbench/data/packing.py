"""Token sequences for causal language models: packed blocks of a text, prompts with completions."""

from collections.abc import Iterable, Sequence

import numpy as np

from hfbench.data.tokens import IGNORED, Integers, Padding, TokenSamples


def pack(
    documents: Iterable[Sequence[int]],
    *,
    end: int,
    max_length: int,
    padding: Padding,
    limit: int | None = None,
) -> TokenSamples:
    """Blocks of ``max_length`` tokens of all documents behind one another; the last may be short.

    An end-of-text token stands before the first document and behind each. The last token of a
    block is the next one's first, so that every token but the very first is predicted exactly once.
    With a ``limit`` at most so many blocks are kept, chosen by chance and the same every time.
    """
    assert max_length >= 2, max_length
    pieces = [np.array([end])]
    for document in documents:
        pieces += [np.asarray(document, dtype=np.int64), np.array([end])]
    stream = np.concatenate(pieces)
    starts = np.arange(0, max(len(stream) - 1, 1), max_length - 1)
    if limit is not None and limit < len(starts):
        starts = np.sort(np.random.default_rng(0).permutation(starts)[:limit])
    ends = np.minimum(starts + max_length, len(stream))
    tokens = np.concatenate([stream[a:b] for a, b in zip(starts, ends, strict=True)])
    features = {"input_ids": tokens, "labels": tokens}
    return TokenSamples(features, ends - starts, None, padding)


def complete(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], padding: Padding
) -> TokenSamples:
    """Every prompt with its completion; only the completion's tokens have labels."""
    pairs = list(zip(prompts, completions, strict=True))
    tokens = [np.array([*prompt, *completion]) for prompt, completion in pairs]
    labels = [np.array([IGNORED] * len(p) + list(c)) for p, c in pairs]
    lengths: Integers = np.array([len(row) for row in tokens])
    features = {"input_ids": np.concatenate(tokens), "labels": np.concatenate(labels)}
    return TokenSamples(features, lengths, None, padding)
