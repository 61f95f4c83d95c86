"""Language models: which tokens are predicted, how well, what trains, and the data."""

import json
import math
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from language_runs import settings
from tokenizers.normalizers import Replace
from tokenizers.processors import TemplateProcessing

from hfbench.config import DataConfig, RunConfig, parse_strategy
from hfbench.data.framing import Frame, frame_of
from hfbench.data.packing import complete, pack, tokens_to_predict
from hfbench.data.texts import load_texts
from hfbench.data.tokens import IGNORED, Padding
from hfbench.errors import UserError
from hfbench.models.structure import find_structure
from hfbench.params import count_strategies
from hfbench.strategies import apply_strategy
from hfbench.tasks import make_task
from hfbench.tasks.causal_lm import CausalLM
from hfbench.tasks.generation import generation_scores
from hfbench.tasks.language_scores import (
    language_metrics,
    predicted_tokens,
    token_bytes,
    token_scores,
)

PADDING = Padding({"input_ids": 0, "labels": IGNORED})
CPU = torch.device("cpu")


def prepared_task(config: RunConfig) -> tuple[CausalLM, Any]:
    task = make_task(config)
    assert isinstance(task, CausalLM)
    return task, task.prepare_data()


# -- which tokens are predicted ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_length", "blocks"),
    [
        (3, [[0, 5, 6], [6, 7, 0], [0, 8, 0]]),
        (4, [[0, 5, 6, 7], [7, 0, 8, 0]]),
        (5, [[0, 5, 6, 7, 0], [0, 8, 0]]),
        (6, [[0, 5, 6, 7, 0, 8], [8, 0]]),
        (9, [[0, 5, 6, 7, 0, 8, 0]]),
    ],
)
def test_blocks_predict_every_token_once(max_length: int, blocks: list[list[int]]) -> None:
    samples = pack([[5, 6, 7], [8]], end=0, max_length=max_length, padding=PADDING)
    assert [samples[i]["input_ids"] for i in range(len(samples))] == blocks
    assert [samples[i]["labels"] for i in range(len(samples))] == blocks
    assert [token for block in blocks for token in block[1:]] == [5, 6, 7, 0, 8, 0]


@pytest.mark.parametrize(
    ("max_length", "blocks"),
    [
        (3, [[1, 5, 6], [1, 7, 0], [1, 8, 0]]),
        (4, [[1, 5, 6, 7], [1, 0, 1, 8], [1, 0]]),
        (5, [[1, 5, 6, 7, 0], [1, 8, 0]]),
        (9, [[1, 5, 6, 7, 0, 1, 8, 0]]),
    ],
)
def test_documents_and_blocks_begin_as_the_tokenizer_begins_a_text(
    max_length: int, blocks: list[list[int]]
) -> None:
    samples = pack([[5, 6, 7], [8]], end=0, before=[1], max_length=max_length, padding=PADDING)
    assert [samples[i]["input_ids"] for i in range(len(samples))] == blocks
    labels = [samples[i]["labels"] for i in range(len(samples))]
    assert labels == [[IGNORED if t == 1 else t for t in block] for block in blocks]
    assert [t for block in labels for t in block if t != IGNORED] == [5, 6, 7, 0, 8, 0]
    assert tokens_to_predict(samples) == 6


def test_a_beginning_of_several_tokens_counts_for_the_length() -> None:
    samples = pack([[5, 6, 7], [8]], end=0, before=[1, 2], max_length=4, padding=PADDING)
    blocks = [samples[i]["input_ids"] for i in range(len(samples))]
    assert blocks == [[1, 2, 5, 6], [1, 2, 7, 0], [1, 2, 8, 0]]


def test_an_end_that_is_also_a_beginning_stands_once_between_documents() -> None:
    """As OPT and BioGPT have it; their blocks begin with it, too."""
    samples = pack([[5, 6, 7], [8]], end=0, before=[0], max_length=4, padding=PADDING)
    assert [samples[i]["input_ids"] for i in range(len(samples))] == [[0, 5, 6, 7], [0, 0, 8, 0]]
    assert samples[1]["labels"] == [IGNORED, 0, 8, 0]


def test_a_limit_keeps_whole_blocks() -> None:
    every = pack([[*range(1, 40)]], end=0, max_length=4, padding=PADDING)
    few = pack([[*range(1, 40)]], end=0, max_length=4, padding=PADDING, limit=5)
    blocks = [every[i]["input_ids"] for i in range(len(every))]
    kept = [few[i]["input_ids"] for i in range(len(few))]
    assert len(kept) == 5
    assert [block for block in blocks if block in kept] == kept


