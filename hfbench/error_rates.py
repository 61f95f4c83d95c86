"""Word and character error rates of transcripts, as plain numbers."""

from collections.abc import Sequence
from typing import Any

import jiwer


def error_rates(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """``wer`` and ``cer``: substitutions, deletions and insertions over what the references hold.

    Edits and lengths are summed over all transcripts before the division, so that a long one
    weighs what it holds. Characters include spaces. Both rates may exceed 1.

    Raises ValueError for an empty reference.
    """
    words = jiwer.process_words(list(references), list(hypotheses))
    characters = jiwer.process_characters(list(references), list(hypotheses))
    return {"wer": float(words.wer), "cer": float(characters.cer)}
