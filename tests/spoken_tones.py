"""Speech of two letters, each a tone: what a tiny network learns in seconds."""

import re

import numpy as np

HERTZ = {"a": 300, "b": 2500}
TRANSCRIPTS = ("A.", "b", "A, b", "b — a", "a a", "B b")


def spoken(text: str, seed: int = 0) -> np.ndarray:
    """A low tone of 0.1 s for a, a high one for b, silence behind each, with noise; 16 kHz."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(1600) / 16000
    parts = []
    for letter in re.findall("[ab]", text.lower()):
        parts += [0.3 * np.sin(2 * np.pi * HERTZ[letter] * seconds), np.zeros(800)]
    clip = np.concatenate(parts)
    return np.asarray(clip + 0.01 * rng.normal(size=len(clip)))
