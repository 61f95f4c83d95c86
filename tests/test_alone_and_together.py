"""What a model answers to a text does not depend on the other texts of its batch."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from classification_tasks import config
from predict_calls import Captured, predict
from text_zoo import ARCHITECTURES, LEFT_OUT, TOKENS, build
from tiny_runs import overrides
from torch import nn

from hfbench.config import load_config
from hfbench.data.tokens import Side, TokenSamples
from hfbench.errors import UserError
from hfbench.first_batch import check_first_batch
from hfbench.run import run
from hfbench.tasks import make_task
from hfbench.tasks.text_classification import TextClassification
from hfbench.training.batching import like_batches

QUICK = (
    "bert",
    "bart",
    "big_bird",
    "canine",
    "convbert",
    "deberta-v2",
    "fnet",
    "funnel",
    "gpt2",
    "llama",
    "mixtral",
    "modernbert",
    "opt",
    "perceiver",
    "roberta",
    "squeezebert",
    "t5",
    "xlnet",
)
NOT_PADDED = {"canine", "convbert", "fnet", "funnel", "nystromformer", "reformer", "yoso"}
LENGTHS = (4, 12, 28, 7, 12, 4, 9)  # tokens between the first and the last


def samples_of(task: TextClassification) -> TokenSamples:
    """Random texts of ``LENGTHS`` with the label 0."""
    generator = np.random.default_rng(0)
    texts = [[1, *generator.integers(3, TOKENS, n).tolist(), 2] for n in LENGTHS]
    rows = [{"input_ids": t, "attention_mask": [1] * len(t), "labels": 0} for t in texts]
    return TokenSamples.of_samples(rows, task.padding)


def task_for(tiny_bert: Path) -> TextClassification:
    task = make_task(config("text_classification", tiny_bert, "nowhere"))
    assert isinstance(task, TextClassification)
    task.processor = transformers.BertTokenizer.from_pretrained(tiny_bert)
    return task


def answers(task: TextClassification, model: nn.Module, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        return task.predictions(model(**batch), batch)


def check_alone_and_together(architecture: str, tiny_bert: Path) -> TextClassification:
    """Every text alone, as the model is; then in hfbench's own batches of three."""
    task, model = task_for(tiny_bert), build(architecture)
    samples = samples_of(task)
    alone = torch.cat([answers(task, model, task.collate([sample])) for sample in samples])
    task.settle_padding(model, [samples], lambda side: side)
    lengths, slack = task.sample_lengths(samples), 0.0 if task.equal_lengths else 1.0
    batches = like_batches(len(samples), 3, lengths, slack=slack)
    for read in (
        lambda indices: samples.read_batch(indices, torch.device("cpu")),
        lambda indices: task.collate([samples[index] for index in indices]),
    ):
        together = torch.zeros_like(alone)
        for indices in batches:
            together[list(indices)] = answers(task, model, read(indices))
        off = float((together - alone).abs().max() / alone.abs().max())
        assert off < 1e-4, f"{off:.1e} of the largest logit"
    return task


@pytest.mark.parametrize("architecture", QUICK)
def test_an_answer_is_the_same_alone_and_in_a_batch(architecture: str, tiny_bert: Path) -> None:
    task = check_alone_and_together(architecture, tiny_bert)
    assert task.equal_lengths == (architecture in NOT_PADDED)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(QUICK)))
def test_so_it_is_with_every_other_architecture(architecture: str, tiny_bert: Path) -> None:
    task = check_alone_and_together(architecture, tiny_bert)
    if architecture in NOT_PADDED:
        assert task.equal_lengths


def test_hardly_an_architecture_is_left_out() -> None:
    assert len(ARCHITECTURES) > 100
    assert len(LEFT_OUT) < 12


@pytest.mark.parametrize(
    ("architecture", "own", "side"),
    [("gpt2", "left", "right"), ("xlnet", "left", "left"), ("xlnet", "right", "left")],
)
def test_texts_are_padded_where_it_is_harmless(
    architecture: str, own: Side, side: Side, tiny_bert: Path
) -> None:
    task = task_for(tiny_bert)
    task.processor.padding_side = own
    samples = samples_of(task)
    note = task.settle_padding(build(architecture), [samples], lambda side: side)
    assert (samples.padding.side, task.padding.side, task.processor.padding_side) == (side,) * 3
    assert (note is None) == (side == own)
    assert note is None or f"padded on the {side} (the tokenizer: on the {own})" in note


