"""How much of a recording a network gets: by the clips, the feature extractor and the memory."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from hfbench.answers import cached
from hfbench.data.audio import audio_seconds
from hfbench.data.media import encoded
from hfbench.errors import UnreadableError

SHARE = 0.95  # of the training clips that stay whole where nobody says how much to keep
# More is for the user to ask for: memory grows with the seconds, that of attention with their
# square.
MOST_SECONDS = 10.0
MOST_SPEECH_SECONDS = 30.0  # transcripts belong to whole recordings
_LONGEST_PROBED_SECONDS = 60.0

Clip = npt.NDArray[Any]  # (samples,), and features of any shape


@dataclass(frozen=True)
class ClipLength:
    """``seconds`` of a recording that a network gets at most, and why it is so many."""

    seconds: float
    reason: str


def given(seconds: float, limit: float | None) -> ClipLength:
    """What the user asks for, where the feature extractor reads that much."""
    if limit is None or seconds <= limit:
        return ClipLength(seconds, "")
    return ClipLength(
        limit, f"data.max_seconds={seconds:g}, of which this checkpoint reads {limit:g} s"
    )


def of_most_clips(durations: Iterable[float], limit: float | None) -> ClipLength:
    """Enough for SHARE of the clips; ``limit`` is what the feature extractor reads."""
    ordered = sorted(durations) or [MOST_SECONDS]  # if none is readable, to read them will fail
    enough = ordered[math.ceil(SHARE * len(ordered)) - 1]
    facts = (
        f"{100 * SHARE:g} % of the training clips are not longer than {enough:.3g} s, the longest "
        f"has {ordered[-1]:.3g} s"
    )
    return _bounded(enough, limit, MOST_SECONDS, facts)


def of_all_clips(durations: Iterable[float], limit: float | None) -> ClipLength:
    """Enough for every clip, as a transcript belongs to all of it."""
    longest = max(durations, default=MOST_SPEECH_SECONDS)
    return _bounded(longest, limit, MOST_SPEECH_SECONDS, f"the longest clip has {longest:.3g} s")


def _bounded(wanted: float, limit: float | None, most: float, facts: str) -> ClipLength:
    seconds, why = math.ceil(wanted * 10 - 1e-6) / 10, ""
    if seconds > most:
        seconds, why = most, "; more takes much memory, so it is only used when it is asked for"
    if limit is not None and seconds > limit:
        seconds, why = limit, "; this checkpoint reads no more"
    return ClipLength(seconds, f"data.max_seconds={seconds:g}, chosen: {facts}{why}")


def durations_of(rows: Dataset) -> Iterator[float]:
    """Seconds of every clip of the column ``audio`` by its header; none of what has no header."""
    for value in rows["audio"]:
        try:
            yield audio_seconds(*encoded(value, "audio", "clip"))
        except UnreadableError:  # found again, and counted, when it is decoded
            continue


def seconds_read(extractor: Any) -> float | None:
    """How much of a clip a feature extractor looks at, to a tenth of a second below.

    None where its features grow with the clip. Tried, not looked up: a sound at the end of a
    silent clip changes the features or does not. The answer is kept on this machine.
    """
    rate_hz: int = extractor.sampling_rate
    name = extractor.model_input_names[0]

    def features(clip: Clip) -> Clip:
        return np.asarray(extractor(clip, sampling_rate=rate_hz, return_tensors="np")[name][0])

    def silence(seconds: float) -> Clip:
        return np.zeros(round(seconds * rate_hz), dtype=np.float32)

    def ends_unread(tenths: int) -> bool:
        clip = silence(tenths / 10)
        quiet = features(clip)
        end = clip[-rate_hz // 50 :]
        end[:] = 0.5 * (-1.0) ** np.arange(len(end))
        return np.array_equal(features(clip), quiet)

    if features(silence(1.0)).shape != features(silence(2.0)).shape:
        return None

    def search() -> float:
        most = 10
        while most < _LONGEST_PROBED_SECONDS * 10 and not ends_unread(most):
            most *= 2
        return bisect_left(range(1, most + 1), True, key=ends_unread) / 10

    question = {"seconds_read": extractor.to_json_string()}
    return cached(question, search, to_json=float, from_json=float)
