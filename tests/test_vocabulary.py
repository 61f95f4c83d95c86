"""A tokenizer with more tokens than the model is refused; models without a table of them train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_runs import overrides

from hfbench.config import load_config
from hfbench.errors import UserError
from hfbench.models.vocabulary import check_vocabulary, known_tokens
from hfbench.run import run

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 72,
}


def canine(**changes: object) -> transformers.CanineConfig:
    settings: dict[str, object] = {
        "num_hash_buckets": 64,
        "num_hash_functions": 4,
        "local_transformer_stride": 32,
    }
    return transformers.CanineConfig(**{**SIZES, **settings, **changes})


def ibert(**changes: object) -> transformers.IBertConfig:
    return transformers.IBertConfig(**{"vocab_size": 300, **SIZES, **changes})


def perceiver() -> transformers.PerceiverConfig:
    return transformers.PerceiverConfig(
        vocab_size=262,
        num_latents=8,
        d_latents=16,
        d_model=16,
        num_blocks=1,
        num_self_attends_per_block=2,
        num_self_attention_heads=2,
        num_cross_attention_heads=2,
        max_position_embeddings=72,
    )


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (lambda: transformers.BertConfig(vocab_size=50, **SIZES), 50),
        (ibert, 300),  # a weight, and no num_embeddings
        (canine, None),  # get_input_embeddings raises: characters are hashed
        (perceiver, 262),  # get_input_embeddings gives its 8 latents
    ],
    ids=["bert", "ibert", "canine", "perceiver"],
)
def test_known_tokens(
    config: Callable[[], transformers.PreTrainedConfig], tokens: int | None
) -> None:
    with torch.device("meta"):
        model = transformers.AutoModelForSequenceClassification.from_config(config())
    assert known_tokens(model) == tokens
    check_vocabulary(model, tokens or 1_114_112, "here")
    if tokens is not None:
        with pytest.raises(UserError, match=rf"'here': its tokenizer has {tokens + 1} tokens"):
            check_vocabulary(model, tokens + 1, "here")


def saved(config: transformers.PreTrainedConfig, tokenizer: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    # Perceiver's bare network reads no tokens.
    whole = isinstance(config, transformers.PerceiverConfig)
    kind = "AutoModelForSequenceClassification" if whole else "AutoModel"
    getattr(transformers, kind).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def roberta_tokenizer(tiny_gpt2: Path) -> transformers.RobertaTokenizer:
    """Its own special tokens behind the 300 of the tiny GPT-2, its words' bytes before."""
    known = transformers.GPT2Tokenizer.from_pretrained(tiny_gpt2)
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = [token for token in known.get_vocab() if token != "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate([*specials, *words])}
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=64)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("ibert", "full"), ("canine", "full"), ("canine", "last_1"), ("perceiver", "head")],
)
def test_a_model_whose_embedding_counts_no_tokens_trains(
    name: str, strategy: str, tiny_gpt2: Path, texts: Path, tmp_path: Path, own_folders: None
) -> None:
    """I-BERT reads what RoBERTa reads, CANINE Unicode's characters, Perceiver bytes."""
    roberta = roberta_tokenizer(tiny_gpt2)
    config, tokenizer = {
        "ibert": (ibert(vocab_size=len(roberta), pad_token_id=1), roberta),
        "canine": (canine(), transformers.CanineTokenizer(model_max_length=64)),
        "perceiver": (perceiver(), transformers.PerceiverTokenizer(model_max_length=64)),
    }[name]
    checkpoint = saved(config, tokenizer, tmp_path / name)
    sources = overrides(checkpoint, texts, tmp_path / "run", f"strategy={strategy}")
    result = run(load_config(None, sources, task="text_classification"))
    assert result.status == "succeeded"
    assert result.steps == 12
    if name == "ibert":  # it asserts that no activation is NaN, which nobody knows in a trace
        assert result.not_predicted is not None
        assert "IBertForSequenceClassification" in result.not_predicted
