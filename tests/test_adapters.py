"""(IA)³: what it adapts, how many parameters it adds, and how they are trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from counting import counts
from network_zoo import NETWORKS as ZOO
from torch import nn

from hfbench import feed_forward
from hfbench.config import TrainingConfig, parse_strategy
from hfbench.errors import UserError
from hfbench.feed_forward import feed_forward_outputs
from hfbench.models.structure import canonical_name, find_structure, is_scale
from hfbench.strategies import apply_strategy
from hfbench.training.optimizer import LearningRates, Penalty, build_optimizer

TINY: dict[str, Callable[[], nn.Module]] = {
    "bert": tiny_models.bert,
    "deberta": tiny_models.deberta,
    "vit": tiny_models.vit,
    "wav2vec2": tiny_models.wav2vec2,
    "gpt2": tiny_models.gpt2,
    "timm": tiny_models.timm_vit,
}


@pytest.mark.parametrize(
    ("checkpoint", "blocks", "hidden", "inner", "factors"),
    [
        ("google-bert/bert-base-uncased", 12, 768, 3072, 2),
        ("google/vit-base-patch16-224", 12, 768, 3072, 2),
        ("facebook/wav2vec2-base", 12, 768, 3072, 2),
        ("google-bert/bert-large-uncased", 24, 1024, 4096, 2),
        # one layer gives query, key and value, and all three are scaled
        ("openai-community/gpt2", 12, 768, 3072, 3),
        ("timm/vit_base_patch16_224", 12, 768, 3072, 3),
    ],
)
def test_ia3_adds_a_factor_for_every_key_value_and_inner_value(
    checkpoint: str, blocks: int, hidden: int, inner: int, factors: int, own_cache: None
) -> None:
    found, head = counts(checkpoint, "ia3", "head", num_labels=2).strategies
    assert found.adapter_total == blocks * (factors * hidden + inner)
    assert found.adapters == {f"block {i}": factors * hidden + inner for i in range(blocks)}
    assert found.report.trainable == head.report.trainable + found.adapter_total


def test_ia3_scales_each_stage_of_a_hierarchical_network_by_its_width(tmp_path: Path) -> None:
    """Of each block keys, values and four times its width: patch merging is no feed-forward."""
    config = transformers.SwinConfig(architectures=["SwinForImageClassification"])  # tiny
    config.save_pretrained(tmp_path)
    (found,) = counts(tmp_path, "ia3", num_labels=2).strategies
    assert found.adapter_total == 6 * (2 * 96 + 2 * 192 + 6 * 384 + 2 * 768) == 26_496


def test_bottlenecks_are_no_feed_forwards(tmp_path: Path) -> None:
    """A block of MobileBERT has four feed-forwards of 512 between its two bottlenecks."""
    config = transformers.MobileBertConfig(architectures=["MobileBertForSequenceClassification"])
    config.save_pretrained(tmp_path)
    (found,) = counts(tmp_path, "ia3", num_labels=2).strategies
    assert found.adapter_total == 24 * (2 * 128 + 4 * 512)


def mobilebert() -> nn.Module:
    """Two blocks: 32 values wide between them, 16 inside."""
    config = transformers.MobileBertConfig(
        vocab_size=60,
        hidden_size=32,
        true_hidden_size=16,
        intra_bottleneck_size=16,
        embedding_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=40,
    )
    return transformers.MobileBertForSequenceClassification(config)


def test_ia3_scales_what_a_gated_feed_forward_narrows() -> None:
    model = ZOO["llama"]()
    structure = find_structure(model)
    found = feed_forward_outputs(model, structure, structure.blocks)
    assert found == [f"model.layers.{i}.mlp.down_proj" for i in range(3)]


def test_layers_are_paired_by_the_order_in_which_they_run() -> None:
    """MobileBERT's module tree lists bottlenecks between its feed-forwards."""
    model = mobilebert().train()
    structure = find_structure(model)
    block = structure.blocks[1]
    inside = ["ffn.0.output.dense", "ffn.1.output.dense", "ffn.2.output.dense", "output.dense"]
    assert feed_forward_outputs(model, structure, [block]) == [f"{block}.{n}" for n in inside]
    assert all(module.training for module in model.modules())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def test_without_the_order_the_module_tree_must_leave_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*arguments: Any) -> Any:
        raise RuntimeError("it needs values")

    monkeypatch.setattr(feed_forward, "record_calls", fails)
    model = ZOO["bert"]()
    structure = find_structure(model)
    found = feed_forward_outputs(model, structure, structure.blocks)
    assert found == [f"{block}.output.dense" for block in structure.blocks]
    model = mobilebert()
    structure = find_structure(model)
    with pytest.raises(UserError, match=r"its feed-forward cannot be told: .*it needs values"):
        feed_forward_outputs(model, structure, structure.blocks)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("bert", {"attention.self.key", "attention.self.value", "output.dense"}),
        ("deberta", {"attention.self.key_proj", "attention.self.value_proj", "output.dense"}),
        ("vit", {"attention.k_proj", "attention.v_proj", "mlp.fc2"}),
        ("wav2vec2", {"attention.k_proj", "attention.v_proj", "feed_forward.output_dense"}),
        ("gpt2", {"attn.c_attn", "mlp.c_proj"}),
        ("timm", {"attn.qkv", "mlp.fc2"}),
    ],
)
def test_ia3_adapts_keys_values_and_the_second_layer_of_the_feed_forward(
    name: str, layers: set[str]
) -> None:
    model = TINY[name]()
    structure = find_structure(model)
    trained = apply_strategy(model, structure, parse_strategy("ia3"))
    scales = {canonical_name(n) for n, p in trained.named_parameters() if is_scale(n)}
    assert scales == {f"{block}.{layer}.ia3_l" for block in structure.blocks for layer in layers}
    others = {
        structure.part_of(n)
        for n, p in trained.named_parameters()
        if p.requires_grad and not is_scale(n)
    }
    assert others == {"head"}


