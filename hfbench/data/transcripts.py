"""Transcripts as a CTC model writes them: normalised, and as numbers of its vocabulary."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from hfbench.errors import UserError

PAD, UNKNOWN, DELIMITER = "[PAD]", "[UNK]", "|"
UNREADABLE = "\N{REPLACEMENT CHARACTER}"  # what references hold where the vocabulary has no token
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc\u0060\u00b4", "'"))
# Of no width: soft hyphen, space, no-break space (byte order mark), word joiner, direction marks.
# The joiners U+200C and U+200D stay: words in Persian and Hindi are other words without them.
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"), None)
_FRACTION_SLASH = "\u2044"
_PUNCTUATION = ("P", "S")  # first letters of Unicode's categories


@dataclass(frozen=True)
class Alphabet:
    """The vocabulary of a CTC model and the spelling that it implies.

    Attributes:
        vocabulary: token -> its number; a token of one character stands for this character.
        blank: the number of CTC's blank.
        specials: numbers that stand for no character, such as the blank and the unknown token.
        unknown: the number that stands for every other character; None where there is none.
    """

    vocabulary: Mapping[str, int]
    blank: int
    specials: frozenset[int]
    unknown: int | None
    delimiter: str = DELIMITER

    @classmethod
    def of(cls, tokenizer: Any, outputs: int) -> "Alphabet":
        """Of a ``Wav2Vec2CTCTokenizer``, whose padding is CTC's blank.

        ``outputs``: of the network's head. A tokenizer numbers special tokens that its vocabulary
        lacks behind all others, where the head may have no output for them.

        Raises UserError for a blank and a delimiter of words without an output.
        """
        vocabulary, delimiter = tokenizer.get_vocab(), tokenizer.word_delimiter_token
        for key, token in (("pad_token", tokenizer.pad_token), ("word_delimiter_token", delimiter)):
            if vocabulary.get(token, outputs) >= outputs:
                raise UserError(
                    f"the vocabulary (vocab.json) has no {key}={token!r} among the {outputs} "
                    "outputs of the network: name the token that it uses instead in "
                    "tokenizer_config.json, or choose another checkpoint"
                )
        unknown = vocabulary.get(tokenizer.unk_token, outputs)
        return cls(
            vocabulary,
            blank=tokenizer.pad_token_id,
            # A tokenizer that was loaded counts the delimiter among them.
            specials=frozenset(tokenizer.all_special_ids) - {vocabulary[delimiter]},
            unknown=unknown if unknown < outputs else None,
            delimiter=delimiter,
        )

    @cached_property
    def case(self) -> Literal["lower", "upper", "any"]:
        """The only one that the vocabulary's letters have."""
        lower = any(token.islower() for token in self._characters)
        upper = any(token.isupper() for token in self._characters)
        return "any" if lower == upper else "lower" if lower else "upper"

    @cached_property
    def kept_punctuation(self) -> str:
        """What of punctuation and symbols transcripts may hold."""
        return "".join(sorted(filter(_is_punctuation, self._characters)))

    @cached_property
    def _characters(self) -> frozenset[str]:
        """That the model can write, without the space."""
        return frozenset(
            token
            for token, number in self.vocabulary.items()
            if len(token) == 1 and token != self.delimiter and number not in self.specials
        )

    def normalise(self, text: str) -> str:
        """The text as the model writes it; characters that it does not know stay."""
        return normalise(text, case=self.case, kept=self.kept_punctuation)

    def encode(self, normalised: str) -> list[int]:
        """Token numbers; those of unknown characters are left out where there is no such token."""
        numbers = (
            self.vocabulary.get(self.delimiter if letter == " " else letter, self.unknown)
            for letter in normalised
        )
        return [number for number in numbers if number is not None]

    def decode(self, numbers: Iterable[int], *, unknown: str = "") -> str:
        """The text of token numbers that are no CTC path any more."""
        letters = (
            self._tokens[number]
            if number not in self.specials
            else unknown
            if number == self.unknown
            else ""
            for number in numbers
        )
        return " ".join("".join(letters).replace(self.delimiter, " ").split())

    @cached_property
    def _tokens(self) -> Mapping[int, str]:
        return {number: token for token, number in self.vocabulary.items()}

    def unknown_characters(self, normalised: Iterable[str]) -> Counter[str]:
        """How often the texts hold a character that the vocabulary lacks."""
        known = self._characters | {" "}
        counts = Counter(letter for text in normalised for letter in text)
        return Counter({letter: n for letter, n in counts.items() if letter not in known})

    @property
    def rules(self) -> str:
        """The normalisation in words."""
        kept = f" except {' '.join(self.kept_punctuation)}" if self.kept_punctuation else ""
        return (
            f"Unicode NFKC, {self.case} case, dashes and hyphens are spaces, other punctuation, "
            f"symbols and invisible characters removed{kept}"
        )


def normalise(text: str, *, case: str, kept: str) -> str:
    """One spelling for all transcripts.

    Unicode NFKC; typographic apostrophes as ``'``; ``case`` is lower or upper, or nothing changes;
    dashes become spaces and other punctuation and symbols go, except the characters in ``kept``;
    invisible characters go (soft hyphens, zero-width spaces, marks of byte order and direction);
    single spaces. Of a fraction in one character both numbers stay, as two words.
    """
    # NFKC makes a space and an accent of the apostrophe \u00b4, and an apostrophe of \u0149.
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).translate(_APOSTROPHES)
    text = text.translate(_INVISIBLE)
    text = text.replace(_FRACTION_SLASH, " ")
    text = {"lower": text.lower, "upper": text.upper}.get(case, lambda: text)()
    letters = (
        letter
        if letter in kept or not _is_punctuation(letter)
        else " "
        if unicodedata.category(letter) == "Pd"
        else ""
        for letter in text
    )
    return " ".join("".join(letters).split())


def make_vocabulary(transcripts: Sequence[str]) -> dict[str, int]:
    """The characters of normalised transcripts, sorted, behind ``[PAD]``, ``[UNK]`` and ``|``."""
    letters = sorted({letter for text in transcripts for letter in text} - {" "})
    return {token: number for number, token in enumerate([PAD, UNKNOWN, DELIMITER, *letters])}


def _is_punctuation(letter: str) -> bool:
    return unicodedata.category(letter).startswith(_PUNCTUATION)
