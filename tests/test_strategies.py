"""What trains and what stays frozen, and which strategies are mistakes."""

import warnings
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import tiny_models
import torch
import transformers
from strategy_models import MODELS, module_named, prepare, unwrapped
from torch import nn

from hfbench.config import StrategyConfig, parse_strategy
from hfbench.errors import UserError
from hfbench.models.structure import canonical_name, find_structure, is_duplicate
from hfbench.strategies import apply_strategy, learning_rate_factor

BACKBONE_BLOCKS = {
    "bert": "bert.encoder.layer",
    "vit": "vit.layers",
    "wav2vec2": "wav2vec2.encoder.layers",
    "gpt2": "transformer.h",
}


def trainable_names(model: nn.Module) -> set[str]:
    return {canonical_name(name) for name, p in model.named_parameters() if p.requires_grad}


# Which parameters train


@pytest.mark.parametrize("name", MODELS)
def test_position_strategies_train_their_blocks_and_the_head(name: str) -> None:
    blocks = BACKBONE_BLOCKS[name]
    for strategy, trained in {
        "head": [],
        "last_1": [2],
        "last_3": [0, 1, 2],
        "first_2": [0, 1],
        "blocks:0+2": [0, 2],
    }.items():
        model = MODELS[name]()
        structure = find_structure(model)
        assert apply_strategy(model, structure, parse_strategy(strategy)) is model
        starts = tuple(f"{blocks}.{index}." for index in trained) + structure.head
        expected = {n for n, _ in model.named_parameters() if n.startswith(starts)}
        assert trainable_names(model) == expected


@pytest.mark.parametrize("strategy", ["full", "scratch"])
def test_full_and_scratch_train_everything(strategy: str) -> None:
    model, _ = prepare(tiny_models.bert(), strategy)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_bitfit_trains_every_bias_and_the_head() -> None:
    model, _ = prepare(tiny_models.gpt2(), "bitfit")
    expected = {n for n, _ in model.named_parameters() if n.endswith("bias")} | {"score.weight"}
    assert trainable_names(model) == expected


@pytest.mark.parametrize("name", ["bert", "vit", "wav2vec2", "gpt2"])
def test_dora_has_a_length_for_every_output_of_what_lora_adapts(name: str) -> None:
    """r · (inputs + outputs) for LoRA's two matrices, and outputs more (Liu et al. 2024)."""
    lora, structure = prepare(MODELS[name](), "lora:r=4")
    dora, _ = prepare(MODELS[name](), "dora:r=4")
    adapted = [m for m in lora.modules() if hasattr(m, "lora_A") and hasattr(m, "out_features")]
    assert adapted

    def of_adapters(model: nn.Module) -> int:
        return sum(
            p.numel() for n, p in model.named_parameters() if structure.part_of(n) == "adapter"
        )

    assert of_adapters(lora) == sum(4 * (m.in_features + m.out_features) for m in adapted)
    assert of_adapters(dora) == of_adapters(lora) + sum(m.out_features for m in adapted)
    trained = {n for n in trainable_names(dora) if "magnitude" in n}
    assert len(trained) == len(adapted)
    assert not [name for name in trained if "default" in name]


@pytest.mark.parametrize(("name", "word"), [("bert", "LayerNorm"), ("vit", "norm")])
def test_norm_trains_every_norm_and_the_head(name: str, word: str) -> None:
    model, structure = prepare(MODELS[name](), "norm")
    expected = {n for n, _ in model.named_parameters() if word in n or n.startswith(structure.head)}
    assert len(expected) > 2 * structure.depth
    assert trainable_names(model) == expected


@pytest.mark.parametrize("name", ["bert", "vit", "wav2vec2"])
def test_attention_trains_four_projections_a_block_and_the_head(name: str) -> None:
    """Each of the projections of query, key, value and output has hidden² + hidden parameters."""
    model, structure = prepare(MODELS[name](), "attention")
    hidden = model.config.hidden_size
    head = sum(p.numel() for n, p in model.named_parameters() if structure.part_of(n) == "head")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == head + structure.depth * 4 * (hidden**2 + hidden)
    assert not [n for n in trainable_names(model) if "norm" in n.lower()]


def test_a_strategy_can_replace_another() -> None:
    model, structure = prepare(tiny_models.bert(), "head")
    apply_strategy(model, structure, parse_strategy("full"))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_freeze_patterns_apply_after_the_strategy() -> None:
    model, _ = prepare(tiny_models.bert(), "full:freeze=bert.embeddings.*+*.layer.0.*")
    assert trainable_names(model) == {
        name
        for name, _ in model.named_parameters()
        if not name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))
    }


