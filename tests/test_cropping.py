"""What of the inputs is left out is counted, said before training and kept in the result."""

import json
from pathlib import Path
from typing import Any

import pytest
from classification_tasks import config

from hfbench.data.cropping import whole_lengths
from hfbench.tasks import make_task


def summary_of_texts(
    checkpoint: Path, folder: Path, rows: list[dict[str, Any]], **data: Any
) -> dict[str, Any]:
    (folder / "texts.json").write_text(json.dumps(rows))
    task = make_task(config("text_classification", checkpoint, folder / "texts.json", **data))
    return task.prepare_data().summary


def notes_of(summary: dict[str, Any], word: str) -> list[str]:
    return [note for note in summary["notes"] if word in note]


def test_texts_that_are_cut_are_counted_in_texts_and_tokens(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """30 texts of 3 tokens and 10 of 12, with [CLS] and [SEP]: 10 × 7 of 210 are left out."""
    rows = [{"text": "good " * (1 if i < 30 else 10), "label": i % 2} for i in range(40)]
    summary = summary_of_texts(tiny_bert, tmp_path, rows, max_length=5)
    assert summary["cropped"] == {
        "max_length": 5,
        "texts": 10,
        "of_texts": 40,
        "tokens": 70,
        "of_tokens": 210,
    }
    assert notes_of(summary, "cut") == [
        "10 of 40 texts are cut at 5 tokens (data.max_length sets it, the network takes at most "
        "64): 33.3 % of all tokens are left out"
    ]


def test_of_pairs_both_texts_count(tiny_bert: Path, tmp_path: Path) -> None:
    """[CLS] 20 [SEP] 10 [SEP] are 33 tokens, of which 25 remain."""
    rows = [{"premise": "the " * 20, "hypothesis": "dog " * 10, "label": i % 2} for i in range(40)]
    summary = summary_of_texts(tiny_bert, tmp_path, rows, max_length=25)
    assert (summary["cropped"]["tokens"], summary["cropped"]["of_tokens"]) == (40 * 8, 40 * 33)


@pytest.mark.parametrize("specials", [True, False])
def test_tokenizers_with_and_without_rust_count_alike(tmp_path: Path, specials: bool) -> None:
    """Of the rests that a tokenizer in Rust keeps, and by reading once more."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "dog"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    if not specials:
        tokenizer.backend_tokenizer.post_processor = None
    texts = ["good " * count for count in (0, 1, 3, 4, 5, 6, 17)]
    cut = tokenizer(texts, truncation=True, max_length=5)
    added = 2 if specials else 0
    expected = [count + added for count in (0, 1, 3, 4, 5, 6, 17)]
    assert whole_lengths(tokenizer, [texts], cut) == expected
    assert whole_lengths(tokenizer, [texts], dict(cut)) == expected


def test_the_network_s_own_limit_is_named(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{"text": "good " * 98, "label": i % 2} for i in range(40)]
    summary = summary_of_texts(tiny_bert, tmp_path, rows)  # 64 positions, max_length is 128
    assert notes_of(summary, "cut") == [
        "40 of 40 texts are cut at 64 tokens (as many as the network takes): 36.0 % of all tokens "
        "are left out"
    ]


@pytest.mark.parametrize("words", [1, 3])  # 3 tokens, and exactly as many as are allowed
def test_where_nothing_is_cut_nothing_is_said(tiny_bert: Path, tmp_path: Path, words: int) -> None:
    rows = [{"text": "good " * words, "label": i % 2} for i in range(40)]
    summary = summary_of_texts(tiny_bert, tmp_path, rows, max_length=5)
    assert (summary["cropped"]["texts"], summary["cropped"]["tokens"]) == (0, 0)
    assert not notes_of(summary, "cut")
