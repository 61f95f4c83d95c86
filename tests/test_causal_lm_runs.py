"""Language models: whole runs, their card, and what they write."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import ModelCardData
from language_runs import settings
from torch import Tensor

from hfbench.cli import main
from hfbench.config import RunConfig
from hfbench.data.texts import load_texts
from hfbench.errors import UserError
from hfbench.merging import merge
from hfbench.report.model_card import model_card
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.tasks import make_task
from hfbench.tasks.generation import Sampling

Captured = pytest.CaptureFixture[str]

# -- a run ------------------------------------------------------------------------------------


def test_a_tied_output_layer_is_no_head(tiny_gpt2: Path, book: Path, tmp_path: Path) -> None:
    config = settings(tiny_gpt2, book, "strategy=head", f"output_dir={tmp_path}")
    with pytest.raises(UserError, match=r"head \(lm_head\).* tied to the embeddings.*Choose full"):
        run(config)


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
    written = [path.name for path in (folder / "model").iterdir()]
    merged = merge(folder, tmp_path / "merged", written)  # the loop by hand needs a whole model
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