def test_freeze_patterns_know_adapters_and_trained_heads() -> None:
    model, _ = prepare(tiny_models.wav2vec2(), "lora:last_n=1,freeze=*.q_proj.lora_A.*+projector.*")
    block = "wav2vec2.encoder.layers.2.attention"
    assert trainable_names(model) == {
        f"{block}.q_proj.lora_B.weight",
        f"{block}.v_proj.lora_A.weight",
        f"{block}.v_proj.lora_B.weight",
        "classifier.weight",
        "classifier.bias",
    }


@pytest.mark.parametrize(
    ("build", "new"),
    [
        (tiny_models.bert, ("bert.pooler.dense.weight", "bert.pooler.dense.bias")),
        (tiny_models.deberta, ("pooler.dense.weight", "classifier.bias")),
        (tiny_models.wav2vec2, ("projector.weight", "classifier.weight")),
        (tiny_models.vit, ("vit.embeddings.position_embeddings",)),
        (tiny_models.bert, ("bert.encoder.layer.1.attention.self.query.weight",)),
    ],
)
@pytest.mark.parametrize("strategy", ["head", "last_1", "lora", "bitfit"])
def test_new_parameters_always_train(
    build: Callable[[], nn.Module], new: tuple[str, ...], strategy: str
) -> None:
    old, _ = prepare(build(), strategy)
    model, structure = prepare(build(), strategy, new)
    if strategy == "lora" and "bert.encoder" in new[0]:
        query = new[0].removesuffix(".weight")
        adapters = {f"{query}.lora_A.weight", f"{query}.lora_B.weight"}
        assert trainable_names(model) == trainable_names(old) - adapters | set(new)
    else:
        assert trainable_names(model) == trainable_names(old) | set(new)
    model(**tiny_models.batch_for(unwrapped(model))).loss.backward()
    for name, parameter in model.named_parameters():
        if canonical_name(name) in new and not is_duplicate(name):
            assert parameter.grad is not None
            assert parameter.grad.any()
    assert structure.depth == 3


# LoRA


def test_lora_adapts_exactly_the_targets() -> None:
    model, _ = prepare(tiny_models.bert(), "lora:r=2,targets=all_linear,last_n=2")
    adapted = {n.split(".lora_A")[0] for n in trainable_names(model) if ".lora_A." in n}
    assert adapted == {
        f"bert.encoder.layer.{index}.{name}"
        for index in (1, 2)
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        )
    }


@pytest.mark.parametrize(
    ("build", "heads"),
    [
        (tiny_models.bert, {"classifier"}),
        (tiny_models.deberta, {"pooler", "classifier"}),
        (tiny_models.vit, {"classifier"}),
        (tiny_models.wav2vec2, {"projector", "classifier"}),
        (tiny_models.gpt2, {"score"}),
        (tiny_models.timm_vit, {"head"}),
        (
            lambda: transformers.DistilBertForSequenceClassification(
                transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2)
            ),
            {"pre_classifier", "classifier"},
        ),
    ],
)
def test_lora_trains_every_head_module_and_no_other(
    build: Callable[[], nn.Module], heads: set[str]
) -> None:
    model, _ = prepare(build(), "lora")
    wrapped = {
        canonical_name(name)
        for name, module in model.named_modules()
        if isinstance(module, peft.utils.ModulesToSaveWrapper)
    }
    assert wrapped == heads
    heads_and_adapters = {
        name for name in trainable_names(model) if name.startswith(tuple(heads))
    } | {name for name in trainable_names(model) if ".lora_" in name}
    assert trainable_names(model) == heads_and_adapters


def test_lora_leaves_a_tied_output_layer_tied() -> None:
    model, _ = prepare(tiny_models.gpt2_lm(), "lora")
    inner = model.get_base_model()
    assert inner.lm_head.weight is inner.transformer.wte.weight
    assert all(".lora_" in name for name in trainable_names(model))


def test_lora_on_gpt2_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, _ = prepare(tiny_models.gpt2(), "lora")
    layer = module_named(model, "transformer.h.0.attn.c_attn")
    assert layer.fan_in_fan_out
    assert layer.lora_A["default"].weight.shape == (8, 16)
    assert layer.lora_B["default"].weight.shape == (3 * 16, 8)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing")  # PEFT, while loading
