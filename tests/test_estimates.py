"""What a run is going to need is an estimate: where it fails, the run says so and goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate import Accelerator
from language_runs import settings
from live_step import make_batch, make_model
from probed_models import other_model, probe_of
from tiny_runs import overrides
from torch import nn

from hfbench import prediction, preparation
from hfbench.cli import main, recipe_main
from hfbench.config import load_config, parse_strategy
from hfbench.cost import trace_modules, trace_step
from hfbench.errors import NotMeasuredError, NotTraceableError, UserError, measuring
from hfbench.models.structure import find_structure
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.strategies import apply_strategy
from hfbench.training import attention
from hfbench.training.precision import choose_precision

EXPERTS: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
MIXTURES: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "mixtral": lambda: transformers.MixtralConfig(num_local_experts=4, **EXPERTS),
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(
        num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=16, **EXPERTS
    ),
    "olmoe": lambda: transformers.OlmoeConfig(num_experts=4, **EXPERTS),
    "gpt_oss": lambda: transformers.GptOssConfig(num_local_experts=4, head_dim=8, **EXPERTS),
}


def mixture(name: str) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(MIXTURES[name]())


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_experts_is_traced(name: str, precision: Any) -> None:
    """By hand: each token is multiplied by the weights of 2 experts of 4."""
    with torch.device("meta"):
        model = mixture(name)
    structure = find_structure(model)
    apply_strategy(model, structure, parse_strategy("full"))
    samples, length, hidden, inner = 2, 12, 16, 32
    tokens = torch.zeros(samples, length, dtype=torch.int64)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}
    cost = trace_step(model, structure, batch, precision=precision)
    block = 4 * hidden**2 + 4 * hidden + 2 * 3 * hidden * inner  # attention, router, experts
    if name == "qwen2_moe":
        block += 3 * hidden * 16 + hidden  # the expert that all share, and its gate
    attended = 2 * samples * length**2 * hidden  # scores, and their product with the values
    products = 2 * (samples * length * block + attended) + samples * length * hidden * 300
    assert cost.forward_flops == 2 * products
    # Two products for each; the fused attention, which GPT-OSS has not, forms the scores again.
    again = 0 if name == "gpt_oss" else 2 * attended
    assert cost.backward_flops == 2 * cost.forward_flops + again


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_experts_trains_with_a_prediction(
    name: str, tiny_gpt2: Path, texts: Path, tmp_path: Path, own_folders: None
) -> None:
    checkpoint = tmp_path / name
    mixture(name).save_pretrained(checkpoint)
    for file in tiny_gpt2.glob("*token*"):
        (checkpoint / file.name).write_bytes(file.read_bytes())
    result = run(settings(checkpoint, texts, f"output_dir={tmp_path / 'run'}"))
    assert result.status == "succeeded"
    assert result.predicted is not None
    assert result.not_predicted is None


class _OddError(Exception):
    pass


def failing(error: BaseException) -> Any:
    """A BERT whose blocks cannot run."""

    def fail(module: nn.Module, args: object) -> None:
        raise error

    model = make_model("bert")
    model.bert.encoder.layer[1].register_forward_pre_hook(fail)
    return model


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Expected mat_a\nto be BFloat16"), r"\(RuntimeError: Expected mat_a\)$"),
        (AssertionError(), r"\(AssertionError\)$"),
        (_OddError("odd"), r"\(_OddError: odd\)$"),
    ],
)
def test_whatever_ends_a_trace_is_said(error: Exception, said: str) -> None:
    model, batch = failing(error), make_batch("bert")
    said = f"the cost of BertForSequenceClassification cannot be traced without its data {said}"
    with pytest.raises(NotTraceableError, match=said):
        trace_step(model, find_structure(model), batch)
    with pytest.raises(NotTraceableError, match=said):
        trace_modules(model, batch, {})


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        UserError("mended by people"),
    ],
)
def test_what_is_no_failure_of_the_estimate_goes_on(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, measuring("nothing"):
        raise error
    assert caught.value is error


def test_a_run_goes_on_without_a_prediction(
    tiny_bert: Path,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_folders: None,
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(prediction, "calibrate", broken)
    arguments = overrides(tiny_bert, texts, tmp_path / "run", "strategy=head")
    reason = (
        "the cost of this training cannot be estimated (ZeroDivisionError: float division by zero)"
    )
    assert recipe_main("text_classification", None, [*arguments, "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"nothing is predicted: {reason}" in shown
    assert "Nothing was trained" in shown
    result = run(load_config(None, arguments, task="text_classification"))
    assert f"nothing is predicted: {reason}\n" in capsys.readouterr().out
    assert result.status == "succeeded"
    assert (result.predicted, result.not_predicted) == (None, reason)
    path = tmp_path / "run" / "result.json"
    assert RunResult.load(path).not_predicted == reason
    values = json.loads(path.read_text())
    del values["not_predicted"], values["checksum"]  # as results were written before
    assert RunResult.from_dict(values).not_predicted is None


def test_a_plan_of_what_cannot_be_traced_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own_folders: None
) -> None:
    """I-BERT asserts in its forward pass that no activation is NaN, which nobody knows here."""
    config = transformers.IBertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    config.save_pretrained(tmp_path)
    assert main(["plan", str(tmp_path), "--strategies", "full"]) == 2
    said = capsys.readouterr().err
    assert "the cost of IBertForSequenceClassification cannot be traced" in said
    assert "Traceback" not in said
    assert main(["params", str(tmp_path)]) == 0


def test_attention_that_cannot_be_measured_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_folders: None
) -> None:
    def broken(*args: object) -> None:
        raise TypeError("no such kernel")

    monkeypatch.setattr(attention, "medians", broken)
    model = other_model("bert")
    with attention.fastest_attention(
        model, probe_of(model, make_batch("bert")), Accelerator()
    ) as way:
        assert way == "as loaded"
    said = "attention: as loaded, it cannot be measured (TypeError: no such kernel)\n"
    assert capsys.readouterr().out == said


def test_precision_and_threads_that_cannot_be_measured_are_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_folders: None
) -> None:
    def broken(*args: object) -> Any:
        raise TypeError("no such kernel")

    with pytest.raises(TypeError):
        choose_precision(torch.device("cpu"), "step", {"of": "this test"}, broken)
    monkeypatch.setattr(preparation, "choose_for_block", broken)
    monkeypatch.setattr(preparation, "load_config", lambda settings: None)
    config = load_config(None, ["training.mixed_precision=auto"], task="text_classification")
    with pytest.raises(NotMeasuredError, match=r"it cannot be measured \(TypeError: no such"):
        preparation.measure_precision(config)
    accelerator = preparation.make_accelerator(config)
    assert accelerator.mixed_precision == "no"
    said = "precision: no (float32), it cannot be measured (TypeError: no such kernel)\n"
    assert capsys.readouterr().out == said
    monkeypatch.setattr(preparation, "choose_threads", broken)
    task = preparation.make_task(config)
    before = torch.get_num_threads()
    assert preparation.settle_threads(task, accelerator) == before == torch.get_num_threads()
    assert "cannot be measured" in capsys.readouterr().out
