"""Texts that a tokenizer cannot read: unknown tokens, and texts without a token."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from classification_tasks import config
from datasets import Dataset
from predict_calls import Captured
from tiny_runs import overrides
from tokenizers.normalizers import Replace

from hfbench.config import load_config
from hfbench.data.splits import describe
from hfbench.data.unreadable_texts import Reader
from hfbench.errors import UserError
from hfbench.run import run
from hfbench.tasks import make_task

pytestmark = pytest.mark.usefixtures("own_folders")


def rows_of(folder: Path, *texts: str) -> Path:
    """Twenty rows, the texts in turn."""
    path = folder / "rows.jsonl"
    rows = [{"text": texts[i % len(texts)], "label": "ab"[i // 10]} for i in range(20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def notes_of(checkpoint: Path, source: Path, **data: Any) -> list[str]:
    found = make_task(config("text_classification", checkpoint, source, **data)).prepare_data()
    return [line for line in describe(found.summary).splitlines() if "does not know" in line]


def test_unknown_tokens_are_counted_among_those_that_stand_for_text(tiny_bert: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert)
    reader = Reader.of(tokenizer)
    tokens = np.array(tokenizer("the cat 猫 sings x")["input_ids"] + tokenizer("")["input_ids"])
    assert reader.unknown_share(tokens) == 2 / 5
    assert reader.of_texts(tokens, np.array([0, 7, 9])).tolist() == [5, 0]


def test_a_tokenizer_that_spells_in_bytes_knows_everything(tiny_gpt2: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_gpt2)
    reader = Reader.of(tokenizer)
    assert tokenizer.unk_token_id == tokenizer.eos_token_id
    tokens = np.array([*tokenizer("猫")["input_ids"], tokenizer.eos_token_id])
    assert reader.unknown_share(tokens) == 0
    assert reader.describe({"train": 0.0}) == []


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("the cat sings a song",), []),
        (
            ("the cat sings a x",),
            ["note: tokens that the tokenizer does not know ([UNK]): 20 % of"],
        ),
        (
            ("the cat sings x x",),
            ["warning: tokens that the tokenizer does not know ([UNK]): 40 %"],
        ),
        (
            ("我 爱 电影", "看 书"),
            ["warning: tokens that the tokenizer does not know ([UNK]): 100 %"],
        ),
    ],
)
def test_the_share_of_unknown_tokens_is_said(
    texts: tuple[str, ...], expected: list[str], tiny_bert: Path, tmp_path: Path
) -> None:
    lines = notes_of(tiny_bert, rows_of(tmp_path, *texts))
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True))


@pytest.fixture
def blind_bert(tiny_bert: Path, tmp_path: Path) -> Path:
    """A tokenizer that drops whatever is not ASCII, as some do with what they do not know."""
    folder = tmp_path / "blind"
    shutil.copytree(tiny_bert, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.backend_tokenizer.normalizer = Replace("猫", "")
    Path(folder, "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str())
    values = json.loads(Path(folder, "tokenizer_config.json").read_text())
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    Path(folder, "tokenizer_config.json").write_text(json.dumps(values))
    return folder


def test_a_tokenizer_that_makes_nothing_of_any_text_is_refused(
    blind_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="gives no token for any text of train, such as '猫'"):
        notes_of(blind_bert, rows_of(tmp_path, "猫"))


def test_a_text_without_a_token_is_a_bad_row(blind_bert: Path, tmp_path: Path) -> None:
    source = rows_of(tmp_path, *["the cat"] * 9, "猫")  # rows 9 and 19
    with pytest.raises(UserError, match=r"train row 9 \(.*, line 10\): no token in '猫'"):
        notes_of(blind_bert, source)
    task = make_task(config("text_classification", blind_bert, source, max_bad_rows=2))
    found = task.prepare_data()
    assert {row.row for row in found.bad_rows} == {9, 19}
    assert len(found.train) + len(found.validation) + len(found.test) == 18
    rows = Dataset.from_dict({"text": ["the cat", "猫"]})
    with pytest.raises(UserError, match="input row 1 is '猫', which has no token"):
        task.features(rows, "input", keep=False)  # type: ignore[attr-defined]


def test_the_shares_are_in_the_result(tiny_bert: Path, tmp_path: Path, capsys: Captured) -> None:
    source = rows_of(tmp_path, "the cat", "a dog x")
    options = overrides(tiny_bert, source, tmp_path / "run", "training.max_steps=1")
    result = run(load_config(None, options, task="text_classification"))
    assert result.data["unknown_tokens"].keys() == {"train", "validation", "test"}
    assert 0 < result.data["unknown_tokens"]["train"] <= 0.2
    assert "tokens that the tokenizer does not know" in capsys.readouterr().out
