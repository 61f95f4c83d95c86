"""Every architecture of transformers that classifies texts, small enough for a test."""

from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES,
)

TOKENS = 50
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size")
_INNER = ("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner", "dff")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads")
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")
_SMALL = {
    **dict.fromkeys((*_WIDTHS, "word_embed_proj_dim", "moe_intermediate_size"), 16),
    **dict.fromkeys((*_INNER, "hidden_dim", "d_inner", "ffn_dim"), 32),
    **dict.fromkeys((*_LAYERS, "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys((*_HEADS, "encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("head_dim", "d_head", "d_kv"), 8),
    **dict.fromkeys(("num_local_experts", "num_experts"), 4),
    **dict.fromkeys((*_POSITIONS, "max_encoder_position_embeddings"), 64),
    "num_experts_per_tok": 2,
    "vocab_size": TOKENS,
}
_OWN: dict[str, dict[str, Any]] = {
    "canine": {
        "local_transformer_stride": 4,
        "downsampling_rate": 2,
        "num_hash_buckets": 64,
        "num_hash_functions": 2,
        **{
            f"attend_{way}_chunk_{size}": 8
            for way in ("from", "to")
            for size in ("width", "stride")
        },
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gptj": {"rotary_dim": 4},
    "deepseek_v3": {
        "head_dim": None,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "qwen3_next": {"num_hidden_layers": 4},
    "qwen3_5_text": {"num_hidden_layers": 4},
    "lilt": {"hidden_size": 48, "num_attention_heads": 2},
    "layoutlmv3": {"coordinate_size": 2, "shape_size": 4},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "zamba": {"layer_types": ["mamba", "hybrid", "hybrid"], "num_hidden_layers": 3},
    "longformer": {"attention_window": [4, 4]},
    "perceiver": {
        "d_latents": 16,
        "num_latents": 8,
        "num_blocks": 1,
        "num_self_attends_per_block": 2,
    },
    "reformer": {
        "axial_pos_embds": False,
        "attention_head_size": 8,
        "attn_layers": ["local", "lsh"],
        "feed_forward_size": 32,
        "num_buckets": 2,
        "lsh_attn_chunk_length": 4,
        "local_attn_chunk_length": 4,
        "hash_seed": 0,
    },
    "t5": {"decoder_start_token_id": 0},
    "xmod": {"default_language": "en_XX"},
}
_UNLIKE = {"falcon": "head_dim", "funnel": "num_hidden_layers", "xlnet": "max_position_embeddings"}
LEFT_OUT = {
    "axk1": "the sizes of its heads have no small values that fit",
    "cohere_compass_text": "its configuration has no default that can be built",
    "gemma3": "reads images, too",
    "layoutlmv2": "needs detectron2",
    "mistral4": "the sizes of its heads have no small values that fit",
    "modernvbert": "reads images, too",
    "qwen3_5": "reads images, too",
    "t5gemma": "has configurations in its configuration, all of them large",
    "t5gemma2": "reads images, too",
    "ultravbert": "reads images, too",
    "zamba2": "shares blocks that a small number of layers does not have",
}
ARCHITECTURES = tuple(name for name in CLASSES if name not in LEFT_OUT)


def build(
    architecture: str, head: Any = AutoModelForSequenceClassification, **changes: Any
) -> nn.Module:
    """Random weights large enough for texts to differ in their logits; in eval mode, 3 labels."""
    kind: Any = CONFIG_MAPPING[architecture]
    usual = kind()
    sizes = {key: value for key, value in _SMALL.items() if hasattr(usual, key)}
    sizes.pop(_UNLIKE.get(architecture, ""), None)
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = kind(**(sizes | tokens | {"num_labels": 3} | _OWN.get(architecture, {}) | changes))
    torch.manual_seed(0)
    model: nn.Module = head.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    return model.eval()
