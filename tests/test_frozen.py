"""Frozen means a constant of the sample, without dropout and out of the graph."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tiny_models
import torch
from strategy_models import MODELS, module_named, prepare, unwrapped
from torch import nn

from hfbench.strategies import set_training_mode


@contextmanager
def recorded_inputs(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The first input of every call of a module."""
    inputs: list[torch.Tensor] = []

    def record(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, object]) -> None:
        inputs.append(args[0] if args else kwargs["hidden_states"])  # type: ignore[arg-type]

    handle = module.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield inputs
    finally:
        handle.remove()


def two_passes(model: nn.Module, watched: nn.Module) -> tuple[list[torch.Tensor], ...]:
    """(inputs of ``watched``, logits) of two passes over one batch with different random states."""
    batch = tiny_models.batch_for(unwrapped(model))
    with recorded_inputs(watched) as inputs:
        logits = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            logits.append(model(**batch).logits)
    return inputs, logits


@pytest.mark.parametrize("strategy", ["last_1", "last_3", "lora", "lora:last_n=1", "blocks:1"])
@pytest.mark.parametrize("name", MODELS)
def test_input_of_the_first_trained_block_is_constant_and_below_the_graph(
    name: str, strategy: str
) -> None:
    first = {"last_1": 2, "last_3": 0, "lora": 0, "lora:last_n=1": 2, "blocks:1": 1}[strategy]
    torch.manual_seed(0)
    model, structure = prepare(MODELS[name](), strategy)
    with torch.no_grad():  # a fresh adapter is zero and would hide the dropout before it
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.normal_()
    watched = module_named(model, structure.blocks[first])
    inputs, logits = two_passes(model, watched)
    assert len(inputs) == 2
    assert torch.equal(inputs[0], inputs[1])
    assert not inputs[0].requires_grad
    assert inputs[0].grad_fn is None
    assert not torch.allclose(logits[0], logits[1])  # dropout works where something trains


@pytest.mark.parametrize("name", MODELS)
def test_head_keeps_the_backbone_constant_and_out_of_the_graph(name: str) -> None:
    model, structure = prepare(MODELS[name](), "head")
    outputs: list[torch.Tensor] = []
    model.get_submodule(structure.backbone).register_forward_hook(
        lambda _module, _args, output: outputs.append(output.last_hidden_state)
    )
    _, logits = two_passes(model, module_named(model, structure.blocks[0]))
    assert torch.equal(outputs[0], outputs[1])
    assert not outputs[0].requires_grad
    # BERT has a dropout beside its classifier, which trains; the others have none.
    assert torch.equal(logits[0], logits[1]) == (name != "bert")


def test_backward_of_a_wav2vec2_head_reaches_the_head_only() -> None:
    model, _ = prepare(tiny_models.wav2vec2(), "head")
    model(**tiny_models.batch_for(model)).loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        "projector.weight",
        "projector.bias",
        "classifier.weight",
        "classifier.bias",
    }
    # The frozen encoder stays out of the graph even when all of the model is in train mode.
    model.train()
    encoder = model.wav2vec2.feature_extractor
    assert not encoder(torch.zeros(1, 320)).requires_grad


def test_a_frozen_feature_encoder_stays_out_of_the_graph_of_full_fine_tuning() -> None:
    model, _ = prepare(tiny_models.wav2vec2(), "full:freeze=*feature_extractor*")
    assert not model.wav2vec2.feature_extractor(torch.zeros(1, 320)).requires_grad
    assert model.wav2vec2.training  # masking works: the mask embedding trains
    assert model.wav2vec2.encoder.training


def test_bitfit_of_gpt2_has_constant_embeddings() -> None:
    model, structure = prepare(tiny_models.gpt2(), "bitfit")
    inputs, logits = two_passes(model, module_named(model, structure.blocks[0]))
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("name", ["bert", "vit", "wav2vec2"])
def test_bitfit_trains_biases_before_the_blocks_so_dropout_works_there(name: str) -> None:
    model, structure = prepare(MODELS[name](), "bitfit")
    if name == "wav2vec2":  # else a dropped layer has no input to look at
        model.config.layerdrop = 0.0
    inputs, _ = two_passes(model, module_named(model, structure.blocks[0]))
    assert not torch.allclose(inputs[0], inputs[1])


def test_frozen_blocks_after_trained_ones_have_no_dropout() -> None:
    model, _ = prepare(tiny_models.bert(), "first_1")
    assert model.bert.encoder.layer[0].output.dropout.training
    assert not any(module.training for module in model.bert.encoder.layer[1].modules())
    assert not any(module.training for module in model.bert.pooler.modules())
    assert model.dropout.training


def test_dropout_of_a_block_with_adapters_stays_active_beside_its_frozen_layers() -> None:
    model, structure = prepare(tiny_models.bert(), "lora:last_n=1")
    block = module_named(model, structure.blocks[2])
    assert block.output.dropout.training
    assert not block.output.LayerNorm.training
    assert not any(m.training for m in module_named(model, structure.blocks[1]).modules())


def test_timm_dropouts_before_and_after_the_blocks() -> None:
    model, _ = prepare(tiny_models.timm_vit(drop_rate=0.1, pos_drop_rate=0.1), "last_1")
    assert model.training
    assert not model.pos_drop.training
    assert model.head_drop.training
    model, _ = prepare(tiny_models.timm_vit(drop_rate=0.1, pos_drop_rate=0.1), "full")
    assert model.pos_drop.training


def test_running_statistics_of_frozen_norms_do_not_move() -> None:
    model = tiny_models.bert()
    for layer in model.bert.encoder.layer:
        layer.output.LayerNorm = nn.BatchNorm1d(10)  # over the ten tokens of the batch
    model, _ = prepare(model, "last_1")
    model(**tiny_models.batch_for(model))
    norms = [layer.output.LayerNorm for layer in model.bert.encoder.layer]
    assert [bool(norm.running_mean.any()) for norm in norms] == [False, False, True]


def test_training_mode_of_a_wrapped_model() -> None:
    class Wrapper(nn.Module):
        """Names parameters as DistributedDataParallel does."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    model, structure = prepare(tiny_models.wav2vec2(), "lora:last_n=1")
    modes = [module.training for module in model.modules()]
    set_training_mode(Wrapper(model.eval()), structure)
    assert [module.training for module in model.modules()] == modes


def test_training_mode_is_restored_after_evaluation() -> None:
    model, structure = prepare(tiny_models.wav2vec2(), "lora:last_n=2")
    modes = [module.training for module in model.modules()]
    model.eval()
    set_training_mode(model, structure)
    assert [module.training for module in model.modules()] == modes
