"""Strings of spoken digits for speech recognition, put together from the clips of spoken-digits."""

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import soundfile
from datasets import Dataset

STRINGS = {"train": 512, "validation": 100, "test": 300}
MAX_WORDS = 2
PAUSE_SECONDS = (0.0, 0.15)
SEED = 0  # the same for all runs


def digit_strings(clips: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Columns ``audio`` (a WAV file) and ``text``: one to MAX_WORDS clips with pauses between them.

    All clips of a string are of one voice, and voices, so also clips, lie in one split only.
    Of a voice every clip is used once before any is used again. Where two clips meet the background
    changes, which it does not in real speech.
    """
    rng = np.random.default_rng(SEED)
    made = {}
    for split, count in STRINGS.items():
        rows = clips[split]
        waves = [soundfile.read(io.BytesIO(clip), dtype="int16") for clip in rows["audio"][:]]
        words = rows["label"][:]
        voices: dict[str, list[int]] = {}
        for index, voice in enumerate(rows["voice"][:]):
            voices.setdefault(voice.partition("+")[2], []).append(index)
        waiting: dict[str, list[int]] = {voice: [] for voice in voices}
        audio, text = [], []
        for _ in range(count):
            voice = str(rng.choice(sorted(voices)))
            chosen = []
            for _ in range(int(rng.integers(1, MAX_WORDS + 1))):
                waiting[voice] = waiting[voice] or rng.permutation(voices[voice]).tolist()
                chosen.append(waiting[voice].pop())
            audio.append(_joined([waves[index] for index in chosen], rng))
            text.append(" ".join(words[index] for index in chosen))
        made[split] = Dataset.from_dict({"audio": audio, "text": text})
    return made


def _joined(waves: list[tuple[npt.NDArray[np.int16], int]], rng: np.random.Generator) -> bytes:
    """One WAV file of 16 bits."""
    rate_hz = waves[0][1]
    parts: list[npt.NDArray[np.int16]] = []
    for samples, _ in waves:
        pause = round(rng.uniform(*PAUSE_SECONDS) * rate_hz) if parts else 0
        parts += [np.zeros(pause, dtype=np.int16), samples]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(parts), rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()
