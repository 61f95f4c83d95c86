"""Networks small enough for a test, with every source of randomness switched on."""

import timm
import torch
import transformers
from torch import nn

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 3,
}


def bert(**changes: object) -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=50, max_position_embeddings=12, **{**SMALL, **changes}
    )
    return transformers.BertForSequenceClassification(config)


def deberta() -> nn.Module:
    config = transformers.DebertaV2Config(
        vocab_size=50,
        max_position_embeddings=12,
        relative_attention=True,
        position_buckets=4,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        pooler_hidden_size=16,
        pooler_dropout=0.1,
        **SMALL,
    )
    return transformers.DebertaV2ForSequenceClassification(config)


def vit() -> nn.Module:
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.2,
        **SMALL,
    )
    return transformers.ViTForImageClassification(config)


def wav2vec2(**changes: object) -> nn.Module:
    """Masks, drops layers and uses dropout as pretraining does."""
    settings: dict[str, object] = {
        "conv_dim": (8, 8),
        "conv_kernel": (4, 4),
        "conv_stride": (4, 4),
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "classifier_proj_size": 8,
        "layerdrop": 0.5,
        "hidden_dropout": 0.2,
        "attention_dropout": 0.2,
        "activation_dropout": 0.2,
        "feat_proj_dropout": 0.2,
        "mask_time_prob": 0.5,
        "mask_time_length": 2,
        "mask_feature_prob": 0.5,
        "mask_feature_length": 2,
    }
    config = transformers.Wav2Vec2Config(**{**SMALL, **settings, **changes})
    return transformers.Wav2Vec2ForSequenceClassification(config)


def gpt2_config() -> transformers.GPT2Config:
    return transformers.GPT2Config(
        vocab_size=50,
        n_positions=12,
        n_embd=16,
        n_layer=3,
        n_head=2,
        num_labels=3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )


def gpt2() -> nn.Module:
    return transformers.GPT2ForSequenceClassification(gpt2_config())


def gpt2_lm() -> nn.Module:
    return transformers.GPT2LMHeadModel(gpt2_config())


def timm_vit(**changes: object) -> nn.Module:
    settings = {"img_size": 32, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 3}
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", **{**settings, **changes})
    return model


def batch_for(model: nn.Module) -> dict[str, torch.Tensor]:
    """Two samples with labels, of whatever the model reads."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 2])
    if "Wav2Vec2" in type(model).__name__:
        return {"input_values": torch.randn(2, 320, generator=generator), "labels": labels}
    if "ViT" in type(model).__name__:
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator), "labels": labels}
    tokens = torch.randint(2, 50, (2, 10), generator=generator)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
