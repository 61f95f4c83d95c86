"""Over many architectures: what a run reports is what its saved model gives, text by text."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from accelerate.state import AcceleratorState
from text_zoo import ARCHITECTURES, build
from tiny_runs import overrides
from torch import nn

from hfbench.config import RunConfig, load_config
from hfbench.errors import UserError
from hfbench.run import run
from hfbench.saving import load_model
from hfbench.tasks import make_task

STRATEGIES = ("full", "last_1", "lora:last_n=1")
PRECISIONS = ("no", "bf16")
STACKS = "several stacks of blocks"
PIECES = "blocks lie in pieces"
REFUSED = {  # before the training, with this in the message
    "bart": STACKS,
    "bigbird_pegasus": STACKS,
    "flaubert": PIECES,
    "fnet": "holds less than half",  # at this size
    "funnel": "cannot read a sample",  # of fewer tokens than it pools
    "jamba": "no list of like blocks",
    "mbart": STACKS,
    "mt5": STACKS,
    "mvp": STACKS,
    "plbart": STACKS,
    "qwen2": "no token in",  # AutoTokenizer reads the test's vocabulary with a class of its own
    "t5": STACKS,
    "tapas": "cannot take the first batch",  # it reads tables
    "umt5": STACKS,
    "xlm": PIECES,
    "zamba": "no list of like blocks",
}
WITHOUT_LORA = {  # no query and value that adapters know
    "axk2",
    "ctrl",
    "deepseek_v2",
    "deepseek_v3",
    "ibert",
    "jetmoe",
    "minicpm3",
    "squeezebert",
    "xlnet",
}
WITHOUT_BF16 = {"deberta", "xmod"}  # transformers 5.24 fails under autocast
WITHOUT_FULL = {"reformer"}  # trains texts of some lengths only
KINDS = [(strategy, precision) for strategy in STRATEGIES for precision in PRECISIONS]


def works(architecture: str, strategy: str, precision: str) -> bool:
    return not (
        (strategy.startswith("lora") and architecture in WITHOUT_LORA)
        or (precision == "bf16" and architecture in WITHOUT_BF16)
        or (strategy == "full" and architecture in WITHOUT_FULL)
    )


TRAINED = [name for name in ARCHITECTURES if name not in REFUSED]
CASES = [(name, *kind) for name in TRAINED for kind in KINDS if works(name, *kind)]
# Of every third architecture one kind in turn.
QUICK = {(name, *KINDS[i % len(KINDS)]) for i, name in enumerate(TRAINED[::3])}


@pytest.fixture(scope="module")
def folder_of_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16, 8 and 16 texts of 1 to 9 words, of two classes that one word tells apart."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, size in (("train", 16), ("validation", 8), ("test", 16)):
        rows = []
        for i in range(size):
            words = [("bad", "good")[i % 2], *["cat"] * int(generator.integers(9))]
            rows.append({"text": " ".join(words), "label": ("down", "up")[i % 2]})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def config_of(
    architecture: str, strategy: str, precision: str, tiny_bert: Path, data: Path, folder: Path
) -> RunConfig:
    checkpoint = folder / "checkpoint"
    tokenizer = transformers.BertTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(checkpoint)
    build(architecture, vocab_size=len(tokenizer), num_labels=2).save_pretrained(checkpoint)
    more = ("training.max_steps=2", "training.eval_batch_size=5", "cache=always")
    options = overrides(checkpoint, data, folder / "run", f"strategy={strategy}", *more)
    options.append(f"training.mixed_precision={precision}")
    return load_config(None, options, task="text_classification")


def answers(model: nn.Module, config: RunConfig) -> tuple[float, float]:
    """Mean loss and accuracy of the test texts, each alone and unpadded, by a plain loop."""
    task = make_task(config)
    test = task.prepare_data().test
    half = config.training.mixed_precision == "bf16"
    losses, right = [], []
    for index in range(len(test)):
        batch = task.collate([test[index]])
        target = batch.pop("labels")
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(**batch).logits.float()
        losses.append(float(nn.functional.cross_entropy(logits, target)))
        right.append(int(logits.argmax()) == int(target))
    return sum(losses) / len(losses), sum(right) / len(right)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("architecture", "strategy", "precision"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_reported_numbers_are_those_of_the_saved_model(
    architecture: str,
    strategy: str,
    precision: str,
    tiny_bert: Path,
    folder_of_texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hfbench.run.foretell", lambda *_: {})  # the longest part, of no account
    config = config_of(architecture, strategy, precision, tiny_bert, folder_of_texts, tmp_path)
    AcceleratorState._reset_state()
    try:
        result = run(config)
    finally:
        AcceleratorState._reset_state()
    assert result.saved_check is not None
    assert (result.saved_check.samples, result.saved_check.of) == (16, 16)
    loss, accuracy = answers(load_model(tmp_path / "run/model"), config)
    rounding = 1e-4 if precision == "no" else 3e-2
    assert result.test_metrics["loss"] == pytest.approx(loss, rel=rounding, abs=rounding)
    if precision == "no":
        assert result.test_metrics["accuracy"] == accuracy


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(("architecture", "reason"), REFUSED.items())
def test_the_others_are_refused_before_the_training(
    architecture: str, reason: str, tiny_bert: Path, folder_of_texts: Path, tmp_path: Path
) -> None:
    config = config_of(architecture, "full", "no", tiny_bert, folder_of_texts, tmp_path)
    with pytest.raises(UserError, match=reason):
        run(config)


def test_few_are_left_out() -> None:
    assert len(CASES) > 500
    assert len(QUICK & set(CASES)) > 30
