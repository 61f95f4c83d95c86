"""Token sequences for causal language models: packed blocks of a text, prompts with completions."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hfbench.data.tokens import IGNORED, Integers, Padding, TokenSamples


def pack(
    documents: Iterable[Sequence[int]],
    *,
    end: int,
    before: Sequence[int] = (),
    max_length: int,
    padding: Padding,
    limit: int | None = None,
) -> TokenSamples:
    """Blocks of ``max_length`` tokens of all documents behind one another; the last may be short.

    An end-of-text token stands behind each document, and every token of the documents and every end
    is predicted exactly once. What a tokenizer puts in front of texts (``before``, such as <bos>)
    begins every document and every block, as models that learnt with it expect; it is never
    predicted. Without it an end token stands before the first document, and the last token of a
    block is the next one's first.
    With a ``limit`` at most so many blocks are kept, chosen by chance and the same every time.
    """
    assert max_length > len(before), max_length
    front = np.asarray(before, dtype=np.int64)
    repeated = front if front.tolist() != [end] else front[:0]  # one end is also the next beginning
    pieces: list[Integers] = []
    for document in documents:
        pieces += [repeated, np.asarray(document, dtype=np.int64), np.array([end])]
    stream = np.concatenate([np.array([end]), *pieces] if not before else pieces)
    is_text = np.ones(len(stream), dtype=bool)
    if len(repeated):
        starts = np.cumsum([0, *map(len, pieces)])[:-1:3]
        is_text[(starts[:, np.newaxis] + np.arange(len(repeated))).flatten()] = False
    blocks = list(_blocks(is_text, max_length - len(before), overlap=0 if before else 1))
    if limit is not None and limit < len(blocks):
        chosen = np.sort(np.random.default_rng(0).permutation(len(blocks))[:limit])
        blocks = [blocks[index] for index in chosen]
    ignored = np.full(len(front), IGNORED)
    labels = np.where(is_text, stream, IGNORED)
    features = {
        "input_ids": np.concatenate([part for a, b in blocks for part in (front, stream[a:b])]),
        "labels": np.concatenate([part for a, b in blocks for part in (ignored, labels[a:b])]),
    }
    return TokenSamples(features, np.array([len(front) + b - a for a, b in blocks]), None, padding)


def _blocks(
    is_text: npt.NDArray[np.bool_], size: int, *, overlap: int
) -> Iterator[tuple[int, int]]:
    """Start and end of each block of at most ``size`` tokens, of which the first is text.

    A block begins ``overlap`` tokens before the end of the one before.
    """
    places = np.flatnonzero(is_text)
    start, last = 0, len(is_text)
    while start < max(last - overlap, 1):
        start = int(places[np.searchsorted(places, start)])
        yield start, min(start + size, last)
        start += size - overlap


def tokens_to_predict(samples: TokenSamples) -> int:
    """How many labels of the samples a model predicts: all but the first token's of each."""
    real = samples.features["labels"] != IGNORED
    return int(real.sum() - real[samples.offsets[:-1]].sum())


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
