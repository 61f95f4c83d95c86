"""A traced training step against a real one: memory and operations."""

import itertools
import statistics
import time
from collections.abc import Callable

import pytest
import torch
import transformers
from live_step import (
    MODELS,
    STRATEGIES,
    forward,
    make_batch,
    make_model,
    measure,
    peak_allocated,
    training_step,
    with_strategy,
)

from hfbench.calibration import calibrate
from hfbench.cost import trace_step
from hfbench.errors import NotTraceableError, UserError
from hfbench.models.checkpointing import gradient_checkpointing
from hfbench.models.structure import find_structure
from hfbench.plan import ModelSize, Workload, memory_plan, step_seconds
from hfbench.strategies import set_training_mode


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize(
    ("name", "strategy"),
    [*itertools.product(MODELS, STRATEGIES), ("gpt2_lm", "full"), ("gpt2_lm", "lora")],
)
def test_memory_and_operations_of_a_step_are_those_measured(
    name: str, strategy: str, precision: str
) -> None:
    model, structure = with_strategy(name, strategy)
    batch = make_batch(name)
    cost = trace_step(model, structure, batch, precision=precision)
    plan = memory_plan(ModelSize.of(model, structure), cost, Workload(precision=precision))
    live = measure(model, structure, batch, precision)

    assert cost.saved_activation_bytes == pytest.approx(live.saved_bytes, rel=0.02, abs=64)
    measured_peak = live.standing_bytes + live.passes_peak_bytes
    # On a processor with matrix units (AMX) convolutions in bfloat16 copy input and weight.
    copies = (name, precision) == ("wav2vec2", "bf16")
    assert plan.peak == pytest.approx(measured_peak, rel=0.2 if copies else 0.1)
    assert plan.optimizer == live.optimizer_bytes
    if precision == "no":  # beyond weights and state too, which are easy to predict
        own_buffers = 0.15 if name == "wav2vec2" else 0.02  # a convolution copies its input
        assert cost.peak_bytes == pytest.approx(live.passes_peak_bytes, rel=own_buffers)
    assert cost.forward_flops == pytest.approx(live.forward_flops, rel=0.02)
    assert cost.backward_flops == pytest.approx(live.backward_flops, rel=0.02)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", ["full", "last_2"])
def test_gradient_checkpointing_is_traced(name: str, strategy: str) -> None:
    model, structure = with_strategy(name, strategy)
    batch = make_batch(name)
    plain = trace_step(model, structure, batch)
    cost = trace_step(model, structure, batch, gradient_checkpointing=True)
    assert cost.saved_activation_bytes < 0.2 * plain.saved_activation_bytes
    assert trace_step(model, structure, batch) == plain  # nothing is left behind
    assert cost.forward_flops == plain.forward_flops
    assert cost.backward_flops > plain.backward_flops
    set_training_mode(model, structure)
    with gradient_checkpointing(model):
        _, step = training_step(model, batch, "no")
        step()
        assert cost.peak_bytes == pytest.approx(peak_allocated(step), rel=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_accumulated_gradients_are_there_during_the_whole_pass(name: str) -> None:
    model, structure = with_strategy(name, "full")
    batch = make_batch(name)
    cost = trace_step(model, structure, batch, accumulating=True)
    set_training_mode(model, structure)
    forward(model, batch, "no").backward()
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    measured = gradients + peak_allocated(lambda: forward(model, batch, "no").backward())
    assert cost.peak_bytes == pytest.approx(measured, rel=0.02)
    assert cost.peak_bytes >= gradients + cost.saved_activation_bytes


@pytest.mark.parametrize("name", MODELS)
def test_saved_activations_depend_on_where_the_trained_layers_are(name: str) -> None:
    saved = {}
    for strategy in ("full", "first_2", "last_2", "head"):
        model, structure = with_strategy(name, strategy)
        cost = trace_step(model, structure, make_batch(name))
        saved[strategy] = cost.saved_activation_bytes
    # Gradients reach the first blocks through all later ones.
    assert saved["last_2"] < 0.8 * saved["first_2"]
    assert 0.45 * saved["full"] < saved["first_2"] < saved["full"]
    assert saved["head"] < 0.05 * saved["full"]


@pytest.mark.parametrize("name", MODELS)
def test_tracing_needs_no_weights_and_changes_none(name: str) -> None:
    real, structure = with_strategy(name, "full")
    before = {key: value.clone() for key, value in real.state_dict().items()}
    expected = trace_step(real, structure, make_batch(name))
    assert all(torch.equal(value, before[key]) for key, value in real.state_dict().items())
    assert all(parameter.grad is None for parameter in real.parameters())

    with torch.device("meta"):
        meta = make_model(name)
    parameters = list(meta.parameters())
    assert trace_step(meta, find_structure(meta), make_batch(name)) == expected
    assert all(old is new for old, new in zip(parameters, meta.parameters(), strict=True))


def test_operations_of_a_bert_are_those_counted_by_hand() -> None:
    model, structure = with_strategy("bert", "full")
    cost = trace_step(model, structure, make_batch("bert"))
    samples, length, hidden, blocks = 4, 48, 64, 4
    linear = 2 * samples * length * (4 * hidden**2 + 2 * hidden * 4 * hidden)
    attention = 2 * 2 * samples * length**2 * hidden  # scores, and their product with the values
    heads = 2 * samples * hidden * (hidden + 3)  # pooler and classifier
    assert cost.forward_flops == blocks * (linear + attention) + heads
    # Every product has two products in the backward pass.
    assert cost.backward_flops == 2 * cost.forward_flops


def test_a_question_about_values_is_an_error() -> None:
    model = make_model("bert")
    structure = find_structure(model)
    model.bert.register_forward_pre_hook(lambda module, args: (args[0][:, : int(args[0].max())],))
    with pytest.raises(NotTraceableError, match="value of a tensor"):
        trace_step(model, structure, make_batch("bert"))


def test_a_model_without_gradient_checkpointing_is_an_error() -> None:
    model = transformers.BertForSequenceClassification(make_model("bert").config)
    model.supports_gradient_checkpointing = False
    with pytest.raises(UserError, match="no gradient checkpointing"):
        trace_step(model, find_structure(model), make_batch("bert"), gradient_checkpointing=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_ratios_of_step_times_are_those_measured(name: str, precision: str) -> None:
    assert torch.get_num_threads() == 1  # set by conftest.py; processor time is that of a thread
    calibration = calibrate(precision)
    predicted, steps = {}, {}
    for strategy in STRATEGIES:
        model, structure = with_strategy(name, strategy, hidden=192)
        batch = make_batch(name, samples=8)
        cost = trace_step(model, structure, batch, precision=precision)
        size = ModelSize.of(model, structure)
        workload = Workload(precision=precision)
        predicted[strategy] = step_seconds(size, cost, workload, calibration)
        _, steps[strategy] = training_step(model, batch, precision)
    measured = _interleaved_medians(steps)
    errors = {
        strategy: predicted[strategy] / predicted["full"] / (measured[strategy] / measured["full"])
        for strategy in STRATEGIES
    }
    assert errors == pytest.approx(dict.fromkeys(STRATEGIES, 1.0), abs=0.2), errors


def _interleaved_medians(
    steps: dict[str, Callable[[], None]], rounds: int = 15
) -> dict[str, float]:
    """Seconds of processor time, so that other work on this machine does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.thread_time()
            step()
            times[name].append(time.thread_time() - started)
    return {name: statistics.median(values) for name, values in times.items()}