def test_a_short_last_block_is_padded_where_nothing_is_predicted() -> None:
    samples = pack([[5, 6, 7]], end=0, max_length=4, padding=PADDING)
    batch = samples.read_batch([0, 1], CPU)
    assert batch["input_ids"].tolist() == [[0, 5, 6, 7], [7, 0, 0, 0]]
    assert batch["labels"].tolist() == [[0, 5, 6, 7], [7, 0, IGNORED, IGNORED]]
    assert predicted_tokens(batch) == 4


def test_only_completions_have_labels() -> None:
    samples = complete([[5, 6], [7]], [[8, 0], [9, 4, 0]], PADDING)
    batch = samples.read_batch([0, 1], CPU)
    assert batch["input_ids"].tolist() == [[5, 6, 8, 0], [7, 9, 4, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 8, 0], [IGNORED, 9, 4, 0]]
    assert predicted_tokens(batch) == 5


def test_a_prompt_its_separator_and_its_completion_become_one_text(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    data = tmp_path / "pairs.json"
    row = {"prompt": "the cat", "completion": "runs"}
    data.write_text(json.dumps([row | {"completion": f"runs {i}"} for i in range(10)]))
    task, found = prepared_task(settings(tiny_gpt2, data, 'data.separator=" = "'))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_gpt2)
    prompt = tokenizer("the cat =")["input_ids"]
    for sample in (found.train[0], found.test[0]):
        text = tokenizer.decode(sample["input_ids"])
        assert text.startswith("the cat = runs ")
        assert text.endswith("<|endoftext|>")
        assert sample["input_ids"][: len(prompt)] == prompt
        assert sample["labels"] == [IGNORED] * len(prompt) + sample["input_ids"][len(prompt) :]
    assert found.summary["columns"] == {"text": "prompt", "completion": "completion"}
    assert task.collate([found.train[0]])["labels"].shape == (1, len(found.train[0]["labels"]))


def test_what_is_too_long_is_cut_before_the_separator(tiny_gpt2: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.json"
    data.write_text(json.dumps([{"prompt": "abcdefgh" * 9, "completion": "xyz"}] * 10))
    config = settings(tiny_gpt2, data, "data.max_length=10", 'data.separator="="')
    _, found = prepared_task(config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_gpt2)
    tokens = tokenizer.convert_ids_to_tokens(found.train[0]["input_ids"])
    assert len(tokens) == 10
    assert tokens[-5:] == ["=", "x", "y", "z", "<|endoftext|>"]
    assert found.summary["notes"][2:] == [
        "train: 8 of 8 prompts were cut to fit",
        "validation: 1 of 1 prompts were cut to fit",
        "test: 1 of 1 prompts were cut to fit",
    ]


@pytest.fixture
def beginning_gpt2(tiny_gpt2: Path, tmp_path: Path) -> Path:
    """The tiny GPT-2 with a tokenizer whose call puts <bos> in front, as Gemma's does."""
    folder = tmp_path / "beginning"
    shutil.copytree(tiny_gpt2, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_gpt2)
    bos = tokenizer.convert_tokens_to_ids("Z")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="Z $A", pair="Z $A $B", special_tokens=[("Z", bos)]
    )
    file = Path(folder, "tokenizer.json")
    file.write_text(tokenizer.backend_tokenizer.to_str())
    values = json.loads(Path(folder, "tokenizer_config.json").read_text())
    values |= {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "Z"}
    Path(folder, "tokenizer_config.json").write_text(json.dumps(values))
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    assert loaded("a")["input_ids"][0] == bos == loaded.bos_token_id
    return folder


def test_texts_prompts_and_what_is_to_be_continued_begin_with_bos(
    beginning_gpt2: Path, book: Path, pairs: Path
) -> None:
    task, found = prepared_task(settings(beginning_gpt2, book))
    (bos,) = task.before
    for split in (found.train, found.validation, found.test):
        assert all(split[i]["input_ids"][0] == bos for i in range(len(split)))
        assert tokens_to_predict(split) == sum(
            len(split[i]["labels"]) - 1 for i in range(len(split))
        )
    assert (
        "texts and blocks of texts begin with Z, as the tokenizer puts it" in found.summary["notes"]
    )
    task, found = prepared_task(settings(beginning_gpt2, pairs, "data.max_length=32"))
    for i in range(len(found.train)):
        sample = found.train[i]
        assert (sample["input_ids"][0], sample["labels"][0]) == (bos, IGNORED)
        assert sample["input_ids"].count(bos) == 1
    assert all(prompt[0] == bos for prompt, _ in task.to_write)
    prompts = task.features(Dataset.from_dict({"text": ["the cat", "a"]}), "input", keep=False)
    assert [prompts[i]["input_ids"][0] for i in range(2)] == [bos, bos]


