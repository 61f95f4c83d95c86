"""A run knows its cost before the first step, and the result holds both."""

import json
from pathlib import Path

import pytest
import torch
from live_step import CPU_ATTENTION
from tiny_runs import overrides
from torch.utils.flop_counter import FlopCounterMode

from hfbench.config import RunConfig, load_config
from hfbench.prediction import plan_run, predict, workload_of
from hfbench.preparation import Prepared, make_accelerator, prepare
from hfbench.results import RunResult
from hfbench.run import foretell, run
from hfbench.tasks import make_task
from hfbench.training import memory


def prepared_text(
    checkpoint: Path, data: Path, folder: Path, *more: str
) -> tuple[RunConfig, Prepared]:
    arguments = overrides(checkpoint, data, folder, *more)
    config = load_config(None, arguments, task="text_classification")
    return config, prepare(config, make_task(config), make_accelerator(config))


def test_the_result_of_a_run_has_predicted_and_measured(
    tiny_vit: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """40 images, 32 to train on: 2 forward passes of 8 make a step, 2 steps an epoch."""
    arguments = overrides(
        tiny_vit,
        images,
        tmp_path / "run",
        "strategy=full",
        "training.gradient_accumulation_steps=2",
    )
    result = run(load_config(None, arguments, task="image_classification"), brief=True)
    assert RunResult.load(tmp_path / "run/result.json") == result
    printed = capsys.readouterr().out
    assert "expected: 4 steps of " in printed
    assert "train, as listed for this strategy above" in printed
    assert "Parameters of" not in printed
    predicted = result.predicted
    assert predicted is not None
    assert result.steps == 4
    # 16 patches and the class token; 8 samples. A linear layer: 2·in·out a token and direction,
    # thrice with the backward pass, which leaves out the gradient of the pixels. Behind the last
    # attention only the class token is computed.
    tokens, hidden, inner = 17, 32, 64
    attended = 2 * tokens * 3 * hidden * hidden + 4 * tokens**2 * hidden
    behind = 2 * (hidden * hidden + 2 * hidden * inner)  # of a token
    blocks = 3 * attended + (2 * tokens + 1) * behind
    patches = 2 * 16 * (3 * 8 * 8) * hidden
    head = 2 * hidden * 2
    linear_and_attention = 3 * (blocks + head) + 2 * patches
    if result.hardware["attention"] == "as loaded":  # the fused kernel computes its weights twice
        linear_and_attention += 3 * 2 * tokens**2 * hidden
    assert predicted.step_flops == pytest.approx(2 * 8 * linear_and_attention, rel=0.01)
    assert predicted.step_seconds > 0
    assert predicted.peak_memory_bytes is not None
    assert result.peak_memory_bytes is not None
    assert predicted.peak_memory_bytes == pytest.approx(result.peak_memory_bytes, rel=0.2)
    assert result.train_seconds is not None
    assert result.flops_per_second == pytest.approx(4 * predicted.step_flops / result.train_seconds)
    assert result.peak_share == pytest.approx(
        result.flops_per_second / predicted.matmul_flops_per_second
    )


def test_time_goes_by_a_batch_of_mean_length_and_memory_by_the_longest(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """Of batches of one text, with [CLS] and [SEP]: most have 4 tokens, many 8, one or two 40.

    Their mean is nearest to 8, their median is 4.
    """
    rows = [
        {"text": " ".join(["cat"] * (length - 2)), "label": label}
        for length in (4,) * 29 + (8,) * 23 + (40,)
        for label in ("a", "b")
    ]
    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    config, prepared = prepared_text(
        tiny_bert, data, tmp_path / "run", "training.batch_size=1", "strategy=full"
    )
    accelerator = make_accelerator(config)
    plan = plan_run(config, prepared, accelerator)
    lengths = sorted(prepared.task.sample_lengths(prepared.data.train) or [])
    assert lengths[-1] == 40
    assert lengths[len(lengths) // 2] == 4
    assert 6 < sum(lengths) / len(lengths) < 24

    def live_flops(length: int) -> int:
        ids = torch.full((1, length), 5)
        counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
        with counter:
            prepared.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                labels=torch.zeros(1, dtype=torch.int64),
            ).loss.backward()
        return int(counter.get_total_flops())

    assert plan.typical.cost.flops == live_flops(8)
    assert plan.widest.cost.flops == live_flops(40)
    prediction = predict(plan, accelerator)
    assert prediction.step_flops == plan.typical.cost.flops
    resident = memory.present_bytes(accelerator.device)
    assert resident is not None
    assert prediction.peak_memory_bytes is not None
    added = plan.widest.memory.peak - plan.widest.memory.weights
    assert prediction.peak_memory_bytes - added == pytest.approx(resident, rel=0.02)


def test_every_process_has_its_share_of_the_batch() -> None:
    config = load_config(None, ["training.batch_size=8", "training.epochs=5"], task="x")
    workload = workload_of(config, 100, 4, "bf16")
    assert (workload.samples_per_process, workload.steps_per_epoch) == (2, 13)
    assert workload.precision == "bf16"
    assert workload_of(config, 100, 16, "bf16").samples_per_process == 1


def test_a_model_that_asks_for_its_data_is_trained_without_a_prediction(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, prepared = prepared_text(tiny_bert, texts, tmp_path / "run")
    prepared.model.bert.register_forward_pre_hook(
        lambda module, arguments: (arguments[0][:, : int(arguments[0].max())],)
    )
    found = foretell(config, prepared, make_accelerator(config))
    assert list(found) == ["not_predicted"]
    assert f"nothing is predicted: {found['not_predicted']}\n" in capsys.readouterr().out
    assert found["not_predicted"].startswith("this model asks for the value")