def test_factors_of_the_feed_forward_scale_its_inner_values() -> None:
    model = tiny_models.vit()
    structure = find_structure(model)
    trained = apply_strategy(model, structure, parse_strategy("ia3")).eval()
    layers = dict(trained.named_modules())
    prefix = "base_model.model.vit.layers.0"
    second, key = layers[f"{prefix}.mlp.fc2"], layers[f"{prefix}.attention.k_proj"]
    values = torch.randn(2, 32)
    factors = torch.linspace(0.5, 2, 32)
    second.ia3_l["default"].data = factors[None]
    torch.testing.assert_close(second(values), second.base_layer(values * factors))
    values, factors = values[:, :16], factors[:16]
    key.ia3_l["default"].data = factors[:, None]
    torch.testing.assert_close(key(values), key.base_layer(values) * factors)


def test_nothing_pulls_a_factor_towards_zero() -> None:
    """It changes nothing at 1; decay and penalties are meant for weights around 0."""
    model = tiny_models.bert()
    trained = apply_strategy(model, find_structure(model), parse_strategy("ia3"))

    def decays(name: str) -> bool:
        return not is_scale(name)

    optimizer = build_optimizer(
        trained,
        rates=LearningRates(0.1, 0.1),
        config=TrainingConfig(weight_decay=0.5, optimizer="adamw"),
        is_head=lambda name: False,
        decays=decays,
    )
    named = {n: p for n, p in trained.named_parameters() if p.requires_grad}
    penalty = Penalty([p for n, p in named.items() if decays(n)], l1=0.1, l2=0.1)
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    penalty.add_gradients()
    optimizer.step()
    factors = [p for n, p in named.items() if is_scale(n)]
    assert len(factors) == 3 * 3
    assert all(torch.equal(p, torch.ones_like(p)) for p in factors)
    assert not torch.equal(
        trained.get_parameter("base_model.model.classifier.modules_to_save.default.weight"),
        trained.get_parameter("base_model.model.classifier.original_module.weight"),
    )


def test_ia3_merges_into_its_base_with_a_new_pooler() -> None:
    """PEFT merges it only where what it copied beside the factors are single layers."""
    model = tiny_models.bert()
    structure = find_structure(model)
    new = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
    trained: Any = apply_strategy(model, structure, parse_strategy("ia3"), new)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    batch = tiny_models.batch_for(model)
    expected = trained.eval()(**batch).logits
    merged = trained.merge_and_unload()
    assert not [n for n, _ in merged.named_parameters() if "ia3" in n]
    torch.testing.assert_close(merged(**batch).logits, expected)


def test_blocks_without_a_feed_forward_are_refused() -> None:
    model = tiny_models.bert()
    structure = find_structure(model)
    for block in structure.blocks:
        model.get_submodule(block).intermediate.dense = nn.Linear(16, 16)
        model.get_submodule(block).output.dense = nn.Linear(16, 16)
    with pytest.raises(UserError, match="have no feed-forward of two linear layers"):
        feed_forward_outputs(model, structure, structure.blocks)


def test_ia3_has_none_of_loras_options() -> None:
    with pytest.raises(UserError, match=r"strategy\.r belongs to lora, dora and qlora, not to ia3"):
        parse_strategy("ia3:r=4")
