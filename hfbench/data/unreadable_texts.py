"""How much of the texts a tokenizer can read: unknown tokens, and texts without a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hfbench.data.tokens import Integers
from hfbench.errors import UserError

SHOWN = 40  # characters of a text in a message
MUCH = 0.2  # from this share of unknown tokens on it is a warning


@dataclass(frozen=True)
class Reader:
    """What is to be known of a tokenizer.

    Attributes:
        special: tokens that stand for no text.
        unknown: the token of what the vocabulary lacks; None where bytes spell everything.
        unknown_token: as it is written.
    """

    special: frozenset[int]
    unknown: int | None
    unknown_token: str

    @classmethod
    def of(cls, tokenizer: Any) -> "Reader":
        special, unknown = frozenset(tokenizer.all_special_ids), tokenizer.unk_token_id
        # GPT-2 spells everything in bytes, and what it calls unknown is the end of a text.
        if unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id):
            unknown = None
        return cls(special - {unknown}, unknown, str(tokenizer.unk_token))

    def of_texts(self, tokens: Integers, offsets: Integers) -> npt.NDArray[np.int64]:
        """(texts,): how many tokens of each stand for text, unknown ones too.

        tokens: of all texts, (tokens,); offsets: where each begins, and the end, (texts + 1,).
        """
        counts = np.concatenate([[0], np.cumsum(~self._special(tokens))])
        found: npt.NDArray[np.int64] = counts[offsets[1:]] - counts[offsets[:-1]]
        return found

    def unknown_share(self, tokens: Integers) -> float:
        """Of the tokens that stand for text, from 0 to 1."""
        if self.unknown is None:
            return 0.0
        return float((tokens == self.unknown).sum() / max(int((~self._special(tokens)).sum()), 1))

    def _special(self, tokens: Integers) -> npt.NDArray[np.bool_]:
        return np.isin(tokens, list(self.special))

    def describe(self, shares: Mapping[str, float]) -> list[str]:
        """A line for the splits with unknown tokens, a warning where these are many."""
        found = {role: share for role, share in shares.items() if share > 0}
        if not found:
            return []
        listed = ", ".join(f"{100 * share:.3g} % of {role}" for role, share in found.items())
        line = f"tokens that the tokenizer does not know ({self.unknown_token}): {listed}"
        if max(found.values()) <= MUCH:
            return [line]
        return [
            f"warning: {line}. The model does not see what stands there: choose a checkpoint whose "
            "tokenizer knows the language and script of these texts"
        ]


def no_tokens(checkpoint: str, split: str, text: str) -> UserError:
    """For a split of which the tokenizer makes nothing."""
    return UserError(
        f"the tokenizer of {checkpoint!r} gives no token for any text of {split}, such as "
        f"{text[:SHOWN]!r}: choose a checkpoint whose tokenizer knows their language and script"
    )
