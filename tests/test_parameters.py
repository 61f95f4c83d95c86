"""Parameter counts, built from configuration values alone and exact to the last parameter."""

from collections.abc import Callable

import tiny_models
import torch
import transformers
from torch import nn

from hfbench.config import parse_strategy
from hfbench.models.structure import find_structure
from hfbench.parameters import count_parameters
from hfbench.results import ParameterReport
from hfbench.strategies import apply_strategy


def report_of(build: Callable[[], nn.Module], strategy: str) -> ParameterReport:
    """The report of a fresh model on the meta device."""
    with torch.device("meta"):
        model = build()
        structure = find_structure(model)
        return count_parameters(
            apply_strategy(model, structure, parse_strategy(strategy)), structure
        )


def rows(report_rows: object) -> dict[str, tuple[int, int]]:
    return {row.name: (row.total, row.trainable) for row in report_rows}  # type: ignore[attr-defined]


def test_rows_of_a_tiny_bert() -> None:
    # 16 wide, 32 inside, 3 blocks, vocabulary 50, 12 positions, 2 token types, 3 labels.
    embedding = (50 + 12 + 2) * 16
    norm = 2 * 16
    attention = 4 * (16 * 16 + 16)
    feed_forward = (16 * 32 + 32) + (32 * 16 + 16)
    block = attention + feed_forward + 2 * norm
    pooler = 16 * 16 + 16
    head = 16 * 3 + 3

    report = report_of(tiny_models.bert, "last_2")

    assert rows(report.by_depth) == {
        "embeddings": (embedding + norm, 0),
        "block 0": (block, 0),
        "block 1": (block, block),
        "block 2": (block, block),
        "pooler": (pooler, 0),
        "head": (head, head),
    }
    assert list(rows(report.by_depth)) == [
        "embeddings",
        "block 0",
        "block 1",
        "block 2",
        "pooler",
        "head",
    ]
    assert rows(report.by_layer_type) == {
        "embedding": (embedding, 0),
        "linear": (3 * feed_forward + pooler, 2 * feed_forward),
        "convolution": (0, 0),
        "attention": (3 * attention, 2 * attention),
        "norm": (7 * norm, 4 * norm),
        "other": (0, 0),
        "head": (head, head),
        "adapter": (0, 0),
        "dropout": (0, 0),
        "activation": (0, 0),
    }
    assert report.total == embedding + norm + 3 * block + pooler + head
    assert report.trainable == 2 * block + head
    assert report.frozen == report.total - report.trainable
    assert report.buffers == 2 * 12  # position and token type ids of 12 positions


def test_lora_counts_a_trained_head_once() -> None:
    report = report_of(tiny_models.bert, "lora:r=2,targets=attention,last_n=1")
    adapter = 4 * (2 * 16 + 16 * 2)  # query, key, value and output of one block
    head = 16 * 3 + 3
    assert rows(report.by_depth)["adapter"] == (adapter, adapter)
    assert rows(report.by_depth)["head"] == (head, head)
    assert rows(report.by_layer_type)["head"] == (head, head)
    assert report.trainable == adapter + head
    assert report.total == report_of(tiny_models.bert, "head").total + adapter


def test_kinds_of_layer_of_wav2vec2() -> None:
    # Two convolutions of 8 channels and kernel 4 without bias; positions: kernel 4 in 2 groups,
    # weight-normed over its last dimension; projection 8 to 16.
    convolutions = 1 * 8 * 4 + 8 * 8 * 4
    positions = 16 * (16 // 2) * 4 + 4 + 16
    norms = 2 * 8 + 2 * 8 + 2 * 16 + 3 * (2 * 2 * 16)
    projection = 8 * 16 + 16
    feed_forward = (16 * 32 + 32) + (32 * 16 + 16)
    layer_types = rows(report_of(tiny_models.wav2vec2, "head").by_layer_type)
    assert layer_types["convolution"] == (convolutions + positions, 0)
    assert layer_types["embedding"] == (16, 0)  # what stands for a masked frame
    assert layer_types["norm"] == (norms, 0)
    assert layer_types["linear"] == (projection + 3 * feed_forward, 0)
    assert layer_types["head"] == ((16 * 8 + 8) + (8 * 3 + 3),) * 2


def test_class_token_and_positions_are_embeddings() -> None:
    for build in (tiny_models.vit, lambda: tiny_models.timm_vit(img_size=8, patch_size=4)):
        layer_types = rows(report_of(build, "head").by_layer_type)
        assert layer_types["embedding"] == (16 + 5 * 16, 0)  # class token, 1 + 4 positions
        assert layer_types["convolution"] == (3 * 4 * 4 * 16 + 16, 0)
        assert layer_types["attention"] == (3 * 4 * (16 * 16 + 16), 0)


def test_tied_output_layer_of_gpt2_counts_at_its_embedding() -> None:
    report = report_of(lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config()), "full")
    assert report.total == 124_439_808
    assert "head" not in rows(report.by_depth)
    assert rows(report.by_depth)["embeddings"] == ((50257 + 1024) * 768,) * 2


def test_untied_output_layer_is_a_head() -> None:
    def build() -> nn.Module:
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(tie_word_embeddings=False, n_layer=2)
        )

    assert rows(report_of(build, "head").by_depth)["head"] == (50257 * 768,) * 2
