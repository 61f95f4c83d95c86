"""Texts for language models that are not all of one kind."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from hfbench.config import DataConfig
from hfbench.data.columns import detect_texts
from hfbench.data.texts import load_texts
from hfbench.errors import UserError


def write_rows(path: Path, texts: list[str | None]) -> None:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))


def test_only_what_was_one_text_is_joined_to_one(tmp_path: Path) -> None:
    lines = [f"line {number}\n" for number in range(20)]
    (tmp_path / "train.txt").write_text("".join(lines))
    write_rows(tmp_path / "test.jsonl", ["first", "second"])
    splits = load_texts(DataConfig(source=str(tmp_path)))
    assert splits.test["text"][:] == ["first", "second"]
    assert splits.train["text"][:] == ["".join(lines[:18])]
    assert splits.validation["text"][:] == ["".join(lines[18:])]


def test_null_is_no_text_and_left_out_with_a_note(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [None, *"abcdefghijk", ""])
    splits = load_texts(DataConfig(source=str(tmp_path / "rows.jsonl")))
    parts = (splits.train, splits.validation, splits.test)
    assert sorted(text for part in parts for text in part["text"]) == list("abcdefghijk")
    assert splits.summary["notes"][0] == "split 'train': 2 rows without text were left out"


def test_a_limit_of_bad_rows_that_changes_nothing_is_an_error(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [*"abcdefghijk"])
    data = DataConfig(source=str(tmp_path / "rows.jsonl"), max_bad_rows=3)
    with pytest.raises(UserError, match=r"data.max_bad_rows=3 is for .*leave it out"):
        load_texts(data)


@pytest.mark.parametrize(
    ("part", "completion"), [("input", "output"), ("Context", "response"), ("input", "response")]
)
def test_half_a_prompt_is_not_chosen_for_the_user(part: str, completion: str) -> None:
    rows = Dataset.from_dict({"instruction": ["sum"], part: ["1, 2"], completion: ["3"]})
    with pytest.raises(UserError, match=rf"'{part}' may belong to the prompt in 'instruction'"):
        detect_texts(rows, DataConfig())
    named = DataConfig(text_column="instruction", completion_column=completion)
    assert detect_texts(rows, named) == ("instruction", completion)
    whole = rows.remove_columns(part)
    assert detect_texts(whole, DataConfig()) == ("instruction", completion)
