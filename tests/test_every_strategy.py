"""Every strategy of every task: two steps, saved, loaded again, the same outputs."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors import safe_open
from tiny_runs import overrides

from hfbench.config import StrategyName, load_config
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.saving import load_model
from hfbench.verification import CHECK_FILE, check_inputs

pytestmark = pytest.mark.usefixtures("own_cache")

STRATEGIES = {
    "full": "full",
    "head": "head",
    "last_n": "last_1",
    "first_n": "first_1",
    "blocks": "blocks:0+2",
    "lora": "lora",
    "dora": "dora",
    "qlora": "qlora:targets=all_linear",
    "ia3": "ia3",
    "bitfit": "bitfit",
    "norm": "norm",
    "attention": "attention",
    "gradual": "gradual",
    "scratch": "scratch",
}
# task -> the fixtures of its checkpoint and its data, and what it needs beside them
TASKS = {
    "text_classification": ("tiny_bert", "texts", []),
    "image_classification": ("tiny_vit", "images", []),
    "audio_classification": ("tiny_wav2vec2", "sounds", []),
    "speech_recognition": ("tiny_wav2vec2", "speech", ["data.max_seconds=1"]),
    "causal_lm": ("tiny_gpt2", "texts", ["data.text_column=text", "data.max_length=32"]),
}
TIED = ("causal_lm", "head")  # its head has no parameters of its own: a mistake, tested elsewhere


def test_all_strategies_are_here() -> None:
    assert set(STRATEGIES) == set(get_args(StrategyName))


@pytest.mark.parametrize(
    ("task", "strategy"),
    [(task, name) for task in TASKS for name in STRATEGIES if (task, name) != TIED],
)
def test_two_steps_saved_and_loaded_again(
    task: str, strategy: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    checkpoint, data, more = TASKS[task]
    if strategy == "gradual":  # five epochs of one step: the head, three blocks, the embeddings
        more = [*more, "training.epochs=5", "data.max_train_samples=8"]
    else:
        more = [*more, "training.max_steps=2"]
    arguments = overrides(
        request.getfixturevalue(checkpoint),
        request.getfixturevalue(data),
        tmp_path / "run",
        f"strategy={STRATEGIES[strategy]}",
        *more,
    )
    result = run(load_config(None, arguments, task=task))
    assert result.steps == (5 if strategy == "gradual" else 2)
    assert RunResult.load(tmp_path / "run/result.json").status == "succeeded"
    check = tmp_path / "run" / CHECK_FILE
    with safe_open(check, "pt") as file:
        trained = file.get_tensor("logits")
    with torch.no_grad():
        loaded = load_model(tmp_path / "run/model")(**check_inputs(check)).logits
    assert torch.equal(loaded, trained)
