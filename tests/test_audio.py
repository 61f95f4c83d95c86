"""Decoding, mixing, resampling and cropping of sounds."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hfbench.data.audio import MIN_SECONDS, crop_centre, decode_audio
from hfbench.errors import UserError


def encoded(samples: np.ndarray, sample_rate_hz: int, kind: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    subtype = "FLOAT" if kind == "WAV" else None
    soundfile.write(buffer, samples, sample_rate_hz, format=kind, subtype=subtype)
    return buffer.getvalue()


def sine(frequency_hz: float, sample_rate_hz: int, seconds: float = 1.0) -> np.ndarray:
    times = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    return np.sin(2 * np.pi * frequency_hz * times).astype(np.float32)


def decode(source: str | bytes, sample_rate_hz: int = 16000, max_seconds: float = 9) -> np.ndarray:
    return decode_audio(
        source, sample_rate_hz=sample_rate_hz, max_seconds=max_seconds, name="train row 3"
    )


def test_samples_at_the_wanted_rate_come_back_unchanged() -> None:
    clip = sine(440, 16000)
    found = decode(encoded(clip, 16000))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, clip)


@pytest.mark.parametrize("own_rate_hz", [8000, 22050, 44100, 48000])
def test_a_sine_keeps_its_frequency_phase_and_amplitude_when_resampled(own_rate_hz: int) -> None:
    found = decode(encoded(sine(440, own_rate_hz), own_rate_hz))
    assert len(found) == 16000
    inner = slice(400, -400)  # the filter sees silence beyond the ends
    np.testing.assert_allclose(found[inner], sine(440, 16000)[inner], atol=1e-3)


def test_frequencies_above_half_the_new_rate_are_removed_not_folded_down() -> None:
    found = decode(encoded(sine(10000, 44100), 44100))  # would appear at 6 kHz
    assert np.abs(found[400:-400]).max() < 1e-3


def test_channels_are_averaged() -> None:
    left, right = sine(440, 16000), np.full(16000, 0.5, dtype=np.float32)
    found = decode(encoded(np.stack([left, right], axis=1), 16000))
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-7)


def test_flac_bytes_and_files_are_read(tmp_path: Path) -> None:
    data = encoded(sine(440, 16000) * 0.5, 16000, "FLAC")
    (tmp_path / "a.flac").write_bytes(data)
    np.testing.assert_array_equal(decode(str(tmp_path / "a.flac")), decode(data))


def test_a_long_clip_keeps_its_middle() -> None:
    assert crop_centre(np.arange(10, dtype=np.float32), 4).tolist() == [3, 4, 5, 6]
    assert crop_centre(np.arange(3, dtype=np.float32), 4).tolist() == [0, 1, 2]
    clip = np.linspace(0, 1, 32000, dtype=np.float32)
    np.testing.assert_array_equal(decode(encoded(clip, 16000), max_seconds=1), clip[8000:24000])


def test_a_very_short_clip_is_padded_with_silence() -> None:
    found = decode(encoded(np.ones(10, dtype=np.float32), 16000))
    assert len(found) == round(MIN_SECONDS * 16000)
    assert found.sum() == 10


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (b"not a sound", "not a readable sound"),
        ("/nowhere/missing.wav", "not a readable sound"),
        (encoded(np.zeros(0, dtype=np.float32), 16000), "empty"),
        (encoded(np.array([np.nan, 0], dtype=np.float32), 16000), "not finite"),
    ],
    ids=["other bytes", "missing", "empty", "not finite"],  # the bytes of a sound hold the time
)
def test_a_bad_sound_is_an_error_that_names_the_sample(source: str | bytes, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        decode(source)
    assert "train row 3" in str(caught.value)
