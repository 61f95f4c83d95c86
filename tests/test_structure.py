"""The parts of a network are found from its module tree, whatever its layers are called."""

from collections.abc import Callable, Sequence

import pytest
import tiny_models
import torch
import transformers
from torch import nn

from hfbench.errors import UserError
from hfbench.models.structure import find_structure

SMALL = tiny_models.SMALL
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
    assert structure.block_lists == (block_list,)
    assert not any(structure.between)
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


def test_two_stacks_of_blocks_are_not_guessed_at() -> None:
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2)
        )
    with pytest.raises(UserError, match=r"decoder\.block, encoder\.block"):
        find_structure(model)
