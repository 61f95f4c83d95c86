"""Sounds from files or bytes, decoded with soundfile and resampled with soxr."""

import io

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from hfbench.errors import UserError

MIN_SECONDS = 0.05  # shorter clips are padded with silence: networks need one whole frame


def decode_audio(
    source: str | bytes, *, sample_rate_hz: int, max_seconds: float, name: str
) -> npt.NDArray[np.float32]:
    """One clip, mono, at ``sample_rate_hz``: (samples,), float32, full scale is 1.

    Channels are averaged. The rate is changed with a band-limited filter (soxr, quality HQ).
    Longer clips keep their middle ``max_seconds``. ``name`` says in the error which clip it is.

    Raises UserError when the file is missing, broken or empty.
    """
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        frames, own_rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"{name} is not a readable sound: {error}") from error
    if len(frames) == 0:
        raise UserError(f"{name} is an empty sound")
    clip = frames.mean(axis=1)
    if own_rate_hz != sample_rate_hz:
        clip = soxr.resample(clip, own_rate_hz, sample_rate_hz, quality="HQ")
    if not np.isfinite(clip).all():
        raise UserError(f"{name} holds numbers that are not finite")
    clip = crop_centre(clip, round(max_seconds * sample_rate_hz))
    missing = round(MIN_SECONDS * sample_rate_hz) - len(clip)
    padded: npt.NDArray[np.float32] = np.pad(clip, (0, max(0, missing))).astype(np.float32)
    return padded


def crop_centre(clip: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.float32]:
    """The middle ``samples`` of a clip; a shorter one stays whole."""
    start = max(0, (len(clip) - samples) // 2)
    return clip[start : start + samples]