@pytest.mark.parametrize("name", ["bert", "deberta", "vit", "wav2vec2", "gpt2"])
def test_adapter_and_head_reload_to_the_same_logits(name: str, tmp_path: Path) -> None:
    build = {**MODELS, "deberta": tiny_models.deberta}[name]
    build().save_pretrained(tmp_path / "base")
    base_class = type(build())
    new = ("bert.pooler.dense.weight",) if name == "bert" else ()
    torch.manual_seed(0)
    model, _ = prepare(base_class.from_pretrained(tmp_path / "base"), "lora:r=2", new)
    batch = tiny_models.batch_for(model.get_base_model())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # lora_B starts at zero, so lora_A moves in the second step only
        model(**batch).loss.backward()
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save_pretrained(tmp_path / "adapter")

    fresh = base_class.from_pretrained(tmp_path / "base").eval()
    untrained = fresh(**batch).logits
    reloaded = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    torch.testing.assert_close(reloaded(**batch).logits, model.eval()(**batch).logits)
    assert not torch.allclose(reloaded(**batch).logits, untrained)


# Mistakes


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("last_4", "asks for 4, but BertForSequenceClassification has 3 blocks"),
        ("first_4", "numbered 0 to 2"),
        ("blocks:0+3", r"asks for blocks \[3\]"),
        ("lora:last_n=4", "asks for 4"),
        ("full:freeze=bert.encodings.*", r"'bert\.encodings\.\*' matches no parameter"),
        ("full:freeze=*", r"trains nothing.*freeze=\['\*'\] freezes the rest"),
    ],
)
def test_mistakes_are_user_errors(strategy: str, message: str) -> None:
    model = tiny_models.bert()
    with pytest.raises(UserError, match=message):
        apply_strategy(model, find_structure(model), parse_strategy(strategy))


def test_a_pattern_without_a_match_lists_what_exists() -> None:
    model = tiny_models.bert()
    with pytest.raises(UserError) as error:
        apply_strategy(model, find_structure(model), parse_strategy("head:freeze=nothing"))
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert "bert.encoder.layer.*.output.dense.weight" in lines
    assert "classifier.bias" in lines
    assert len(lines) == len(set(lines)) == 1 + 5 + 16 + 2 + 2


def test_shared_blocks_are_explained() -> None:
    model = transformers.AlbertForSequenceClassification(
        transformers.AlbertConfig(vocab_size=50, **tiny_models.SMALL)
    )
    with pytest.raises(UserError, match=r"has 1 blocks.*shared by its 3 layers"):
        apply_strategy(model, find_structure(model), parse_strategy("last_2"))


def test_a_tied_head_has_nothing_to_train() -> None:
    model = tiny_models.gpt2_lm()
    with pytest.raises(UserError, match=r"its head \(lm_head\) has no parameters of its own"):
        apply_strategy(model, find_structure(model), parse_strategy("head"))


def test_new_parameters_cannot_be_frozen() -> None:
    model = tiny_models.bert()
    new = ["bert.pooler.dense.weight", "classifier.weight"]
    with pytest.raises(UserError, match=r"random initial values: bert\.pooler\.dense\.weight\."):
        apply_strategy(model, find_structure(model), parse_strategy("full:freeze=*pooler*"), new)


def test_lora_names_a_new_parameter_that_an_adapter_cannot_hold() -> None:
    model = tiny_models.wav2vec2()
    with pytest.raises(UserError, match=r"an adapter cannot train wav2vec2\.masked_spec_embed"):
        apply_strategy(
            model, find_structure(model), parse_strategy("lora"), ["wav2vec2.masked_spec_embed"]
        )


def test_lora_refuses_a_head_that_peft_would_confuse_with_another_module() -> None:
    model = tiny_models.bert()
    model.bert.encoder.layer[0].other_classifier = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"also take bert\.encoder\.layer\.0\.other_classifier"):
        apply_strategy(model, find_structure(model), parse_strategy("lora"))


def test_learning_rate_factors() -> None:
    factors = {"full": 1, "scratch": 1, "last_2": 1, "first_2": 1, "blocks:0": 1}
    factors |= {"lora": 10, "lora:r=4": 10, "head": 20, "bitfit": 20, "norm": 20, "attention": 1}
    factors |= {"ia3": 50, "gradual": 1}
    for strategy, factor in factors.items():
        assert learning_rate_factor(parse_strategy(strategy)) == factor
    assert learning_rate_factor(StrategyConfig("lora", learning_rate_factor=3.0)) == 3.0
