"""Configurations of well-known checkpoints, so that counting them needs no network.

Facts only: the model type and the values that differ from the defaults of its configuration
class in transformers and change the shape of a parameter or whether there is one. ``num_labels``
is there where the checkpoint itself has a head for that many.
"""

from collections.abc import Mapping
from typing import Any

_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_ROBERTA = {
    "model_type": "roberta",
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
}
_XLM_ROBERTA = {**_ROBERTA, "model_type": "xlm-roberta", "vocab_size": 250002}
_DEBERTA_V3 = {
    "model_type": "deberta-v2",
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
_DEBERTA_V3_BASE = {
    **_DEBERTA_V3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "pooler_hidden_size": 768,
}
# The large speech models but the first: norms and biases in every convolution, norms before layers.
_STABLE = {**_LARGE, "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
_DEIT_TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
_DEIT_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}

CATALOGUE: Mapping[str, Mapping[str, Any]] = {
    "google-bert/bert-base-uncased": {"model_type": "bert"},
    "google-bert/bert-base-cased": {"model_type": "bert", "vocab_size": 28996},
    "google-bert/bert-large-uncased": {"model_type": "bert", **_LARGE},
    "google-bert/bert-base-multilingual-cased": {"model_type": "bert", "vocab_size": 119547},
    "google-bert/bert-base-chinese": {"model_type": "bert", "vocab_size": 21128},
    "distilbert/distilbert-base-uncased": {"model_type": "distilbert"},
    "distilbert/distilbert-base-multilingual-cased": {
        "model_type": "distilbert",
        "vocab_size": 119547,
    },
    "FacebookAI/roberta-base": _ROBERTA,
    "FacebookAI/roberta-large": {**_ROBERTA, **_LARGE},
    "distilbert/distilroberta-base": {**_ROBERTA, "num_hidden_layers": 6},
    "FacebookAI/xlm-roberta-base": _XLM_ROBERTA,
    "FacebookAI/xlm-roberta-large": {**_XLM_ROBERTA, **_LARGE},
    "microsoft/deberta-v3-base": _DEBERTA_V3_BASE,
    "microsoft/deberta-v3-small": {**_DEBERTA_V3_BASE, "num_hidden_layers": 6},
    "microsoft/deberta-v3-large": {
        **_DEBERTA_V3,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "pooler_hidden_size": 1024,
    },
    "albert/albert-base-v2": {
        "model_type": "albert",
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    "google/electra-small-discriminator": {"model_type": "electra"},
    "google/electra-base-discriminator": {
        "model_type": "electra",
        "embedding_size": 768,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    "google/vit-base-patch16-224": {"model_type": "vit", "num_labels": 1000},
    "google/vit-base-patch16-224-in21k": {"model_type": "vit"},
    "google/vit-large-patch16-224": {"model_type": "vit", "num_labels": 1000, **_LARGE},
    "facebook/deit-tiny-patch16-224": {"model_type": "vit", "num_labels": 1000, **_DEIT_TINY},
    "facebook/deit-small-patch16-224": {"model_type": "vit", "num_labels": 1000, **_DEIT_SMALL},
    "facebook/deit-base-patch16-224": {"model_type": "vit", "num_labels": 1000},
    "facebook/wav2vec2-base": {"model_type": "wav2vec2"},
    "facebook/wav2vec2-base-960h": {"model_type": "wav2vec2"},
    "facebook/wav2vec2-large": {"model_type": "wav2vec2", **_LARGE},
    "facebook/wav2vec2-large-960h": {"model_type": "wav2vec2", **_LARGE},
    "facebook/wav2vec2-large-xlsr-53": {"model_type": "wav2vec2", **_STABLE},
    "facebook/hubert-base-ls960": {"model_type": "hubert"},
    "facebook/hubert-large-ll60k": {"model_type": "hubert", **_STABLE},
    "microsoft/wavlm-base-plus": {"model_type": "wavlm"},
    "MIT/ast-finetuned-audioset-10-10-0.4593": {
        "model_type": "audio-spectrogram-transformer",
        "num_labels": 527,
    },
    "openai-community/gpt2": {"model_type": "gpt2"},
    "openai-community/gpt2-medium": {
        "model_type": "gpt2",
        "n_embd": 1024,
        "n_layer": 24,
        "n_head": 16,
    },
    "openai-community/gpt2-large": {
        "model_type": "gpt2",
        "n_embd": 1280,
        "n_layer": 36,
        "n_head": 20,
    },
    "openai-community/gpt2-xl": {
        "model_type": "gpt2",
        "n_embd": 1600,
        "n_layer": 48,
        "n_head": 25,
    },
    "distilbert/distilgpt2": {"model_type": "gpt2", "n_layer": 6},
}


def catalogue_entry(checkpoint: str) -> tuple[str, dict[str, Any]] | None:
    """Hub name and configuration values of a checkpoint; None for one that is not listed.

    ``checkpoint`` must match a hub name exactly, with its owner or without (``gpt2``).
    """
    for name, values in CATALOGUE.items():
        if checkpoint in (name, name.rpartition("/")[2]):
            return name, dict(values)
    return None