def test_a_tokenizer_that_puts_nothing_in_front_stays_as_it_is(tiny_gpt2: Path, book: Path) -> None:
    task, found = prepared_task(settings(tiny_gpt2, book))
    assert task.before == ()
    assert not any("begin with" in note for note in found.summary["notes"])
    prompts = task.features(Dataset.from_dict({"text": ["the cat"]}), "input", keep=False)
    assert prompts[0]["input_ids"] == task.processor("the cat")["input_ids"]


def test_what_stands_around_a_text_is_the_tokenizers(tiny_bert: Path, tiny_gpt2: Path) -> None:
    bert = transformers.AutoTokenizer.from_pretrained(tiny_bert)
    assert frame_of(bert) == Frame((bert.cls_token_id,), (bert.sep_token_id,))
    assert frame_of(transformers.AutoTokenizer.from_pretrained(tiny_gpt2)) == Frame()


def test_a_split_without_a_token_to_predict_is_refused(
    tiny_gpt2: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(settings(tiny_gpt2, pairs))
    monkeypatch.setattr(task, "_completions", lambda *_: complete([[5]], [[]], PADDING))
    with pytest.raises(UserError, match=r"train has no token to predict: .*data.max_length=16"):
        task.prepare_data()


@pytest.mark.parametrize("prompts", [["\u200b"] * 3, ["\u200b", "the cat", "\u200b"]])
def test_rows_of_which_the_tokenizer_makes_nothing(
    prompts: list[str], tiny_gpt2: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_gpt2, checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_gpt2)
    tokenizer.backend_tokenizer.normalizer = Replace("\u200b", "")
    Path(checkpoint, "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str())
    values = json.loads(Path(checkpoint, "tokenizer_config.json").read_text())
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    Path(checkpoint, "tokenizer_config.json").write_text(json.dumps(values))
    for split in ("train", "validation", "test"):
        rows = [{"prompt": prompt, "completion": "runs"} for prompt in prompts]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = make_task(settings(checkpoint, tmp_path))
    if set(prompts) == {"\u200b"}:
        with pytest.raises(UserError, match="gives no token for any text of train"):
            task.prepare_data()
        return
    found = task.prepare_data()
    assert [len(split) for split in (found.train, found.validation, found.test)] == [1, 1, 1]
    note = "test: 2 rows of which the tokenizer makes no token were left out"
    assert note in found.summary["notes"]
    rows = Dataset.from_dict({"text": prompts})
    with pytest.raises(UserError, match="makes no token to go on from"):
        cast(
            CausalLM, prepared_task(settings(checkpoint, tmp_path, 'data.separator=""'))[0]
        ).features(rows, "input", keep=False)


# -- how well ---------------------------------------------------------------------------------


def test_perplexity_is_that_of_the_probabilities() -> None:
    """Of two texts the model gives the next tokens 1/2, 1/4 and 1/8: exp(mean of logs) = 4."""
    probabilities = torch.full((2, 3, 4), 0.25)
    probabilities[0, 0] = torch.tensor([0.5, 0.25, 0.125, 0.125])
    probabilities[1, 0] = torch.tensor([0.125, 0.125, 0.5, 0.25])
    labels = torch.tensor([[3, 0, 2], [3, 1, IGNORED]])
    scores = token_scores(probabilities.log(), labels)
    log = math.log(2)
    torch.testing.assert_close(
        scores, torch.tensor([[log + 2 * log, 2, 1], [3 * log, 1, 0]]), check_dtype=False
    )
    found = language_metrics(scores.numpy(), num_bytes=12)
    assert found == pytest.approx(
        {"perplexity": 4.0, "token_accuracy": 1 / 3, "bits_per_byte": 6 / 12}
    )
    means = [language_metrics(row[np.newaxis], None)["perplexity"] for row in scores.numpy()]
    assert sum(means) / 2 != pytest.approx(4.0)  # sums, then one division
    assert "bits_per_byte" not in language_metrics(scores.numpy(), None)


def test_a_token_has_the_bytes_that_it_stands_for(tiny_gpt2: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_gpt2)
    text = "the cat sings:\n\té → 🐟"
    sizes = token_bytes(tokenizer)
    assert sizes is not None
    tokens = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert sizes[tokens].sum() == len(text.encode()) == 27
    assert sizes[tokenizer.eos_token_id] == 0


def test_scores_of_completions() -> None:
    """ROUGE: 2 of 2 words, of 3, so F = 2·1·(2/3)/(5/3). BLEU: exp(1 - 8/4) for its brevity."""
    found = generation_scores(["the cat"], ["the cat sat"])
    assert found["rouge1"] == found["rougeL"] == pytest.approx(0.8)
    assert found["rouge2"] == pytest.approx(2 / 3)
    assert generation_scores(["a b c d"], ["a b c d e f g h"])["bleu"] == pytest.approx(
        100 * math.exp(-1)
    )
    assert generation_scores(["", "a b c d"], ["a", "a b c d"])["rouge1"] == pytest.approx(0.5)


# -- which parameters train -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "trainable"),
    [
        ("full", 124_439_808),  # the output layer is the embeddings' matrix, counted once
        ("last_2", 2 * 7_087_872),
        ("lora:r=8", 12 * 8 * (768 + 3 * 768)),  # c_attn: 294,912
        ("dora:r=8", 12 * 8 * (768 + 3 * 768) + 12 * 3 * 768),
        ("bitfit", 12 * (3 * 768 + 768 + 4 * 768 + 768 + 2 * 768) + 768),
        ("norm", (12 * 2 + 1) * 2 * 768),
        ("scratch", 124_439_808),
    ],
)
def test_counts_of_gpt2(strategy: str, trainable: int, own_cache: None) -> None:
    found = count_strategies("gpt2", task="causal_lm", strategies=[parse_strategy(strategy)])
    assert found.strategies[0].report.trainable == trainable


def test_an_output_layer_of_its_own_is_a_head() -> None:
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, tie_word_embeddings=False
    )
    model = transformers.GPT2LMHeadModel(config)
    apply_strategy(model, find_structure(model), parse_strategy("head"))
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["lm_head.weight"]