def test_answers_that_are_all_the_same_prove_nothing(tiny_bert: Path) -> None:
    model: Any = build("bert")
    with torch.no_grad():
        model.classifier.weight.zero_()
    task = task_for(tiny_bert)
    assert "nothing is padded" in str(task.settle_padding(model, [samples_of(task)], lambda s: s))
    assert task.equal_lengths


def test_measuring_leaves_mode_and_chance_alone(tiny_bert: Path) -> None:
    task, model = task_for(tiny_bert), build("reformer", hash_seed=None).train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    task.settle_padding(model, [samples_of(task)], lambda side: side)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


class _Particular(nn.Module):
    """Reads what has no more than ``rows`` rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.weight = rows, nn.Parameter(torch.ones(1))

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        if len(input_ids) > self.rows:
            raise ValueError("too many")
        return SimpleNamespace(logits=input_ids[:, :3].float())


def test_a_network_that_reads_no_padded_batch_gets_none(tiny_bert: Path) -> None:
    task = task_for(tiny_bert)
    note = task.settle_padding(_Particular(1), [samples_of(task)], lambda side: side)
    assert task.equal_lengths
    assert "nothing is padded" in str(note)


def test_a_network_that_reads_nothing_is_refused(tiny_bert: Path) -> None:
    task = task_for(tiny_bert)
    with pytest.raises(UserError, match=r"_Particular cannot read a sample.*ValueError: too many"):
        task.settle_padding(_Particular(0), [samples_of(task)], lambda side: side)


def test_the_measured_side_is_that_of_all_processes(tiny_bert: Path) -> None:
    task = task_for(tiny_bert)
    samples = samples_of(task)
    task.settle_padding(build("bert"), [samples], lambda side: None)
    assert task.equal_lengths
    assert samples.padding.side is None
    with pytest.raises(AssertionError, match="nothing may be padded"):
        samples.read_batch([0, 1], torch.device("cpu"))


@pytest.mark.parametrize("strategy", ["full", "head"])
def test_a_network_without_a_mask_trains_and_answers_unpadded(
    strategy: str, tiny_bert: Path, tmp_path: Path, capsys: Captured
) -> None:
    checkpoint, data, folder = (tmp_path / name for name in ("fnet", "texts.json", "run"))
    tokenizer = transformers.BertTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(checkpoint)
    model: Any = build("fnet", vocab_size=len(tokenizer), intermediate_size=128)
    model.fnet.save_pretrained(checkpoint)
    words = ("good", "bad", "cat")
    texts = [" ".join([words[i % 2], *["cat"] * (i % 7)]) for i in range(60)]
    rows = [{"text": text, "label": text.split()[0]} for text in texts]
    data.write_text(json.dumps(rows))
    options = overrides(checkpoint, data, folder, f"strategy={strategy}", "cache=always")
    result = run(load_config(None, options, task="text_classification"))
    assert result.status == "succeeded"
    assert "FNetForSequenceClassification takes padding for text" in result.data["notes"][-1]
    assert "note: FNetForSequenceClassification takes padding" in capsys.readouterr().out
    assert (result.prefix is not None) == (strategy == "head")
    inputs = ["good", "bad cat cat cat", "cat good cat", "bad", "good cat"]
    together = predict(capsys, folder, *inputs, "--top", "2")
    for text, expected in zip(inputs, together, strict=True):
        (alone,) = predict(capsys, folder, text, "--top", "2")
        for key in ("label", "probability"):
            values = [[c[key] for c in found["top"]] for found in (alone, expected)]
            assert values[0] == (values[1] if key == "label" else pytest.approx(values[1]))


@pytest.mark.parametrize("seed", [0, None])
def test_a_network_that_answers_otherwise_each_time_is_refused(
    seed: int | None, tiny_bert: Path
) -> None:
    """Reformer without a seed, as transformers has it, hashes anew in every pass."""
    task, model = task_for(tiny_bert), build("reformer", hash_seed=seed)
    long = samples_of(task)[2]  # the shorter ones fit into one bucket
    refusal = (
        nullcontext()
        if seed == 0
        else pytest.raises(UserError, match=r"answers the same samples otherwise .*hash_seed")
    )
    with refusal:
        check_first_batch(task, model, [long, long], "reformer", labels=True)
