"""Shares of processes, traffic, time, what fits, and the command: expectations by hand."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from counting import write_config
from live_step import make_batch, with_strategy

from hfbench.calibration import Calibration, calibrate
from hfbench.cli import main
from hfbench.cost import StepCost
from hfbench.errors import UserError
from hfbench.plan import (
    ASSUMED_WATTS,
    ModelSize,
    StrategyPlan,
    Workload,
    best_first,
    fits,
    memory_plan,
    plan_strategy,
    sent_bytes,
    step_seconds,
)
from hfbench.plan_command import parse_bytes
from hfbench.recorder import Kernel

SIZE = ModelSize(
    total=1000,
    parameters=1000,
    trained=400,
    trained_tensors=10,
    backward=600,
    largest_block=100,
    outside_blocks=200,
    buffer_bytes=8,
    saved_bytes=4000,
)
NO_KERNELS: Mapping[Kernel, int] = {}
COST = StepCost(
    saved_activation_bytes=5000,
    working_peak_bytes=5500,
    peak_bytes=6000,
    input_bytes=64,
    forward_flops=100,
    backward_flops=200,
    kernels=NO_KERNELS,
)
CALIBRATION = Calibration(
    device="cpu",
    threads=1,
    precision="no",
    matmul_flops_per_second=100.0,
    convolution_flops_per_second=50.0,
    attention_flops_per_second=25.0,
    copy_bytes_per_second=1000.0,
    special_bytes_per_second=500.0,
    random_bytes_per_second=10.0,
    kernel_seconds=0.5,
    optimizer_bytes_per_second=700.0,
)


def test_one_process_holds_everything() -> None:
    plan = memory_plan(SIZE, COST, Workload())
    assert plan.weights == 4 * 1000 + 8
    assert plan.gradients == 4 * 400
    assert plan.optimizer == 2 * 4 * 400 + 4 * 10  # two moments, and a step count a tensor
    assert plan.communication == 0
    assert (plan.activations, plan.temporary) == (5000, 500)
    assert plan.peak == 4008 + 3240 + 64 + 6000


def test_sgd_has_no_state() -> None:
    assert memory_plan(SIZE, COST, Workload(optimizer="sgd")).optimizer == 0


@pytest.mark.parametrize(
    ("distribution", "gigabytes"), [("ddp", 120), ("zero1", 31.4), ("zero2", 16.6), ("zero3", 1.88)]
)
def test_shares_are_those_of_the_zero_paper(distribution: str, gigabytes: float) -> None:
    """Figure 1 of Rajbhandari et al. 2020: 7.5 billion parameters, 64 processes, Adam."""
    count = int(7.5e9)
    size = replace(
        SIZE, total=count, parameters=count, trained=count, trained_tensors=0, buffer_bytes=0
    )
    workload = Workload(batch_size=64, processes=64, precision="bf16", distribution=distribution)
    plan = memory_plan(size, COST, workload)
    states = plan.weights + plan.gradients + plan.optimizer
    assert states / 1e9 == pytest.approx(gigabytes, rel=0.005)


def test_ddp_keeps_gradients_twice_and_fsdp_gathers_two_blocks() -> None:
    ddp = memory_plan(SIZE, COST, Workload(processes=4, distribution="ddp"))
    assert ddp.communication == 4 * 400
    assert ddp.peak == memory_plan(SIZE, COST, Workload()).peak + 4 * 400

    fsdp = memory_plan(SIZE, COST, Workload(processes=4, distribution="fsdp"))
    assert fsdp.weights == 4 * 1000 // 4 + 8
    assert fsdp.gradients == 4 * 400 // 4
    assert fsdp.optimizer == (2 * 4 * 400 + 4 * 10) // 4
    assert fsdp.communication == 4 * (200 + 2 * 100)
    assert fsdp.peak == 1008 + 400 + 810 + 1600 + 64 + 5500
    accumulating = Workload(processes=4, distribution="fsdp", gradient_accumulation_steps=2)
    assert memory_plan(SIZE, COST, accumulating).gradients == 4 * 400


@pytest.mark.parametrize(
    ("distribution", "elements_in_one_pass", "elements_in_two"),
    [
        ("ddp", 2 * 400, 2 * 400),
        ("zero1", 400 + 400, 400 + 400),
        ("zero2", 400 + 400, 2 * 400 + 400),
        ("zero3", 1000 + 600 + 400, 2 * (1000 + 600 + 400)),
        ("fsdp", 1000 + 600 + 400, 2 * (1000 + 600) + 400),
    ],
)
def test_bytes_sent_in_a_step(
    distribution: str, elements_in_one_pass: int, elements_in_two: int
) -> None:
    workload = Workload(processes=4, distribution=distribution)
    assert sent_bytes(SIZE, workload) == 4 * elements_in_one_pass * 3 // 4
    twice = replace(workload, gradient_accumulation_steps=2)
    assert sent_bytes(SIZE, twice) == 4 * elements_in_two * 3 // 4
    assert sent_bytes(SIZE, replace(workload, processes=1)) == 0
    half = sent_bytes(SIZE, replace(workload, precision="bf16"))
    assert half == sent_bytes(SIZE, workload) // (1 if distribution == "ddp" else 2)


def test_seconds_of_a_step() -> None:
    kernels = {
        Kernel("matmul", 300, 1000): 2,  # 3 s of arithmetic, 1 s of traffic
        Kernel("matmul", 10, 2000): 1,  # 2 s of traffic
        Kernel("convolution", 100, 0): 1,  # 2 s
        Kernel("attention", 100, 0): 1,  # 4 s
        Kernel("random", 0, 30): 1,  # 3 s
        Kernel("special", 0, 500): 1,  # 1 s
        Kernel("copy", 0, 1000): 1,  # 1 s
    }
    passes = 2 * 3 + 2 + 2 + 4 + 3 + 1 + 1 + 8 * 0.5
    cost = replace(COST, kernels=kernels)
    update = 7 * 4 * 400 / 700 + 3 * 4 * 400 / 1000
    assert step_seconds(SIZE, cost, Workload(), CALIBRATION) == pytest.approx(passes + update)
    twice = Workload(gradient_accumulation_steps=2)
    assert step_seconds(SIZE, cost, twice, CALIBRATION) == pytest.approx(2 * passes + update)


def test_an_epoch_has_its_last_short_step_too() -> None:
    # 1001 samples are 11 batches of 100; two batches a step are 6 steps.
    workload = Workload(batch_size=100, gradient_accumulation_steps=2, samples=1001, epochs=5)
    assert workload.steps_per_epoch == 6
    model, structure = with_strategy("bert", "head")
    plan = plan_strategy(
        model, structure, "head", lambda count: make_batch("bert", 2), workload,
        calibration=CALIBRATION,
    )  # fmt: skip
    assert plan.step_seconds is not None
    assert plan.epoch_seconds == pytest.approx(6 * plan.step_seconds)
    assert plan.training_seconds == pytest.approx(30 * plan.step_seconds)
    assert plan.epoch_joules == pytest.approx(6 * plan.step_seconds * ASSUMED_WATTS)


def test_calibration_measures_positive_speeds() -> None:
    measured = calibrate("no")
    assert measured.matmul_flops_per_second > 1e8
    assert 0 < measured.kernel_seconds < 0.01


@pytest.mark.parametrize("strategy", ["full", "last_2", "lora"])
def test_bytes_on_disk_are_those_of_the_saved_weights(strategy: str, tmp_path: Path) -> None:
    model, structure = with_strategy("bert", strategy)
    options = {"save_embedding_layers": False} if strategy == "lora" else {}
    cast(Any, model).save_pretrained(tmp_path / "model", **options)
    weights = sum(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
    planned = ModelSize.of(model, structure).saved_bytes
    assert planned <= weights <= planned + 20_000  # the file's header


def test_gradients_pass_only_from_the_first_trained_part_on() -> None:
    sizes = {}
    for strategy in ("full", "last_2", "head", "lora"):
        sizes[strategy] = ModelSize.of(*with_strategy("bert", strategy))
    block = 4 * 64 * 64 + 4 * 64 + 2 * 64 * 256 + 256 + 64 + 4 * 64  # attention, MLP, two norms
    after = 64 * 64 + 64 + 64 * 3 + 3  # pooler and classifier
    assert sizes["full"].backward == sizes["full"].total
    assert sizes["full"].largest_block == block
    assert sizes["last_2"].backward == 2 * block + after
    assert sizes["head"].backward == after
    adapters = sizes["lora"].total - sizes["full"].total
    assert adapters == 4 * 2 * (8 * 64 + 64 * 8)  # blocks, query and value, A and B
    head_copy = 64 * 3 + 3  # PEFT trains a copy of the head
    assert sizes["lora"].parameters == sizes["lora"].total + head_copy
    assert sizes["lora"].outside_blocks == sizes["full"].outside_blocks + head_copy


def plan_of_memory(workload: Workload) -> StrategyPlan:
    """100 bytes a sample of a pass, with checkpointing 30; an epoch takes a second a pass."""
    each = 30 if workload.gradient_checkpointing else 100
    peak = each * workload.batch_size
    return StrategyPlan(
        strategy="full",
        workload=workload,
        size=SIZE,
        cost=COST,
        memory=replace(memory_plan(SIZE, COST, workload), peak=peak),
        sent_bytes_per_step=0,
        step_seconds=1.0,
        epoch_seconds=float(workload.gradient_accumulation_steps),
    )


def test_the_largest_batch_that_fits_with_and_without_checkpointing() -> None:
    workload = Workload(batch_size=16, gradient_accumulation_steps=2, epochs=60)
    found = fits(plan_of_memory, workload, memory_bytes=1000)
    shown = [
        (p.workload.batch_size, p.workload.gradient_accumulation_steps,
         p.workload.gradient_checkpointing)
        for p in found
    ]  # fmt: skip
    assert shown == [(8, 4, False), (32, 1, True)]
    # 60 epochs take 4 and 1 minutes.
    quick = fits(plan_of_memory, workload, memory_bytes=1000, minutes=2)
    assert [p.workload.batch_size for p in quick] == [32]
    assert fits(plan_of_memory, workload, memory_bytes=29) == []
    everything = fits(plan_of_memory, workload, memory_bytes=3200)
    assert [p.workload.gradient_checkpointing for p in everything] == [False]
    never = fits(plan_of_memory, workload, memory_bytes=1000, checkpointing=False)
    assert [p.workload.batch_size for p in never] == [8]


def test_best_first_is_most_trained_then_fastest() -> None:
    small = replace(plan_of_memory(Workload()), size=replace(SIZE, trained=4))
    slow = replace(plan_of_memory(Workload()), step_seconds=9.0)
    fast = plan_of_memory(Workload())
    assert best_first([small, slow, fast]) == [fast, slow, small]


def test_more_processes_than_samples_is_an_error() -> None:
    with pytest.raises(UserError, match="batch_size=2 is global"):
        Workload(batch_size=2, processes=4)
    with pytest.raises(UserError, match="epochs=0"):
        Workload(epochs=0)


def test_sizes_are_read_with_their_units() -> None:
    assert parse_bytes("8GiB") == 8 * 2**30
    assert parse_bytes("1.5 gb") == 1_500_000_000
    assert parse_bytes("500MB") == 500_000_000


def plan(checkpoint: Path, *options: str) -> int:
    arguments = ["--task", "text_classification", "--max-length", "16", "--batch-size", "4"]
    return main(["plan", str(checkpoint), *arguments, *options])


def test_the_command_prints_a_row_for_every_strategy(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tiny_bert, "--strategies", "full,lora:r=4,targets=all_linear,head") == 0
    printed = capsys.readouterr().out
    for word in ("full", "lora:", "head", "GFLOP", "peak", "4 samples a forward pass"):
        assert word in printed
    assert "sent" not in printed
    assert "epoch" not in printed  # nothing was calibrated
    assert max(map(len, printed.splitlines())) <= 100


def test_the_command_writes_json(tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distributed = ("--processes", "2", "--distribution", "zero2", "--precision", "bf16")
    assert plan(tiny_bert, "--format", "json", "--calibrate", *distributed) == 0
    values = json.loads(capsys.readouterr().out)
    full = values["strategies"][0]
    assert full["strategy"] == "full"
    assert full["total_parameters"] == full["trainable_parameters"]
    assert full["memory_bytes"]["gradients"] == full["trainable_parameters"]  # 2 bytes, 2 shares
    assert full["sent_bytes_per_step"] == 2 * full["trainable_parameters"]
    assert full["epoch_joules"] == pytest.approx(2 * ASSUMED_WATTS * full["epoch_seconds"])
    assert values["calibration"]["precision"] == "bf16"
    assert "assumed" in " ".join(values["notes"])


def test_the_command_says_what_fits(tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(tiny_bert, "--memory", "1GiB", "--minutes", "100") == 0
    printed = capsys.readouterr().out
    assert "What fits in 1 GiB and 100 minutes" in printed
    rows = [line.split()[0] for line in printed.splitlines() if line.startswith(("full", "head"))]
    assert rows == ["full", "head"]
    assert plan(tiny_bert, "--memory", "1KB") == 0
    assert "nothing fits" in capsys.readouterr().out


def test_the_command_names_a_mistake(tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(tiny_bert, "--max-length", "65") == 2
    assert "max_length=65 exceeds the model's 64 tokens" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        plan(tiny_bert, "--memory", "8")
    assert "size like 8GiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("checkpoint", "task"),
    [("tiny_vit", "image_classification"), ("tiny_wav2vec2", "audio_classification")],
)
def test_images_and_sounds_are_planned(
    checkpoint: str,
    task: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = request.getfixturevalue(checkpoint)
    assert main(["plan", str(folder), "--task", task, "--strategies", "head"]) == 0
    assert "head" in capsys.readouterr().out


def test_a_language_model_learns_from_every_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2 of one block; the tied output layer is one product more in each direction."""
    hidden, vocabulary, tokens, samples = 32, 100, 16, 4
    values = {"model_type": "gpt2", "n_embd": hidden, "n_layer": 1, "n_head": 2}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(values | {"vocab_size": vocabulary, "n_positions": 64}))
    arguments = ["--task", "causal_lm", "--max-length", str(tokens), "--batch-size", str(samples)]
    assert main(["plan", str(config), *arguments, "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if not line.startswith("... ")] == []
    plans = {p["strategy"]: p for p in json.loads(shown.out)["strategies"]}
    assert list(plans) == ["full", "last_1", "lora", "bitfit"]  # nothing of the head is its own
    linear = samples * tokens * 2 * (12 * hidden**2 + hidden * vocabulary)
    attention = samples * 4 * tokens**2 * hidden
    assert plans["full"]["forward_flops"] == linear + attention
    assert plans["full"]["total_parameters"] == sum(
        (
            *(vocabulary * hidden, 64 * hidden),  # tokens (and output), positions
            *(12 * hidden**2, 13 * hidden),  # the block: matrices, biases and norms
            2 * hidden,  # the last norm
        )
    )


def test_a_timm_model_has_the_plan_of_the_same_network_of_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def plan_of(checkpoint: str) -> Any:
        arguments = ["--num-labels", "5", "--batch-size", "2", "--image-size", "64"]
        command = ["plan", checkpoint, *arguments, "--strategies", "full,head", "--format", "json"]
        assert main(command) == 0
        return json.loads(capsys.readouterr().out)["strategies"]

    ours = plan_of("facebook/deit-tiny-patch16-224")
    timms = plan_of("timm/vit_tiny_patch16_224")
    for left, right in zip(ours, timms, strict=True):
        for key in ("total_parameters", "trainable_parameters", "forward_flops", "backward_flops"):
            assert left[key] == right[key], key


def test_deberta_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    path = write_config(tmp_path, model_type="deberta-v2", num_attention_heads=4, **sizes)
    assert main(["plan", str(path), "--strategies", "head"]) == 0
    assert "head" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--samples", "--epochs"])
def test_what_only_times_go_by_is_refused_without_times(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "bundled/bert-tiny", option, "50"]) == 2
    assert f"{option} 50 is for times: add --calibrate or --minutes" in capsys.readouterr().err
