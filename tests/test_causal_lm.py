"""Language models: which tokens are predicted, how well, and what is written."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import ModelCardData
from torch import Tensor

from hfbench.cli import main
from hfbench.config import DataConfig, RunConfig, load_config, parse_strategy
from hfbench.data.packing import complete, pack
from hfbench.data.texts import load_texts
from hfbench.data.tokens import IGNORED, Padding
from hfbench.errors import UserError
from hfbench.merging import merge
from hfbench.models.structure import find_structure
from hfbench.params import count_strategies
from hfbench.report.model_card import model_card
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.strategies import apply_strategy
from hfbench.tasks import make_task
from hfbench.tasks.causal_lm import CausalLM
from hfbench.tasks.generation import Sampling, generation_scores
from hfbench.tasks.language_scores import (
    language_metrics,
    predicted_tokens,
    token_bytes,
    token_scores,
)

PADDING = Padding({"input_ids": 0, "labels": IGNORED})
CPU = torch.device("cpu")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty lines, no two alike."""
    path = tmp_path_factory.mktemp("book") / "book.txt"
    lines = [f"the cat {i} runs and the dog sleeps, two fish sing {i * i}.\n" for i in range(40)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty prompts of unequal length, each with a completion of one word or two."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"prompt": "the cat " + "sings " * (i % 4) + str(i), "completion": f"bird {i % 3}"}
        for i in range(30)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def settings(checkpoint: Path, data: Path, *more: str) -> RunConfig:
    small = ["data.max_length=16", "training.batch_size=4", "training.learning_rate=1e-3"]
    steps = ["training.max_steps=2", "training.epochs=1", "generation.max_new_tokens=3"]
    sources = [f"model.checkpoint={checkpoint}", f"data.source={data}"]
    return load_config(None, [*sources, *small, *steps, *more], task="causal_lm")


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


def test_a_tied_output_layer_is_no_head(tiny_gpt2: Path, book: Path, tmp_path: Path) -> None:
    config = settings(tiny_gpt2, book, "strategy=head", f"output_dir={tmp_path}")
    with pytest.raises(UserError, match=r"head \(lm_head\).* tied to the embeddings.*Choose full"):
        run(config)


# -- a run ------------------------------------------------------------------------------------


def perplexity_by_hand(model: Any, tokenizer: Any, text: str, max_length: int) -> float:
    """One block after the other, one token after the other."""
    end = tokenizer.eos_token_id
    stream = [end, *tokenizer(text)["input_ids"], end]
    nats = []
    for start in range(0, len(stream) - 1, max_length - 1):
        block = torch.tensor([stream[start : start + max_length]])
        with torch.no_grad():
            logits: Tensor = model(input_ids=block).logits[0]
        for position in range(block.shape[1] - 1):
            nats.append(-float(logits[position].log_softmax(-1)[block[0, position + 1]]))
    return math.exp(sum(nats) / len(nats))


@pytest.mark.parametrize("strategy", ["full", "last_1", "scratch"])
def test_a_run_tests_what_it_saved(
    strategy: str, tiny_gpt2: Path, book: Path, tmp_path: Path
) -> None:
    config = settings(tiny_gpt2, book, f"strategy={strategy}", f"output_dir={tmp_path}")
    result = run(config)
    assert result.steps == 2
    metrics = result.test_metrics
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    untrained = transformers.AutoModelForCausalLM.from_pretrained(tiny_gpt2).eval()
    text = load_texts(config.data).test["text"][0]
    assert text == "".join(book.read_text().splitlines(True)[36:])
    expected = perplexity_by_hand(saved, tokenizer, text, 16)
    assert metrics["perplexity"] == pytest.approx(expected, rel=1e-4)
    nats = math.log(expected) * (len(tokenizer(text)["input_ids"]) + 1)
    bits = nats / math.log(2) / len(text.encode())
    assert metrics["bits_per_byte"] == pytest.approx(bits, rel=1e-4)
    if strategy != "scratch":
        before = perplexity_by_hand(untrained, tokenizer, text, 16)
        assert metrics["perplexity_before_training"] == pytest.approx(before, rel=1e-4)
    assert metrics["perplexity"] < metrics["perplexity_before_training"]
    assert not result.greater_is_better
    assert result.best_validation == pytest.approx(result.history[-1].validation["perplexity"])


@pytest.fixture(scope="module")
def completed(
    tiny_gpt2: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult]:
    """Two steps of LoRA on prompts and completions."""
    folder = tmp_path_factory.mktemp("completed")
    more = ['data.separator=" = "', "generation.max_samples=2", "strategy=lora:r=2"]
    return folder, run(settings(tiny_gpt2, pairs, *more, f"output_dir={folder}"))


def test_completions_are_written_and_scored(completed: tuple[Path, RunResult]) -> None:
    _, result = completed
    assert result.parameters is not None
    assert result.parameters.trainable == 3 * 2 * (32 + 3 * 32)
    metrics = result.test_metrics
    assert metrics["generated_samples"] == 2  # of the three of the test split
    assert metrics.keys() >= {"perplexity", "rouge1", "rouge2", "rougeL", "bleu"}


def test_the_card_of_a_language_model(completed: tuple[Path, RunResult]) -> None:
    folder, result = completed
    local = [result.checkpoint, result.dataset]
    card = model_card(result, repo_id="me/model", contents="adapter", local=local)
    metadata = ModelCardData(**_yaml_of(card))
    assert metadata.pipeline_tag == "text-generation"
    assert metadata.metrics is not None
    assert "perplexity" in metadata.metrics
    assert "perplexity_before_training" not in metadata.metrics
    assert "| perplexity before training |" in card
    assert "on query and value) trained. This repository holds the adapter, without" in card
    assert "head" not in card.partition("## Data")[0]
    assert "labels" not in card.partition("## Limitations")[2]
    program = card.partition("```python\n")[2].partition("```")[0]
    assert 'tokenizer(TEXT + " =", add_special_tokens=False' in program
    runnable = program.replace('"me/model"', repr(str(folder / "model"))).replace(
        f'"{Path(result.checkpoint).name}"', repr(result.checkpoint)
    )
    exec(compile(runnable, "card", "exec"), {})


def _yaml_of(card: str) -> dict[str, Any]:
    import yaml

    values: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    values.pop("model-index")
    return values


# -- what is written --------------------------------------------------------------------------


def predict(capsys: Captured, *arguments: object) -> list[str]:
    assert main(["predict", *map(str, arguments), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    return [candidate["continuation"] for row in found for candidate in row["top"]]


def greedy_by_hand(folder: Path, text: str, count: int) -> str:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = tokenizer(text)["input_ids"]
    for _ in range(count):
        with torch.no_grad():
            best = int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())
        if best == tokenizer.eos_token_id:
            break
        tokens.append(best)
    return str(tokenizer.decode(tokens)).removeprefix(text)


def test_predict_continues_texts_greedily(tiny_gpt2: Path, capsys: Captured) -> None:
    texts = ["the cat", "two birds sing and the dog sleeps", "é"]
    found = predict(capsys, tiny_gpt2, *texts, "--max-new-tokens", 5)
    assert found == [greedy_by_hand(tiny_gpt2, text, 5) for text in texts]
    assert all(found)


def test_predict_puts_the_separator_behind_a_prompt(
    completed: tuple[Path, RunResult], tmp_path: Path, capsys: Captured
) -> None:
    folder, _ = completed
    merged = merge(folder, tmp_path)  # the loop by hand needs a whole model
    expected = greedy_by_hand(merged, "the cat =", 4)
    assert predict(capsys, folder, "the cat", "--max-new-tokens", 4) == [expected.strip(" ")]


def test_sampling_repeats_with_its_seed(tiny_gpt2: Path, capsys: Captured) -> None:
    asked = [tiny_gpt2, "the cat", "a dog", "--top", 2, "--top-p", 0.9, "--temperature", 1.5]
    one = predict(capsys, *asked, "--seed", 1)
    assert len(one) == len(set(one)) == 4
    assert predict(capsys, *asked, "--seed", 1) == one
    assert predict(capsys, *asked, "--seed", 2) != one
    sure = predict(capsys, tiny_gpt2, "the cat", "--temperature", 1e-4)
    assert sure == predict(capsys, tiny_gpt2, "the cat")


def error_of(capsys: Captured, *arguments: object) -> str:
    assert main(["predict", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_predict_names_mistakes(tiny_gpt2: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    assert "is an image, and this model reads texts" in error_of(
        capsys, tiny_gpt2, tmp_path / "photo.png"
    )
    assert "add --temperature or --top-p" in error_of(capsys, tiny_gpt2, "a", "--top", 3)
    assert "temperature=-1 must be above 0" in error_of(
        capsys, tiny_gpt2, "a", "--temperature", "-1"
    )
    assert "top_p=2 must be in (0, 1]" in error_of(capsys, tiny_gpt2, "a", "--top-p", "2")
    long = error_of(capsys, tiny_gpt2, "abc " * 70)
    assert "leaves nothing to write: the model reads at most 64" in long


def test_sampling_is_not_for_classifiers() -> None:
    import argparse

    from hfbench.predict_command import set_sampling

    config = RunConfig(task="text_classification")
    given = argparse.Namespace(max_new_tokens=None, temperature=0.5, top_p=None, seed=None)
    with pytest.raises(UserError, match=r"--temperature is for models that write text"):
        set_sampling(make_task(config), given)  # type: ignore[arg-type]


def test_writing_ends_where_the_positions_do(tiny_gpt2: Path, capsys: Captured) -> None:
    (text,) = predict(capsys, tiny_gpt2, "x" * 60, "--max-new-tokens", 50)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_gpt2)
    assert text == greedy_by_hand(tiny_gpt2, "x" * 60, 4)
    assert len(tokenizer("x" * 60)["input_ids"]) == 60
    assert Sampling(max_new_tokens=50).max_new_tokens == 50


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
        ([{"text": "a"}, {"text": None}], {}, "row 1: column 'text' holds None"),
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
