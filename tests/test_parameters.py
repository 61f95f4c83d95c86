"""Parameter counts, built from configuration values alone and exact to the last parameter."""

from collections.abc import Callable

import pytest
import tiny_models
import torch
import transformers
from torch import nn

from hfbench.config import parse_strategy
from hfbench.models.structure import find_structure
from hfbench.parameters import count_parameters
from hfbench.results import ParameterReport
from hfbench.strategies import apply_strategy

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
DEBERTA_V3_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "pooler_hidden_size": 768,
}
XLSR = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}


def bert(**values: object) -> nn.Module:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**values))


def roberta(**values: object) -> nn.Module:
    values = {"max_position_embeddings": 514, "type_vocab_size": 1, **values}
    # The vocabulary of RoBERTa's tokenizer; the class default is BERT's.
    config = transformers.RobertaConfig(vocab_size=50265, **values)
    return transformers.RobertaForSequenceClassification(config)


def vit(num_labels: int, **values: object) -> nn.Module:
    config = transformers.ViTConfig(num_labels=num_labels, **values)
    return transformers.ViTForImageClassification(config)


def deit(size: int, heads: int) -> nn.Module:
    """facebook/deit-*-patch16-224 are stored as ViT."""
    return vit(1000, hidden_size=size, num_attention_heads=heads, intermediate_size=4 * size)


def wav2vec2(**values: object) -> nn.Module:
    config = transformers.Wav2Vec2Config(num_labels=12, **values)
    return transformers.Wav2Vec2ForSequenceClassification(config)


def gpt2(**values: object) -> nn.Module:
    return transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**values))


CHECKPOINTS: dict[str, Callable[[], nn.Module]] = {
    "bert-base-uncased": bert,
    "bert-large-uncased": lambda: bert(**LARGE),
    "distilbert-base-uncased": lambda: transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig()
    ),
    "roberta-base": roberta,
    "roberta-large": lambda: roberta(**LARGE),
    "deberta-v3-base": lambda: transformers.DebertaV2ForSequenceClassification(
        transformers.DebertaV2Config(**DEBERTA_V3_BASE)
    ),
    "vit-base-patch16-224": lambda: vit(1000),
    "vit-base-patch16-224-in21k": lambda: vit(10),
    "vit-large-patch16-224": lambda: vit(10, **LARGE),
    "deit-tiny-patch16-224": lambda: deit(192, 3),
    "deit-small-patch16-224": lambda: deit(384, 6),
    "wav2vec2-base": wav2vec2,
    "wav2vec2-large": lambda: wav2vec2(**LARGE),
    "wav2vec2-large-xlsr-53": lambda: wav2vec2(**LARGE, **XLSR),
    "hubert-base-ls960": lambda: transformers.HubertForSequenceClassification(
        transformers.HubertConfig(num_labels=12)
    ),
    "gpt2": gpt2,
    "gpt2-medium": lambda: gpt2(n_embd=1024, n_layer=24, n_head=16),
}

# Total, then the trainable parameters of each strategy.
STRATEGIES = [
    "full",
    "head",
    "last_1",
    "last_2",
    "last_4",
    "last_6",
    "lora:r=8",
    "lora:r=8,targets=all_linear",
    "bitfit",
]
TABLE = """
bert-base-uncased 109483778 1538 7089410 14177282 28353026 42528770 296450 1328642 104450
bert-large-uncased 335143938 2050 12598274 25194498 50386946 75579394 788482 3540994 274434
distilbert-base-uncased 66955010 592130 7680002 14767874 28943618 43119362 739586 1255682 643586
roberta-base 124647170 592130 7680002 14767874 28943618 43119362 887042 1919234 694274
roberta-large 355361794 1051650 13647874 26244098 51436546 76628994 1838082 4590594 1323010
deberta-v3-base 184423682 592130 7680002 14767874 28943618 43119362 887042 1919234 695042
vit-base-patch16-224 86567656 769000 7856872 14944744 29120488 43296232 1063912 2096104 871912
vit-base-patch16-224-in21k 85806346 7690 7095562 14183434 28359178 42534922 302602 1334794 110602
vit-large-patch16-224 303311882 10250 12606474 25202698 50395146 75587594 796682 3549194 282634
deit-tiny-patch16-224 5717416 193000 637864 1082728 1972456 2862184 266728 524776 218728
deit-small-patch16-224 22050664 385000 2159464 3933928 7482856 11031784 532456 1048552 436456
wav2vec2-base 94571660 199948 7287820 14375692 28551436 42727180 494860 1527052 304652
wav2vec2-large 315694476 265484 12861708 25457932 50650380 75842828 1051916 3804428 539916
wav2vec2-large-xlsr-53 315704204 265484 12861708 25457932 50650380 75842828 1051916 3804428 546572
hubert-base-ls960 94571660 199948 7287820 14375692 28551436 42727180 494860 1527052 304652
gpt2 124441344 1536 7089408 14177280 28353024 42528768 296448 1181184 103680
gpt2-medium 354825216 2048 12598272 25194496 50386944 75579392 788480 3147776 273408
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]


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


def test_the_table_is_complete() -> None:
    assert [name for name, *_ in ROWS] == list(CHECKPOINTS)
    assert len(ROWS) == 17
    assert all(len(counts) == len(STRATEGIES) == 9 for _, *counts in ROWS)


@pytest.mark.parametrize(("checkpoint", "counts"), [(name, counts) for name, *counts in ROWS])
def test_counts_from_configuration_alone(checkpoint: str, counts: list[str]) -> None:
    with torch.device("meta"):
        model = CHECKPOINTS[checkpoint]()
    structure = find_structure(model)
    total = int(counts[0])
    found = []
    for strategy in STRATEGIES:
        if strategy.startswith("lora"):
            report = report_of(CHECKPOINTS[checkpoint], strategy)
            adapter, adapter_trainable = rows(report.by_depth)["adapter"]
            assert adapter == adapter_trainable
            assert report.total == total + adapter
        else:
            apply_strategy(model, structure, parse_strategy(strategy))
            report = count_parameters(model, structure)
            assert report.total == total
        found.append(report.trainable)
    assert found == [int(count) for count in counts]


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


def test_llama_of_126_layers() -> None:
    def build() -> nn.Module:
        config = transformers.LlamaConfig(
            vocab_size=128256,
            hidden_size=16384,
            intermediate_size=53248,
            num_hidden_layers=126,
            num_attention_heads=128,
            num_key_value_heads=8,
        )
        return transformers.LlamaForCausalLM(config)

    assert report_of(build, "full").total == 405_853_388_800
