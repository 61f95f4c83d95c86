"""Layers by their names: without wrappers, as the targets of adapters, and as a printed tree."""

import pytest
import tiny_models
import transformers
from torch import nn

from hfbench.errors import UserError
from hfbench.models.module_tree import format_tree
from hfbench.models.structure import (
    canonical_name,
    find_structure,
    is_duplicate,
    linear_layers,
)


def hand_made(prefix: str | None, layers: dict[str, nn.Module]) -> nn.Module:
    """A network of plain modules with layers at these dotted names; numbers make lists."""
    root = nn.Module()
    if prefix is not None:
        root.base_model_prefix = prefix
    for name, layer in layers.items():
        parent = root
        *path, last = name.split(".")
        for position, part in enumerate(path):
            if part not in dict(parent.named_children()):
                following = [*path, last][position + 1]
                child = nn.ModuleList() if following.isdigit() else nn.Module()
                parent.add_module(part, child)
            parent = parent.get_submodule(part)
        parent.add_module(last, layer)
    return root


def old_vit() -> nn.Module:
    """The names of a transformers 4 ViT."""
    layers: dict[str, nn.Module] = {"vit.embeddings.patch_embeddings": nn.Conv2d(3, 4, 2)}
    for index in range(2):
        block = f"vit.encoder.layer.{index}"
        layers |= {
            f"{block}.attention.attention.query": nn.Linear(4, 4),
            f"{block}.attention.attention.key": nn.Linear(4, 4),
            f"{block}.attention.attention.value": nn.Linear(4, 4),
            f"{block}.attention.output.dense": nn.Linear(4, 4),
            f"{block}.intermediate.dense": nn.Linear(4, 8),
            f"{block}.output.dense": nn.Linear(8, 4),
            f"{block}.layernorm_before": nn.LayerNorm(4),
        }
    layers |= {
        "vit.layernorm": nn.LayerNorm(4),
        "vit.pooler.dense": nn.Linear(4, 4),
        "classifier": nn.Linear(4, 2),
    }
    return hand_made("vit", layers)


def test_old_vit_names() -> None:
    model = old_vit()
    structure = find_structure(model)
    assert structure.backbone == "vit"
    assert structure.embeddings == ("vit.embeddings",)
    assert structure.blocks == ("vit.encoder.layer.0", "vit.encoder.layer.1")
    assert structure.final == ("vit.layernorm",)
    assert structure.pooler == ("vit.pooler",)
    assert structure.head == ("classifier",)
    last = structure.blocks[1:]
    attention = "vit.encoder.layer.1.attention"
    assert linear_layers(model, structure, "attention_qv", last) == [
        f"{attention}.attention.query",
        f"{attention}.attention.value",
    ]
    assert linear_layers(model, structure, "attention", last) == [
        f"{attention}.attention.query",
        f"{attention}.attention.key",
        f"{attention}.attention.value",
        f"{attention}.output.dense",
    ]
    assert linear_layers(model, structure, "all_linear", last)[4:] == [
        "vit.encoder.layer.1.intermediate.dense",
        "vit.encoder.layer.1.output.dense",
    ]


@pytest.mark.parametrize(
    ("wrapped", "name"),
    [
        ("bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        ("module.bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        ("module.base_model.model.model.layers.0.mlp", "model.layers.0.mlp"),
        ("_orig_mod.module.classifier.bias", "classifier.bias"),
        ("base_model.model.classifier.modules_to_save.default.bias", "classifier.bias"),
        ("base_model.model.classifier.original_module.bias", "classifier.bias"),
        ("base_model.model.a.query.base_layer.weight", "a.query.weight"),
        ("base_model.model.a.query.lora_A.default.weight", "a.query.lora_A.weight"),
        ("base_model.model.a.query.lora_B.default", "a.query.lora_B"),
        ("base_model.model", ""),
        ("base_model", ""),
        ("", ""),
    ],
)
def test_canonical_name(wrapped: str, name: str) -> None:
    assert canonical_name(wrapped) == name


def test_only_unused_copies_are_duplicates() -> None:
    assert is_duplicate("base_model.model.classifier.original_module.bias")
    assert not is_duplicate("base_model.model.classifier.modules_to_save.default.bias")


def test_fused_and_transposed_attention_layers() -> None:
    gpt2 = tiny_models.gpt2()
    structure = find_structure(gpt2)
    first = structure.blocks[:1]
    assert linear_layers(gpt2, structure, "attention_qv", first) == ["transformer.h.0.attn.c_attn"]
    assert linear_layers(gpt2, structure, "all_linear", first) == [
        "transformer.h.0.attn.c_attn",
        "transformer.h.0.attn.c_proj",
        "transformer.h.0.mlp.c_fc",
        "transformer.h.0.mlp.c_proj",
    ]
    vit = tiny_models.timm_vit()
    structure = find_structure(vit)
    assert linear_layers(vit, structure, "attention_qv", structure.blocks) == [
        f"blocks.{index}.attn.qkv" for index in range(3)
    ]


def test_position_projections_are_not_query_and_value() -> None:
    model = transformers.DebertaV2ForSequenceClassification(
        transformers.DebertaV2Config(
            vocab_size=50, relative_attention=True, pos_att_type=["p2c", "c2p"], **tiny_models.SMALL
        )
    )
    structure = find_structure(model)
    found = linear_layers(model, structure, "attention_qv", structure.blocks[:1])
    assert [name.rpartition(".")[2] for name in found] == ["query_proj", "value_proj"]


def test_targets_without_a_match_list_the_linear_layers() -> None:
    model = hand_made(
        "net",
        {f"net.layers.{index}.{name}": nn.Linear(2, 2) for index in (0, 1) for name in ("up", "w")},
    )
    structure = find_structure(model)
    with pytest.raises(
        UserError, match=r"targets=attention matches no linear layer.*up, w"
    ) as error:
        linear_layers(model, structure, "attention", structure.blocks)
    assert "targets=all_linear" in str(error.value)


def test_unknown_shapes_print_the_module_tree() -> None:
    convolutions = hand_made("net", {"net.stem": nn.Conv2d(3, 4, 3), "net.end": nn.Linear(4, 4)})
    with pytest.raises(UserError, match="no list of like blocks") as error:
        find_structure(convolutions)
    assert "  net: Module  132 parameters\n    stem: Conv2d  112 parameters" in str(error.value)

    with pytest.raises(UserError, match="base_model_prefix"):
        find_structure(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))

    few = {f"net.layers.{index}": nn.Linear(2, 2) for index in range(2)}
    with pytest.raises(UserError, match=r"\(net\.layers\) holds less than half"):
        find_structure(hand_made("net", {"net.stem": nn.Linear(9, 9), **few}))


def test_tree_joins_like_siblings() -> None:
    model = hand_made(
        "net",
        {**{f"net.layers.{index}": nn.Linear(2, 2) for index in range(12)}, "drop": nn.ReLU()},
    )
    assert format_tree(model).splitlines() == [
        "Module  72 parameters",
        "  net: Module  72 parameters",
        "    layers: ModuleList  72 parameters",
        "      0..11: 12 times Linear, each  6 parameters",
        "  drop: ReLU",
    ]
