"""Transcripts: spelling, vocabulary, decoding and error rates, by hand."""

import itertools

import numpy as np
import pytest

from hfbench.ctc import beam_search, best_path
from hfbench.data.transcripts import UNREADABLE, Alphabet, make_vocabulary, normalise
from hfbench.error_rates import error_rates

# ---- spelling and vocabulary


@pytest.mark.parametrize(
    ("case", "kept", "expected"),
    [
        ("lower", "'", "don't stop well known ok 3 é"),
        ("upper", "'", "DON'T STOP WELL KNOWN OK 3 É"),
        ("any", "", "Dont stop well known OK 3 é"),
        ("lower", "'-", "don't stop well-known ok 3 é"),
    ],
)
def test_transcripts_have_one_spelling(case: str, kept: str, expected: str) -> None:
    text = "  Don\u2019t stop, \u201cwell-known\u201d O.K.!\n3 e\u0301 $"
    assert normalise(text, case=case, kept=kept) == expected


@pytest.mark.parametrize("invisible", ["\ufeff", "\u200b", "\u00ad", "\u2060", "\u200f"])
def test_invisible_characters_are_no_part_of_a_transcript(invisible: str) -> None:
    text = f"{invisible}co{invisible}de {invisible} a"
    assert normalise(text, case="lower", kept="'") == "code a"
    assert "invisible characters" in alphabet("abc").rules


@pytest.mark.parametrize("joiner", ["\u200c", "\u200d"])
def test_joiners_that_make_other_words_stay(joiner: str) -> None:
    assert normalise(f"می{joiner}خواهم", case="any", kept="") == f"می{joiner}خواهم"


def test_a_vocabulary_holds_the_characters_of_the_transcripts() -> None:
    assert make_vocabulary(["be a", "ab'"]) == {
        "[PAD]": 0, "[UNK]": 1, "|": 2, "'": 3, "a": 4, "b": 5, "e": 6
    }  # fmt: skip


def alphabet(letters: str) -> Alphabet:
    vocabulary = make_vocabulary([letters])
    return Alphabet(vocabulary, blank=0, specials=frozenset({0, 1}), unknown=1)


def test_text_becomes_tokens_and_tokens_text() -> None:
    own = alphabet("EHLO'")
    assert own.normalise("Hello, hello-o!") == "HELLO HELLO O"
    tokens = own.encode("HELLO H")  # ' is 3, E 4, H 5, L 6, O 7
    assert tokens == [5, 4, 6, 6, 7, 2, 5]
    assert own.decode(tokens) == "HELLO H"
    assert own.decode([2, 5, 2, 2, 7, 0, 2]) == "H O"
    assert "upper case" in own.rules


@pytest.mark.parametrize(("letters", "case"), [("ab", "lower"), ("AB", "upper"), ("Ab", "any")])
def test_the_case_is_that_of_the_vocabulary(letters: str, case: str) -> None:
    assert alphabet(letters).case == case


def test_a_character_that_the_vocabulary_lacks_is_always_an_error() -> None:
    own = alphabet("cfa")
    tokens = own.encode("café")
    assert tokens == [4, 3, 5, 1]
    assert own.decode(tokens, unknown=UNREADABLE) == f"caf{UNREADABLE}"
    assert own.decode(tokens) == "caf"
    assert own.unknown_characters(["café é", "fa"]) == {"é": 2}


# ---- error rates


def test_error_rates_are_edits_of_all_over_lengths_of_all() -> None:
    references = ["the cat sat down", "no"]
    hypotheses = ["the hat down", "no no"]  # cat > hat, sat is missing; one no too many
    found = error_rates(hypotheses, references)
    assert found["wer"] == 3 / 5  # and not the mean of 2/4 and 1/1
    # c > h; "sat " is missing: 5 of 16 characters. " no" too many: 3 of 2.
    assert found["cer"] == 8 / 18


def test_an_empty_answer_misses_every_word() -> None:
    assert error_rates(["", "a"], ["one two", "a"]) == {"wer": 2 / 3, "cer": 7 / 8}


# ---- decoding

BLANK = 0
# Every frame says blank, and so does the best path; "a" has more paths: .4*.4 + 2*.4*.6 = .64.
TWO_FRAMES = np.log([[0.6, 0.4], [0.6, 0.4]])


def test_the_best_path_merges_repeats_and_drops_blanks() -> None:
    path = [0, 1, 1, 0, 1, 2, 2, 0]
    assert best_path(np.log(np.eye(3)[path] + 0.1), blank=BLANK) == (1, 1, 2)
    assert best_path(TWO_FRAMES, blank=BLANK) == ()
    assert best_path(np.zeros((0, 3)), blank=BLANK) == ()


def test_a_beam_finds_the_labelling_with_more_paths() -> None:
    best, second = beam_search(TWO_FRAMES, blank=BLANK, beams=2)
    assert (best.tokens, second.tokens) == ((1,), ())
    assert np.exp([best.log_probability, second.log_probability]) == pytest.approx([0.64, 0.36])


def test_with_enough_beams_probabilities_are_sums_over_all_paths() -> None:
    """Against every one of the 3⁴ paths of random frames."""
    frames = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    expected: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=4):
        labelling = tuple(t for t, _ in itertools.groupby(path) if t != BLANK)
        probability = float(np.prod([frame[t] for frame, t in zip(frames, path, strict=True)]))
        expected[labelling] = expected.get(labelling, 0.0) + probability
    found = beam_search(np.log(frames), blank=BLANK, beams=100)
    probabilities = {tokens: np.exp(value) for tokens, value in found}
    assert probabilities == pytest.approx(expected)
    assert [item.tokens for item in found] == sorted(expected, key=lambda key: -expected[key])
    narrow = beam_search(np.log(frames), blank=BLANK, beams=2)
    assert all(np.exp(value) <= expected[tokens] + 1e-12 for tokens, value in narrow)
