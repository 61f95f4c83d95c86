"""How well a causal language model predicts tokens: sums over tokens, divided once."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hfbench.data.tokens import IGNORED


def predicted_tokens(batch: Mapping[str, Tensor]) -> int:
    """Labels behind the first position: transformers' loss is a mean over these."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def token_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """(batch, 3), float32: summed loss in nats, predicted tokens, how many of these were right.

    logits: (batch, tokens, vocabulary); labels: (batch, tokens), IGNORED if not to be predicted.
    """
    logits, labels = logits.detach()[:, :-1], labels[:, 1:]
    losses = functional.cross_entropy(
        logits.transpose(1, 2).float(), labels, ignore_index=IGNORED, reduction="none"
    )
    real = labels != IGNORED
    right = (logits.argmax(-1) == labels) & real
    return torch.stack([losses.sum(1), real.sum(1).float(), right.sum(1).float()], dim=1)


def token_bytes(tokenizer: Any) -> npt.NDArray[np.int64] | None:
    """(vocabulary,): the UTF-8 bytes that each token stands for; 0 for special tokens.

    Of byte-level tokenizers (GPT-2, Llama 3) exactly, of those that write spaces as ▁ and rare
    bytes as <0x0A> (Llama 2) but for the space before a text. None for other kinds, and for those
    written in Python, which do not say how they decode.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    decoder = str(backend.decoder)
    byte_level = "ByteLevel" in decoder
    if not byte_level and "▁" not in decoder:
        return None
    vocabulary = tokenizer.get_vocab()
    sizes = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for token, index in vocabulary.items():
        if byte_level:  # it writes each byte as one character
            sizes[index] = len(token)
        else:
            is_byte = re.fullmatch("<0x[0-9A-F]{2}>", token) is not None
            sizes[index] = 1 if is_byte else len(token.replace("▁", " ").encode())
    sizes[tokenizer.all_special_ids] = 0
    return sizes


def language_metrics(
    scores: npt.NDArray[np.floating[Any]], num_bytes: int | None
) -> dict[str, float]:
    """Of ``token_scores`` of a whole split (samples, 3) and the UTF-8 bytes that were predicted.

    ``perplexity`` = exp(nats / tokens); ``bits_per_byte`` = nats / ln 2 / bytes, by which models
    with different tokenizers compare, is left out where the bytes are not known.
    """
    nats, tokens, right = scores.sum(axis=0, dtype=np.float64).tolist()
    metrics = {"perplexity": float(np.exp(nats / tokens)), "token_accuracy": right / tokens}
    if num_bytes is not None:
        metrics["bits_per_byte"] = nats / np.log(2).item() / num_bytes
    return metrics
