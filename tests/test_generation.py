"""What a language model writes, whatever stands beside a prompt, and its scores in any script."""

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from rouge_score.tokenize import tokenize
from text_zoo import build

from hfbench.config import RunConfig, load_config
from hfbench.errors import UserError
from hfbench.predict_command import set_sampling
from hfbench.tasks import make_task
from hfbench.tasks.base import PredictingTask
from hfbench.tasks.causal_lm import CausalLM
from hfbench.tasks.generation import (
    Sampling,
    continues_together,
    generate,
    generation_scores,
    words,
)
from hfbench.tasks.language_scores import token_bytes

# ---- scores


@pytest.mark.parametrize(
    "text",
    [
        "The cat's 2nd film -- dull, isn't it?",
        "snake_case_words; e-mail: me@example.org\n\tNEW\x00line",
        " ",
    ],
)
def test_words_of_english_are_those_of_rouge(text: str) -> None:
    assert words(text) == tokenize(text, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Кошка спит.", ["кошка", "спит"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are no letters, and inside words
        ("고양이가 잔다", ["고양이가", "잔다"]),
        ("猫は寝る・コーヒー2杯", [*"猫は寝るコーヒー", "2", "杯"]),
        ("le café, GPT模型", ["le", "café", "gpt", "模", "型"]),
    ],
)
def test_words_of_other_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    "text", ["кошка спит на диване", "今天天气很好。", "猫はソファで寝る", "القطة تنام على الأريكة"]
)
def test_the_reference_itself_is_perfect_in_any_script(text: str) -> None:
    assert generation_scores([text], [text]) == pytest.approx(
        {"rouge1": 1, "rouge2": 1, "rougeL": 1, "bleu": 100}
    )


def test_scores_of_chinese_count_characters() -> None:
    """5 of 5 characters, of 6; 3 of 4 pairs, 2 of 3 triples, 1 of 2 fours; one too few."""
    found = generation_scores(["今天天气好"], ["今天天气很好"])
    assert found["rouge1"] == pytest.approx(2 * 5 / (5 + 6))
    precisions = 1 * 3 / 4 * 2 / 3 * 1 / 2
    assert found["bleu"] == pytest.approx(100 * math.exp(1 - 6 / 5) * precisions**0.25)


def test_bytes_are_unknown_where_a_tokenizer_is_written_in_python(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}))
    assert token_bytes(transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))) is None


# ---- what is written


def continued(model: Any, *prompts: list[int], tokens: int = 20, end: int = 299) -> list[list[int]]:
    """Greedily, in one batch; no token ends a text."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    ids = [[0] * pad + prompt for pad, prompt in zip(padding, prompts, strict=True)]
    mask = [[0] * pad + [1] * (longest - pad) for pad in padding]
    positions = getattr(model.config, "n_positions", None)
    together = len(prompts) > 1 and continues_together(model, model.config.vocab_size, end=end)
    with torch.no_grad():
        return generate(
            model,
            torch.tensor(ids),
            torch.tensor(mask),
            Sampling(max_new_tokens=tokens),
            count=1,
            end=end,
            positions=positions,
            together=together,
        )


def test_a_continuation_does_not_depend_on_its_neighbours(tiny_gpt2: Path) -> None:
    """The model has 64 positions."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_gpt2).eval()
    prompts = [[5] * 60, [7, 8], [9] * 63, [10, 11, 12], [13] * 44]
    together = continued(model, *prompts)
    assert [len(tokens) for tokens in together] == [4, 20, 1, 20, 20]
    assert together == [tokens for prompt in prompts for tokens in continued(model, prompt)]


@pytest.mark.parametrize(
    ("architecture", "together"),
    [("bloom", True), ("llama", True), ("opt", True), ("bart", False), ("rwkv", False)],
)
def test_prompts_share_a_batch_only_where_each_is_continued_as_alone(
    architecture: str, together: bool
) -> None:
    model = build(architecture, transformers.AutoModelForCausalLM)
    prompts = [[5, 6, 7, 8, 9, 10, 11, 12], [7, 8], [10, 11, 12], [9, 3]]
    assert continues_together(model, 50, end=2) == together
    found = continued(model, *prompts, tokens=5, end=2)
    assert found == [t for prompt in prompts for t in continued(model, prompt, tokens=5, end=2)]


@pytest.mark.parametrize(
    "settings",
    [{"repetition_penalty": 5.0}, {"no_repeat_ngram_size": 1}, {"suppress_tokens": [*range(250)]}],
)
def test_greedy_is_greedy_whatever_the_checkpoint_prefers(
    settings: dict[str, Any], tiny_gpt2: Path, tmp_path: Path
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_gpt2).eval()
    expected = continued(model, [7, 8])
    model.generation_config.update(**settings)
    model.save_pretrained(tmp_path)
    changed: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    usual = changed.generate(
        input_ids=torch.tensor([[7, 8]]), max_new_tokens=20, eos_token_id=299, pad_token_id=0
    )
    assert usual[0, 2:].tolist() != expected[0]  # the checkpoint does prefer something
    assert continued(changed, [7, 8]) == expected
    ((name, value),) = settings.items()
    assert getattr(changed.generation_config, name) == value  # as before


def test_sampling_is_not_for_transcripts() -> None:
    given = Namespace(max_new_tokens=None, temperature=None, top_p=0.5, seed=None)
    task = make_task(RunConfig(task="speech_recognition"))
    assert isinstance(task, PredictingTask)
    with pytest.raises(UserError, match=r"--top-p .*; speech_recognition answers with a trans"):
        set_sampling(task, given)


# ---- what is to be written


def config_of(checkpoint: Path, folder: Path, *more: str) -> RunConfig:
    """Prompts and completions of one token a letter, 90 and 21 to 40 of them."""
    rows = [{"prompt": "q" * 90, "completion": f"z{'j' * (20 + i % 20)}"} for i in range(40)]
    (folder / "pairs.json").write_text(json.dumps(rows))
    sources = [f"model.checkpoint={checkpoint}", f"data.source={folder / 'pairs.json'}"]
    return load_config(None, [*sources, 'data.separator="="', *more], task="causal_lm")


@pytest.mark.parametrize(("max_length", "expected"), [(64, 64 - 8), (16, 16)])
def test_prompts_to_continue_leave_room_and_references_are_whole(
    max_length: int, expected: int, tiny_gpt2: Path, tmp_path: Path
) -> None:
    """Of 64 positions, or of the 16 tokens that training reads."""
    more = [f"data.max_length={max_length}", "generation.max_new_tokens=8"]
    task = make_task(config_of(tiny_gpt2, tmp_path, *more))
    assert isinstance(task, CausalLM)
    task.prepare_data()
    assert {len(prompt) for prompt, _ in task.to_write} == {expected}
    (separator,) = task.processor("=")["input_ids"]
    assert {prompt[-1] for prompt, _ in task.to_write} == {separator}
    references = [completion for _, completion in task.to_write]
    assert len(references) == 4
    rows = json.loads((tmp_path / "pairs.json").read_text())
    assert set(references) <= {row["completion"] for row in rows}  # of the 16 tokens too


def test_new_tokens_must_leave_room_for_a_prompt(tiny_gpt2: Path, tmp_path: Path) -> None:
    config = config_of(tiny_gpt2, tmp_path, "generation.max_new_tokens=63")
    with pytest.raises(UserError, match=r"max_new_tokens=63 .*nothing of the 64 tokens"):
        make_task(config).prepare_data()
