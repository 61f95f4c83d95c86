"""Sounds from files or bytes, decoded with soundfile and resampled with soxr."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from hfbench.data.cropping import (
    CLIPS,
    CLIPS_AT,
    CROPPED_CLIPS,
    CROPPED_SECONDS,
    SECONDS,
    SEVERAL_CHANNELS,
    Facts,
)
from hfbench.errors import UnreadableError
from hfbench.plain_files import open_plain

UNKNOWN_BYTES = 2**31 - 2**16  # what writes a stream puts about this, or 2**32 - 1, for its size
# Of all channels: 2 GiB as float32, 9 hours of mono at 16 kHz. A damaged header announces more.
MAX_SAMPLES = 2**29
MIN_SECONDS = 0.05  # shorter clips are padded with silence: networks need one whole frame


def decode_audio(
    source: str | bytes,
    *,
    sample_rate_hz: int,
    max_seconds: float,
    name: str,
    facts: Facts | None = None,
) -> npt.NDArray[np.float32]:
    """One clip, mono, at ``sample_rate_hz``: (samples,), float32, full scale is 1.

    Channels are averaged. The rate is changed with a band-limited filter (soxr, quality HQ).
    Longer clips keep their middle ``max_seconds``. ``name`` says in the error which clip it is;
    what was done to it is added to ``facts``.

    Raises UnreadableError when the file is missing, broken, truncated or empty, or has more than
    MAX_SAMPLES by its header, as it is or resampled.
    """
    with _opened(source, name) as file:
        missing_bytes = _missing_wav_bytes(file)
        file.seek(0)
        with soundfile.SoundFile(file) as sound:
            own_rate_hz, expected = sound.samplerate, sound.frames
            if expected * sound.channels > MAX_SAMPLES:  # memory for all is taken before reading
                raise UnreadableError(
                    name,
                    f"a sound that is damaged or too long: its header announces {expected:,} "
                    f"samples of {sound.channels} channels, at most {MAX_SAMPLES:,} are read",
                )
            resampled = round(expected * sample_rate_hz / own_rate_hz)
            if resampled > MAX_SAMPLES:
                raise UnreadableError(
                    name,
                    f"a sound that is damaged or too long: its header says {expected:,} samples at "
                    f"{own_rate_hz:,} Hz, which are {resampled:,} at {sample_rate_hz:,} Hz; at "
                    f"most {MAX_SAMPLES:,} are made",
                )
            frames = sound.read(dtype="float32", always_2d=True)
    if missing_bytes:
        raise UnreadableError(
            name, f"a truncated sound: its last {missing_bytes:,} bytes are missing"
        )
    if len(frames) == 0:
        raise UnreadableError(name, "an empty sound")
    if len(frames) < expected:
        raise UnreadableError(
            name, f"a truncated sound: it has {len(frames):,} of {expected:,} samples"
        )
    clip = frames.mean(axis=1)
    if own_rate_hz != sample_rate_hz:
        clip = soxr.resample(clip, own_rate_hz, sample_rate_hz, quality="HQ")
    if not np.isfinite(clip).all():
        raise UnreadableError(name, "a sound with numbers that are not finite")
    whole = len(clip)
    clip = crop_centre(clip, round(max_seconds * sample_rate_hz))
    if facts is not None:
        facts[CLIPS] += 1
        facts[f"{CLIPS_AT}{own_rate_hz}"] += 1
        facts[SEVERAL_CHANNELS] += frames.shape[1] > 1
        facts[SECONDS] += whole / sample_rate_hz
        facts[CROPPED_CLIPS] += len(clip) < whole
        facts[CROPPED_SECONDS] += (whole - len(clip)) / sample_rate_hz
    missing = round(MIN_SECONDS * sample_rate_hz) - len(clip)
    padded: npt.NDArray[np.float32] = np.pad(clip, (0, max(0, missing))).astype(np.float32)
    return padded


def audio_seconds(source: str | bytes, name: str) -> float:
    """How long a clip is, by its header. Raises UnreadableError when it is missing or broken."""
    with _opened(source, name) as file:
        return float(soundfile.info(file).duration)


@contextmanager
def _opened(source: str | bytes, name: str) -> Iterator[BinaryIO]:
    """The file, where everything that goes wrong with it is an UnreadableError."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_plain(source) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise UnreadableError(name, f"not a readable sound: {error.error_string}") from error
    except OSError as error:
        raise UnreadableError(name, f"not a readable sound: {error.strerror or error}") from error


def _missing_wav_bytes(file: BinaryIO) -> int:
    """How many bytes the data chunk of a RIFF file announces behind the file's end.

    0 for other kinds of file and for the sizes that stand for an unknown one, as of a stream.
    libsndfile reads what is there and says nothing. Format: Microsoft and IBM, Multimedia
    Programming Interface and Data Specifications 1.0, 1991.
    """
    header = file.read(12)
    if header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return 0
    while len(chunk := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            start = file.tell()
            there = file.seek(0, io.SEEK_END) - start
            return max(0, size - there) if size < UNKNOWN_BYTES else 0
        file.seek(size + size % 2, io.SEEK_CUR)
    return 0


def crop_centre(clip: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.float32]:
    """The middle ``samples`` of a clip; a shorter one stays whole."""
    start = max(0, (len(clip) - samples) // 2)
    return clip[start : start + samples]
