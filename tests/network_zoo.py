"""One tiny network of each architecture; structures.yaml says what its parts are."""

from collections.abc import Callable
from typing import Any

import timm
import torch
import transformers
from torch import Tensor, nn

BERT = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
LLAMA = BERT | {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 1}
GPT2 = {"vocab_size": 60, "n_positions": 40, "n_embd": 16, "n_layer": 3, "n_head": 2}
SPEECH: dict[str, Any] = {
    **{k: v for k, v in BERT.items() if k != "max_position_embeddings"},
    "conv_dim": (8, 8),
    "conv_kernel": (4, 4),
    "conv_stride": (4, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
}
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TWO_STAGES = {"depths": [2, 3], "embed_dim": 8, "num_heads": [1, 2], "window_size": 4}


def auto(task: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    """``task``: the end of an Auto class's name; ``config``: the start of a configuration's."""

    def build() -> nn.Module:
        made = getattr(transformers, f"{config}Config")(**settings)
        model: nn.Module = getattr(transformers, f"AutoModelFor{task}").from_config(made)
        return model

    return build


def of_class(config: str, task: str, **settings: Any) -> Callable[[], nn.Module]:
    """Of architectures that have two classes for a task."""
    made = getattr(transformers, f"{config}Config")
    kind = getattr(transformers, f"{config}For{task}")
    return lambda: kind(made(**settings))


def text(config: str, **settings: Any) -> Callable[[], nn.Module]:
    return auto("SequenceClassification", config, **settings)


def image(config: str, **settings: Any) -> Callable[[], nn.Module]:
    return auto("ImageClassification", config, **settings)


def language(config: str, **settings: Any) -> Callable[[], nn.Module]:
    return auto("CausalLM", config, **settings)


def sound(config: str, **settings: Any) -> Callable[[], nn.Module]:
    return auto("AudioClassification", config, **settings)


def of_timm(name: str, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=3, **settings)


def inputs_of(model: Any) -> dict[str, Tensor]:
    """Two samples of whatever the network reads."""
    generator = torch.Generator().manual_seed(0)
    name = getattr(model, "main_input_name", "x")
    if name in ("input_ids", "inputs"):
        return {name: torch.randint(3, 60, (2, 36), generator=generator)}
    if name in ("pixel_values", "x"):
        config = getattr(model, "config", None)
        size: Any = getattr(getattr(config, "vision_config", config), "image_size", None)
        if name == "x":
            size = getattr(getattr(model, "patch_embed", None), "img_size", None)
        size = size if isinstance(size, int) else size[0] if size else 64
        return {name: torch.randn(2, 3, size, size, generator=generator)}
    if name == "input_features":
        return {name: torch.randn(2, 80, 3000, generator=generator)}
    if hasattr(model.config, "num_mel_bins"):
        return {name: torch.randn(2, model.config.max_length, 16, generator=generator)}
    return {name: torch.randn(2, 640, generator=generator)}


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "bert": text("Bert", **BERT),
    "roberta": text("Roberta", **BERT),
    "xlm-roberta": text("XLMRoberta", **BERT),
    "camembert": text("Camembert", **BERT),
    "distilbert": text("DistilBert", vocab_size=60, dim=16, hidden_dim=32, n_layers=3, n_heads=2),
    "albert": text("Albert", **BERT, embedding_size=8),
    "albert of two layers a group": text(
        "Albert",
        **{**BERT, "num_hidden_layers": 4},
        embedding_size=8,
        num_hidden_groups=2,
        inner_group_num=2,
    ),
    "electra": text("Electra", **BERT, embedding_size=8),
    "deberta": text("Deberta", **BERT),
    "deberta-v2": text(
        "DebertaV2",
        **BERT,
        relative_attention=True,
        norm_rel_ebd="layer_norm",
        position_buckets=4,
        pos_att_type=["c2p", "p2c"],
        pooler_hidden_size=16,
    ),
    "mpnet": text("MPNet", **BERT),
    "mobilebert": text(
        "MobileBert",
        **{**BERT, "hidden_size": 16},
        embedding_size=16,
        intra_bottleneck_size=16,
        true_hidden_size=16,
    ),
    "squeezebert": text(
        "SqueezeBert",
        **{**BERT, "embedding_size": 16},
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=1,
        intermediate_groups=2,
        output_groups=2,
    ),
    "convbert": text("ConvBert", **BERT, embedding_size=16, head_ratio=2),
    "fnet": text("FNet", **{k: v for k, v in BERT.items() if k != "num_attention_heads"}),
    "bigbird": text("BigBird", **BERT, attention_type="original_full"),
    "longformer": text("Longformer", **BERT, attention_window=4),
    "funnel": text(
        "Funnel",
        vocab_size=60,
        block_sizes=[1, 2],
        d_model=16,
        n_head=2,
        d_head=8,
        d_inner=32,
        num_decoder_layers=1,
    ),
    "canine": text(
        "Canine", **BERT, num_hash_buckets=64, num_hash_functions=4, local_transformer_stride=32
    ),
    "ibert": text("IBert", **BERT),
    "modernbert": text("ModernBert", **BERT, global_attn_every_n_layers=2),
    "rembert": text("RemBert", **BERT, input_embedding_size=8, output_embedding_size=8),
    "xlnet": text("XLNet", vocab_size=60, d_model=16, n_layer=3, n_head=2, d_inner=32),
    "perceiver": text(
        "Perceiver",
        vocab_size=60,
        num_latents=4,
        d_latents=16,
        d_model=16,
        num_blocks=1,
        num_self_attends_per_block=3,
        num_self_attention_heads=2,
        num_cross_attention_heads=2,
        max_position_embeddings=40,
    ),
    "xlm": text(
        "XLM", vocab_size=60, emb_dim=16, n_layers=3, n_heads=2, max_position_embeddings=40
    ),
    "flaubert": text(
        "Flaubert", vocab_size=60, emb_dim=16, n_layers=3, n_heads=2, max_position_embeddings=40
    ),
    "gpt2": language("GPT2", **GPT2),
    "gpt_neo": language(
        "GPTNeo",
        vocab_size=60,
        max_position_embeddings=40,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
    ),
    "gptj": language("GPTJ", **GPT2, rotary_dim=4),
    "gpt_neox": language("GPTNeoX", **BERT),
    "opt": language(
        "OPT",
        **{k: v for k, v in BERT.items() if k != "intermediate_size"},
        ffn_dim=32,
        word_embed_proj_dim=16,
    ),
    "opt with projections": language(
        "OPT",
        **{k: v for k, v in BERT.items() if k != "intermediate_size"},
        ffn_dim=32,
        word_embed_proj_dim=8,
    ),
    "bloom": language("Bloom", vocab_size=60, hidden_size=16, n_layer=3, n_head=2),
    "falcon": language("Falcon", **BERT),
    "llama": language("Llama", **LLAMA),
    "mistral": language("Mistral", **LLAMA),
    "qwen2": language("Qwen2", **LLAMA),
    "gemma": language("Gemma", **LLAMA, head_dim=8),
    "phi": language("Phi", **LLAMA),
    "mixtral": language("Mixtral", **LLAMA, num_local_experts=4),
    "mamba": language("Mamba", vocab_size=60, hidden_size=16, num_hidden_layers=3, state_size=4),
    "lfm2": language("Lfm2", **LLAMA, layer_types=["conv", "full_attention", "conv"]),
    "llama for classification": text("Llama", **LLAMA),
    "vit": image("ViT", **VIT),
    "deit": of_class("DeiT", "ImageClassification", **VIT),
    "beit": image("Beit", **VIT),
    "dinov2": image("Dinov2", **VIT),
    "clip": image("CLIP", vision_config=VIT),
    "siglip": image("Siglip", vision_config=VIT),
    "swin": image("Swin", image_size=32, patch_size=4, **TWO_STAGES),
    "swinv2": image("Swinv2", image_size=32, patch_size=4, **TWO_STAGES),
    "pvt": image(
        "Pvt",
        image_size=64,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 2, 1, 2],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
    ),
    "pvt_v2": image(
        "PvtV2",
        image_size=64,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 2, 1, 2],
        num_attention_heads=[1, 1, 2, 2],
    ),
    "levit": of_class(
        "Levit",
        "ImageClassification",
        image_size=64,
        hidden_sizes=[8, 16, 16],
        depths=[1, 1, 1],
        num_attention_heads=[1, 2, 2],
        key_dim=[4, 4, 4],
    ),
    "mobilevit": image(
        "MobileViT",
        image_size=64,
        hidden_sizes=[8, 16, 16],
        neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16],
        num_attention_heads=2,
    ),
    "segformer": image(
        "Segformer",
        num_encoder_blocks=2,
        depths=[1, 2],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
    ),
    "cvt": image("Cvt"),
    "focalnet": image(
        "FocalNet",
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[1, 2],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
        hidden_sizes=[8, 16],
    ),
    "poolformer": image("PoolFormer", hidden_sizes=[8, 8, 16, 16], depths=[1, 2, 1, 1]),
    "hiera": image(
        "Hiera",
        image_size=[32, 32],
        embed_dim=8,
        depths=[1, 2],
        num_heads=[1, 2],
        query_stride=[2, 2],
        num_query_pool=1,
        masked_unit_size=[4, 4],
    ),
    "convnext": image("ConvNext", image_size=32, hidden_sizes=[8, 16], depths=[2, 1], num_stages=2),
    "resnet": image("ResNet", embedding_size=8, hidden_sizes=[16, 32], depths=[2, 1]),
    "regnet": image(
        "RegNet", embedding_size=8, hidden_sizes=[16, 32], depths=[2, 1], groups_width=8
    ),
    "bit": image("Bit", embedding_size=8, hidden_sizes=[32, 64], depths=[2, 1], num_groups=4),
    "efficientnet": image(
        "EfficientNet", image_size=32, width_coefficient=0.25, depth_coefficient=0.4, hidden_dim=320
    ),
    "mobilenet_v1": image("MobileNetV1", image_size=32, depth_multiplier=0.25),
    "wav2vec2": sound("Wav2Vec2", **SPEECH),
    "wav2vec2 stable": sound(
        "Wav2Vec2", **SPEECH, do_stable_layer_norm=True, feat_extract_norm="layer"
    ),
    "hubert": sound("Hubert", **SPEECH),
    "wavlm": sound("WavLM", **SPEECH),
    "unispeech": sound("UniSpeech", **SPEECH),
    "unispeech-sat": sound("UniSpeechSat", **SPEECH),
    "data2vec-audio": sound("Data2VecAudio", **SPEECH, conv_pos_kernel_size=3),
    "wav2vec2-conformer": sound(
        "Wav2Vec2Conformer", **SPEECH, conv_depthwise_kernel_size=3, position_embeddings_type=None
    ),
    "sew": sound("SEW", **SPEECH, squeeze_factor=2),
    "ast": sound(
        "AST",
        **{k: v for k, v in VIT.items() if "size" not in k or k == "hidden_size"},
        intermediate_size=32,
        max_length=64,
        num_mel_bins=16,
        patch_size=8,
    ),
    "whisper": sound(
        "Whisper",
        vocab_size=60,
        d_model=16,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=1,
    ),
    "timm vit": of_timm("vit_tiny_patch16_224", img_size=32, embed_dim=16, depth=3, num_heads=2),
    "timm deit distilled": of_timm(
        "deit_tiny_distilled_patch16_224", img_size=32, embed_dim=16, depth=3, num_heads=2
    ),
    "timm resnet18": of_timm("resnet18"),
    "timm resnet50": of_timm("resnet50"),
    "timm swin": of_timm(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=8,
        depths=(2, 3),
        num_heads=(1, 2),
    ),
    "timm convnext": of_timm("convnext_tiny", depths=(1, 2, 1, 1), dims=(8, 8, 16, 16)),
    "timm mixer": of_timm("mixer_s32_224", img_size=64),
    "timm efficientnet": of_timm("efficientnet_b0"),
    "timm pvt_v2": of_timm("pvt_v2_b0"),
    "timm twins": of_timm(
        "twins_svt_small",
        img_size=64,
        embed_dims=(8, 8, 16, 16),
        num_heads=(1, 1, 2, 2),
        depths=(1, 2, 1, 2),
        wss=(2, 2, 2, 2),
    ),
    "timm visformer": of_timm("visformer_tiny", img_size=64),
    "timm coat": of_timm("coat_tiny"),
    "timm edgenext": of_timm("edgenext_xx_small"),
    "timm cait": of_timm("cait_xxs24_224"),
    "t5": text("T5", vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2),
}
