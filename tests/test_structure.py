"""The parts of a network are found from its module tree, whatever its layers are called."""

from collections.abc import Callable, Sequence

import pytest
import tiny_models
import torch
import transformers
from torch import nn

from hfbench.errors import UserError
from hfbench.models.structure import (
    canonical_name,
    find_structure,
    format_tree,
    is_duplicate,
    linear_layers,
)

SMALL = tiny_models.SMALL


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


Parts = tuple[str, Sequence[str], str, Sequence[str], Sequence[str], Sequence[str]]

CASES: dict[str, tuple[Callable[[], nn.Module], Parts]] = {
    # backbone, embeddings, list of blocks, final, pooler, head
    "bert": (
        tiny_models.bert,
        ("bert", ["bert.embeddings"], "bert.encoder.layer", [], ["bert.pooler"], ["classifier"]),
    ),
    "roberta": (
        lambda: transformers.RobertaForSequenceClassification(
            transformers.RobertaConfig(vocab_size=50, **SMALL)
        ),
        ("roberta", ["roberta.embeddings"], "roberta.encoder.layer", [], [], ["classifier"]),
    ),
    "distilbert": (
        lambda: transformers.DistilBertForSequenceClassification(
            transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=3, n_heads=2)
        ),
        (
            "distilbert",
            ["distilbert.embeddings"],
            "distilbert.transformer.layer",
            [],
            [],
            ["pre_classifier", "classifier"],
        ),
    ),
    "deberta-v3": (
        tiny_models.deberta,
        (
            "deberta",
            ["deberta.embeddings", "deberta.encoder.rel_embeddings", "deberta.encoder.LayerNorm"],
            "deberta.encoder.layer",
            [],
            [],
            ["pooler", "classifier"],
        ),
    ),
    "electra": (
        lambda: transformers.ElectraForSequenceClassification(
            transformers.ElectraConfig(vocab_size=50, **SMALL)
        ),
        (
            "electra",
            ["electra.embeddings", "electra.embeddings_project"],
            "electra.encoder.layer",
            [],
            [],
            ["classifier"],
        ),
    ),
    "vit": (
        tiny_models.vit,
        ("vit", ["vit.embeddings"], "vit.layers", ["vit.layernorm"], [], ["classifier"]),
    ),
    "vit without a head": (
        lambda: transformers.ViTModel(transformers.ViTConfig(**SMALL)),
        ("", ["embeddings"], "layers", ["layernorm"], ["pooler"], []),
    ),
    "deit": (
        lambda: transformers.DeiTForImageClassificationWithTeacher(
            transformers.DeiTConfig(**SMALL)
        ),
        (
            "deit",
            ["deit.embeddings"],
            "deit.layers",
            ["deit.layernorm"],
            [],
            ["cls_classifier", "distillation_classifier"],
        ),
    ),
    "wav2vec2": (
        tiny_models.wav2vec2,
        (
            "wav2vec2",
            [
                "wav2vec2.masked_spec_embed",
                "wav2vec2.feature_extractor",
                "wav2vec2.feature_projection",
                "wav2vec2.encoder.pos_conv_embed",
                "wav2vec2.encoder.layer_norm",
            ],
            "wav2vec2.encoder.layers",
            [],
            [],
            ["projector", "classifier"],
        ),
    ),
    "wav2vec2 with its norm after the blocks, as many convolutions as blocks": (
        lambda: tiny_models.wav2vec2(
            do_stable_layer_norm=True, feat_extract_norm="layer", mask_time_prob=0.0
        ),
        (
            "wav2vec2",
            [
                "wav2vec2.masked_spec_embed",
                "wav2vec2.feature_extractor",
                "wav2vec2.feature_projection",
                "wav2vec2.encoder.pos_conv_embed",
            ],
            "wav2vec2.encoder.layers",
            ["wav2vec2.encoder.layer_norm"],
            [],
            ["projector", "classifier"],
        ),
    ),
    "hubert for speech recognition": (
        lambda: transformers.HubertForCTC(transformers.HubertConfig(**SMALL)),
        (
            "hubert",
            [
                "hubert.masked_spec_embed",
                "hubert.feature_extractor",
                "hubert.feature_projection",
                "hubert.encoder.pos_conv_embed",
                "hubert.encoder.layer_norm",
            ],
            "hubert.encoder.layers",
            [],
            [],
            ["lm_head"],
        ),
    ),
    "whisper, whose class has no attribute of its base_model_prefix": (
        lambda: transformers.WhisperForAudioClassification(
            transformers.WhisperConfig(
                vocab_size=50,
                d_model=16,
                encoder_layers=3,
                encoder_attention_heads=2,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=1,
                decoder_start_token_id=1,
            )
        ),
        (
            "encoder",
            ["encoder.conv1", "encoder.conv2", "encoder.embed_positions"],
            "encoder.layers",
            ["encoder.layer_norm"],
            [],
            ["projector", "classifier"],
        ),
    ),
    "gpt2 for classification": (
        tiny_models.gpt2,
        (
            "transformer",
            ["transformer.wte", "transformer.wpe"],
            "transformer.h",
            ["transformer.ln_f"],
            [],
            ["score"],
        ),
    ),
    "gpt2 language model": (
        tiny_models.gpt2_lm,
        (
            "transformer",
            ["transformer.wte", "transformer.wpe"],
            "transformer.h",
            ["transformer.ln_f"],
            [],
            ["lm_head"],
        ),
    ),
    "llama": (
        lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(vocab_size=50, **{**SMALL, "num_labels": 2})
        ),
        ("model", ["model.embed_tokens"], "model.layers", ["model.norm"], [], ["lm_head"]),
    ),
    "timm vit": (
        tiny_models.timm_vit,
        ("", ["cls_token", "pos_embed", "patch_embed"], "blocks", ["norm"], [], ["head"]),
    ),
    "timm vit with average pooling": (
        lambda: tiny_models.timm_vit(global_pool="avg"),
        ("", ["cls_token", "pos_embed", "patch_embed"], "blocks", [], [], ["fc_norm", "head"]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_parts(case: str) -> None:
    build, (backbone, embeddings, block_list, final, pooler, head) = CASES[case]
    with torch.device("meta"):
        model = build()
    structure = find_structure(model)
    assert structure.backbone == backbone
    assert list(structure.embeddings) == list(embeddings)
    assert structure.blocks == tuple(f"{block_list}.{index}" for index in range(3))
    assert structure.block_list == block_list
    assert list(structure.final) == list(final)
    assert list(structure.pooler) == list(pooler)
    assert list(structure.head) == list(head)
    for name, _ in model.named_parameters(remove_duplicate=False):
        structure.part_of(name)  # every parameter belongs somewhere


def test_timm_distilled_model_has_two_heads() -> None:
    import timm

    with torch.device("meta"):
        model = timm.create_model("deit_tiny_distilled_patch16_224")
    structure = find_structure(model)
    assert structure.embeddings == ("cls_token", "pos_embed", "dist_token", "patch_embed")
    assert structure.head == ("head", "head_dist")
    assert structure.depth == 12


def test_albert_layers_share_one_block() -> None:
    with torch.device("meta"):
        model = transformers.AlbertForSequenceClassification(
            transformers.AlbertConfig(vocab_size=50, **{**SMALL, "num_hidden_layers": 12})
        )
    structure = find_structure(model)
    assert structure.depth == 1
    assert structure.blocks == ("albert.encoder.albert_layer_groups.0",)
    assert structure.embeddings == (
        "albert.embeddings",
        "albert.encoder.embedding_hidden_mapping_in",
    )
    assert structure.pooler == ("albert.pooler",)


def test_part_of() -> None:
    structure = find_structure(tiny_models.bert(num_hidden_layers=11))
    assert structure.part_of("bert.embeddings.LayerNorm.bias") == "embeddings"
    assert structure.part_of("bert.encoder.layer.1.output.dense.weight") == "block 1"
    assert structure.part_of("bert.encoder.layer.10.output.dense.weight") == "block 10"
    assert structure.part_of("bert.pooler.dense.weight") == "pooler"
    assert structure.part_of("module.classifier.weight") == "head"
    peft = "base_model.model."
    assert structure.part_of(f"{peft}classifier.modules_to_save.default.weight") == "head"
    layer = f"{peft}bert.encoder.layer.2.attention.self.query"
    assert structure.part_of(f"{layer}.base_layer.weight") == "block 2"
    assert structure.part_of(f"{layer}.lora_A.default.weight") == "adapter"
    with pytest.raises(ValueError, match=r"'vit\.embeddings\.cls_token' belongs to no part"):
        structure.part_of("vit.embeddings.cls_token")


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
            vocab_size=50, relative_attention=True, pos_att_type=["p2c", "c2p"], **SMALL
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


def test_two_stacks_of_blocks_are_not_guessed_at() -> None:
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2)
        )
    with pytest.raises(UserError, match=r"decoder\.block, encoder\.block"):
        find_structure(model)


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
