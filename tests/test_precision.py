"""The precision follows what is measured, is decided once for a machine, and is recorded."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_runs import overrides
from transformers import BertConfig, DistilBertConfig, GPT2Config, ResNetConfig

from hfbench.config import load_config
from hfbench.preparation import block_of, measure_precision
from hfbench.results import RunResult
from hfbench.training.precision import Block, PrecisionChoice, choose_precision

CPU = torch.device("cpu")
TEXT_RECIPE = Path(__file__).parents[1] / "recipes/text_classification.py"
CHOOSE = """
import torch
from hfbench.training.precision import Block, choose_for_block
print(repr(choose_for_block(torch.device("cpu"), Block(32, 64, 4))))
"""
# A run on a machine where bfloat16 is twice as fast; says what its layers gave while training.
RUN_WITH_FAST_BF16 = """
import sys
import torch
from hfbench import preparation
from hfbench.cli import recipe_main
from hfbench.training.precision import PrecisionChoice
preparation.choose_for_block = lambda device, block: PrecisionChoice(0.02, 0.01, "block")
dtypes = set()
def watch(module, inputs, output):
    linear = isinstance(module, torch.nn.Linear)
    if linear and module.training and module.in_features >= 32:  # smaller: the calibration's
        dtypes.add(str(output.dtype))
torch.nn.modules.module.register_module_forward_hook(watch)
code = recipe_main("text_classification", None, sys.argv[1:])
print("linear layers gave", *dtypes)
sys.exit(code)
"""


def work_that_takes(*, float32: float, bf16: float) -> Callable[[], None]:
    """Milliseconds of the processor."""

    def work() -> None:
        milliseconds = bf16 if torch.is_autocast_enabled("cpu") else float32
        end = time.process_time() + milliseconds / 1000
        while time.process_time() < end:
            pass

    return work


@pytest.mark.parametrize(
    ("float32", "bf16", "precision"),
    [(0.0221, 0.0200, "bf16"), (0.0219, 0.0200, "no"), (0.01, 0.02, "no"), (0.02, 0.001, "bf16")],
)
def test_bf16_must_be_a_tenth_faster(float32: float, bf16: float, precision: str) -> None:
    assert PrecisionChoice(float32, bf16, "block").precision == precision


def test_the_choice_is_said_with_both_times() -> None:
    assert str(PrecisionChoice(0.0194, 0.0121, "block")) == (
        "bf16, 1.6 times as fast as float32 here (12.1 against 19.4 ms a block)"
    )
    assert str(PrecisionChoice(0.002, 0.004, "step")) == (
        "no (float32), bf16 is 0.5 times as fast as float32 here (4 against 2 ms a step)"
    )


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("float32", "bf16", "precision"), [(4.0, 2.0, "bf16"), (2.0, 4.0, "no"), (2.0, 2.0, "no")]
)
def test_the_faster_precision_is_chosen(float32: float, bf16: float, precision: str) -> None:
    work = work_that_takes(float32=float32, bf16=bf16)
    choice = choose_precision(CPU, "step", {}, lambda: work)
    assert choice.precision == precision
    assert choice.float32_seconds == pytest.approx(float32 / 1000, rel=0.5)
    assert choice.bf16_seconds == pytest.approx(bf16 / 1000, rel=0.5)


@pytest.mark.usefixtures("own_cache")
def test_a_decision_is_taken_once_for_the_same_work() -> None:
    first = choose_precision(CPU, "step", {"width": 1}, lambda: work_that_takes(float32=4, bf16=1))
    again = choose_precision(CPU, "step", {"width": 1}, lambda: work_that_takes(float32=1, bf16=4))
    other = choose_precision(CPU, "step", {"width": 2}, lambda: work_that_takes(float32=1, bf16=4))
    assert again == first
    assert (first.precision, other.precision) == ("bf16", "no")


@pytest.mark.usefixtures("own_cache")
def test_a_second_process_decides_alike() -> None:
    """To the last digit of both times, so nothing was measured again."""
    said = [
        subprocess.run([sys.executable, "-c", CHOOSE], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert said[0].stdout.startswith("PrecisionChoice(float32_seconds=")
    assert said[0].stdout == said[1].stdout


@pytest.mark.usefixtures("own_cache")
def test_measuring_leaves_threads_and_random_numbers_alone() -> None:
    config = load_config(None, [], task="mnist_mlp")
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    choice = measure_precision(config)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before)
    assert choice.unit == "step on one thread"  # of the network itself: it has no checkpoint


def test_the_block_is_as_large_as_the_networks() -> None:
    bert = BertConfig(hidden_size=64, num_attention_heads=2, intermediate_size=96)
    assert block_of(bert) == Block(64, 96, 2)
    assert block_of(DistilBertConfig(dim=96, n_heads=3)) == Block(96, 4 * 96, 3)
    assert block_of(GPT2Config(n_embd=128, n_head=8)) == Block(128, 4 * 128, 8)
    assert block_of(ResNetConfig()) == Block()  # no attention: sizes of a small transformer


def test_a_wide_block_is_measured_in_small() -> None:
    """Of Llama 2 7B: heads of 128, intermediate 2.6875 times as wide."""
    assert Block(4096, 11008, 32).shrunk() == Block(768, 2064, 6)
    assert Block(768, 3072, 12).shrunk() == Block(768, 3072, 12)


@pytest.mark.usefixtures("own_cache")
def test_a_run_records_the_precision_that_was_measured(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    arguments = overrides(
        tiny_bert, texts, tmp_path / "run", "training.mixed_precision=auto", "strategy=head"
    )
    command = [sys.executable, str(TEXT_RECIPE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = RunResult.load(tmp_path / "run/result.json")
    (line,) = [text for text in done.stdout.splitlines() if text.startswith("precision: ")]
    assert "times as fast as float32 here" in line
    assert line.split()[1].strip(",") == result.hardware["precision"]
    assert result.config["training"]["mixed_precision"] == "auto"
    assert result.settings["training"]["mixed_precision"] == result.hardware["precision"]


def test_a_run_trains_in_the_precision_that_was_chosen(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    arguments = overrides(
        tiny_bert, texts, tmp_path / "run", "training.mixed_precision=auto", "training.epochs=1"
    )
    command = [sys.executable, "-c", RUN_WITH_FAST_BF16, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "precision: bf16, 2 times as fast as float32 here (10 against 20 ms" in done.stdout
    assert "linear layers gave torch.bfloat16\n" in done.stdout
    assert RunResult.load(tmp_path / "run/result.json").hardware["precision"] == "bf16"
