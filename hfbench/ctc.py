"""From CTC's outputs to a labelling: the best path, or a search over prefixes. NumPy only.

Of the packages for this, pyctcdecode wants NumPy 1 and torchaudio has dropped its decoder.
"""

import math
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LogProbabilities = npt.NDArray[np.floating]


class Labelling(NamedTuple):
    """Token indices without blanks, and the natural logarithm of their probability."""

    tokens: tuple[int, ...]
    log_probability: float


def best_path(log_probabilities: LogProbabilities, *, blank: int) -> tuple[int, ...]:
    """The most probable token of every frame; repeats are one token and blanks go.

    log_probabilities: (frames, vocabulary).
    """
    path = log_probabilities.argmax(axis=-1).tolist()
    return tuple(token for token, _ in groupby(path) if token != blank)


def beam_search(
    log_probabilities: LogProbabilities, *, blank: int, beams: int
) -> tuple[Labelling, ...]:
    """At most ``beams`` labellings, the most probable first, each with all its paths that it kept.

    Prefix search (Graves et al. 2006, section 3.2; Hannun et al. 2014, algorithm 1 without its
    language model). In every frame the ``beams`` most probable tokens extend the ``beams`` best
    prefixes, so with as many beams as labellings the probabilities are exact, else they are lower
    bounds.

    log_probabilities: (frames, vocabulary).
    """
    found: dict[tuple[int, ...], _Ends] = {(): _Ends(blank=0.0)}
    for frame in log_probabilities:
        likely = np.argsort(-frame, kind="stable")[:beams].tolist()
        values = frame.tolist()
        following: dict[tuple[int, ...], _Ends] = {}
        for prefix, ends in found.items():
            last = prefix[-1] if prefix else None
            stay = following.setdefault(prefix, _Ends())
            stay.blank = _log_sum(stay.blank, ends.total + values[blank])
            if last is not None:
                stay.token = _log_sum(stay.token, ends.token + values[last])
            for token in likely:
                if token == blank:
                    continue
                longer = following.setdefault((*prefix, token), _Ends())
                # The same token again is a new one only behind a blank.
                before = ends.blank if token == last else ends.total
                longer.token = _log_sum(longer.token, before + values[token])
        possible = [item for item in following.items() if item[1].total > -math.inf]
        found = dict(sorted(possible, key=lambda item: -item[1].total)[:beams])
    return tuple(Labelling(prefix, ends.total) for prefix, ends in found.items())


class _Ends:
    """Log probabilities of a prefix's paths, by what they end with."""

    def __init__(self, blank: float = -math.inf) -> None:
        self.blank, self.token = blank, -math.inf

    @property
    def total(self) -> float:
        return _log_sum(self.blank, self.token)


def _log_sum(one: float, other: float) -> float:
    """log(exp(one) + exp(other))."""
    low, high = sorted((one, other))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