# -- data -------------------------------------------------------------------------------------


def test_a_single_text_is_split_where_it_ends(book: Path) -> None:
    splits = load_texts(DataConfig(source=str(book)))
    texts = [splits.train["text"][0], splits.validation["text"][0], splits.test["text"][0]]
    assert "".join(texts) == book.read_text()
    assert [text.count("\n") for text in texts] == [32, 4, 4]


def test_a_folder_of_texts_and_rows_without_text(tmp_path: Path) -> None:
    (tmp_path / "LICENSE.txt").write_text("no split")
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n\nand more\n")
    splits = load_texts(DataConfig(source=str(tmp_path)))
    assert splits.validation["text"][:] == ["valid\n\nand more\n"]
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"text": text} for text in ["a", " ", "b", "c", *"defghijk"]]))
    splits = load_texts(DataConfig(source=str(rows)))
    assert sorted([*splits.train["text"], *splits.validation["text"], *splits.test["text"]]) == (
        list("abcdefghijk")
    )
    assert splits.summary["notes"][0] == "split 'train': 1 rows without text were left out"


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": "a", "b": "c"}], {"completion_column": "x"}, "completion_column='x' is not"),
        ([{"text": "a"}], {"completion_column": "text", "text_column": "text"}, "name another one"),
        ([{"text": " "}], {}, "has no row with a text"),
        ([{"a": "b", "c": "d"}], {}, "set data.text_column"),
        ([{"text": "one line"}], {}, "1 lines are too few"),
    ],
)
def test_mistakes_in_the_data(
    rows: list[dict[str, Any]], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(UserError, match=message):
        load_texts(DataConfig(source=str(path), **options))  # type: ignore[arg-type]


def test_a_network_that_reads_backwards_too_is_refused(
    tiny_gpt2: Path, book: Path, tmp_path: Path
) -> None:
    config = transformers.BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    transformers.AutoTokenizer.from_pretrained(tiny_gpt2).save_pretrained(tmp_path / "bert")
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path / "bert")
    task, data = prepared_task(settings(tmp_path / "bert", book))
    with pytest.raises(UserError, match=r"BertLMHeadModel\) reads texts in both directions"):
        task.build_model(data)


def test_a_tokenizer_without_an_end_is_refused(tiny_bert: Path, book: Path) -> None:
    with pytest.raises(UserError, match=r"no end-of-text token"):
        prepared_task(settings(tiny_bert, book))


def test_a_separator_needs_room(tiny_gpt2: Path, pairs: Path) -> None:
    with pytest.raises(UserError, match=r"nothing is left for the texts"):
        prepared_task(settings(tiny_gpt2, pairs, "data.max_length=5", 'data.separator="abcd:"'))
