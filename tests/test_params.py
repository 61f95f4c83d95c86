"""``hfbench params``: exact counts from configurations alone, in four formats."""

import csv
import io
import json
from pathlib import Path

import pytest
from counting import counts, write_config
from snapshot_check import assert_snapshot
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hfbench.cli import main
from hfbench.config import StrategyConfig, parse_strategy
from hfbench.errors import UserError
from hfbench.models.catalogue import CATALOGUE, catalogue_entry
from hfbench.report.depth_plot import draw_over_depth

pytestmark = pytest.mark.usefixtures("own_cache")

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
LORA = "lora:r=8,targets=attention_qv"

# The table's short names of hub checkpoints, and its numbers of labels.
CHECKPOINTS = {
    "bert-base-uncased": ("google-bert/bert-base-uncased", 2),
    "bert-large-uncased": ("google-bert/bert-large-uncased", 2),
    "distilbert-base-uncased": ("distilbert/distilbert-base-uncased", 2),
    "roberta-base": ("FacebookAI/roberta-base", 2),
    "roberta-large": ("FacebookAI/roberta-large", 2),
    "deberta-v3-base": ("microsoft/deberta-v3-base", 2),
    "vit-base-patch16-224": ("google/vit-base-patch16-224", 1000),
    "vit-base-patch16-224-in21k": ("google/vit-base-patch16-224-in21k", 10),
    "vit-large-patch16-224": ("google/vit-large-patch16-224", 10),
    "deit-tiny-patch16-224": ("facebook/deit-tiny-patch16-224", 1000),
    "deit-small-patch16-224": ("facebook/deit-small-patch16-224", 1000),
    "wav2vec2-base": ("facebook/wav2vec2-base", 12),
    "wav2vec2-large": ("facebook/wav2vec2-large", 12),
    "wav2vec2-large-xlsr-53": ("facebook/wav2vec2-large-xlsr-53", 12),
    "hubert-base-ls960": ("facebook/hubert-base-ls960", 12),
    "gpt2": ("openai-community/gpt2", 2),
    "gpt2-medium": ("openai-community/gpt2-medium", 2),
}
# Published sizes of the backbones, without any head.
BACKBONES = {
    "google-bert/bert-base-cased": 108_310_272,
    "google-bert/bert-base-multilingual-cased": 177_853_440,
    "google-bert/bert-base-chinese": 102_267_648,
    "distilbert/distilbert-base-multilingual-cased": 134_734_080,
    "microsoft/deberta-v3-small": 141_304_320,
    "microsoft/deberta-v3-large": 434_012_160,
    "albert/albert-base-v2": 11_683_584,
    "google/electra-base-discriminator": 108_891_648,
    # RoBERTa's classifier takes the place of its pooler (a linear layer of 768 by 768).
    "distilbert/distilroberta-base": 82_118_400 - (768 * 768 + 768),
    "FacebookAI/xlm-roberta-base": 278_043_648 - (768 * 768 + 768),
    "FacebookAI/xlm-roberta-large": 559_890_432 - (1024 * 1024 + 1024),
    "facebook/deit-base-patch16-224": 86_567_656 - 1000 * (768 + 1),
    "facebook/hubert-large-ll60k": 315_438_720,
    "microsoft/wavlm-base-plus": 94_381_936,
    "openai-community/gpt2-large": 774_030_080,
    "openai-community/gpt2-xl": 1_557_611_200,
    "distilbert/distilgpt2": 81_912_576,
}
LLAMA_405B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_hidden_layers": 126,
    "num_attention_heads": 128,
    "num_key_value_heads": 8,
}


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["params", *arguments]) == 0
    return capsys.readouterr().out


def test_the_table_is_complete() -> None:
    assert [name for name, *_ in ROWS] == list(CHECKPOINTS)
    assert len(ROWS) == 17
    assert all(len(numbers) == len(STRATEGIES) == 9 for _, *numbers in ROWS)


@pytest.mark.parametrize(("name", "numbers"), [(name, numbers) for name, *numbers in ROWS])
def test_counts_of_the_catalogue(name: str, numbers: list[str]) -> None:
    checkpoint, num_labels = CHECKPOINTS[name]
    found = counts(checkpoint, *STRATEGIES, num_labels=num_labels)
    assert [str(one.report.trainable) for one in found.strategies] == numbers
    for one in found.strategies:
        assert one.report.total - one.adapter_total == int(numbers[0])
        assert sum(one.trainable_over_depth().values()) == one.report.trainable


@pytest.mark.parametrize(("checkpoint", "size"), BACKBONES.items())
def test_backbones_of_the_catalogue_have_their_published_size(checkpoint: str, size: int) -> None:
    (full,) = counts(checkpoint, "full").strategies
    (head,) = (row.total for row in full.report.by_depth if row.name == "head")
    assert full.report.total - head == size


def test_the_catalogue_holds_only_what_differs_from_the_defaults() -> None:
    assert len(CATALOGUE) >= 20
    for name, values in CATALOGUE.items():
        default = CONFIG_MAPPING[values["model_type"]]()
        same = [
            key
            for key, value in values.items()
            if key != "model_type" and value == getattr(default, key, None)
        ]
        assert same == [], name


def test_the_catalogue_is_matched_exactly_with_and_without_the_owner() -> None:
    assert catalogue_entry("gpt2") == catalogue_entry("openai-community/gpt2")
    assert catalogue_entry("someone/gpt2") is None
    assert catalogue_entry("GPT2") is None
    short_names = [name.rpartition("/")[2] for name in CATALOGUE]
    assert len(set(short_names)) == len(short_names)


def test_the_tied_output_layer_of_gpt2_is_counted_once() -> None:
    found = counts("gpt2", task="causal_lm")
    assert {one.report.total - one.adapter_total for one in found.strategies} == {124_439_808}
    assert found.num_labels is None
    labels = [one.strategy for one in found.strategies]
    assert labels == ["full", "last_2", LORA, "bitfit"]  # no head of its own, so none to train
    with pytest.raises(UserError, match="'head' trains nothing"):
        counts("gpt2", "head", task="causal_lm")


def test_llama_of_405_billion_parameters(tmp_path: Path) -> None:
    path = write_config(tmp_path, **LLAMA_405B)
    found = counts(path, "full", "first_2", "lora:r=8,targets=all_linear", task="causal_lm")
    full, first_2, lora = found.strategies
    assert full.report.trainable == 405_853_388_800
    # Attention with 8 of 128 key heads, a gated feed-forward layer, two norms.
    width, inner = 16384, 53248
    block = 2 * width * width + 2 * width * width // 16 + 3 * width * inner + 2 * width
    head = 128256 * width
    assert first_2.report.trainable == 2 * block + head
    into_and_out_of = 2 * (width + width) + 2 * (width + width // 16) + 3 * (width + inner)
    assert lora.adapter_total == 126 * 8 * into_and_out_of
    assert lora.adapters == {f"block {i}": 8 * into_and_out_of for i in range(126)}


def test_adapters_leave_a_pretrained_output_layer_frozen(tmp_path: Path) -> None:
    """Llama 2 7B, whose output layer of 32,000 x 4,096 is not tied to its embeddings."""
    llama = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008}
    llama |= {"num_hidden_layers": 32, "num_attention_heads": 32}
    path = write_config(tmp_path, model_type="llama", **llama)
    names = ("lora:r=8", "norm", "attention", "last_1")
    lora, norm, attention, last_1 = counts(path, *names, task="causal_lm").strategies
    assert lora.report.trainable == 32 * 2 * 8 * (4096 + 4096) == 4_194_304
    assert norm.report.trainable == (2 * 32 + 1) * 4096
    assert attention.report.trainable == 32 * 4 * 4096 * 4096
    block = 4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096
    assert last_1.report.trainable == block + 32000 * 4096  # head and the last block
    classifier = counts(path, "lora:r=8", task="text_classification", num_labels=2).strategies[0]
    assert classifier.report.trainable == 4_194_304 + 2 * 4096  # a new head trains


def test_defaults_suit_a_network_of_one_shared_block() -> None:
    labels = [one.strategy for one in counts("albert-base-v2").strategies]
    assert labels == ["full", "head", "last_1", LORA, "bitfit"]


def test_the_audio_spectrogram_transformer() -> None:
    name = "MIT/ast-finetuned-audioset-10-10-0.4593"
    (full,) = counts(name, "full").strategies
    # Patches of 16 x 16 every 10 steps: (1024 - 16) // 10 + 1 in time, (128 - 16) // 10 + 1 in
    # frequency, and two tokens.
    embeddings = (16 * 16 + 1) * 768 + (101 * 12 + 2 + 2) * 768
    block = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 2 * 2 * 768
    norms = 2 * 2 * 768
    assert full.report.total == embeddings + 12 * block + norms + 527 * (768 + 1)


def test_the_small_electra() -> None:
    (full,) = counts("google/electra-small-discriminator", "full").strategies
    embeddings = (30522 + 512 + 2) * 128 + 2 * 128 + (128 * 256 + 256)
    attention = 4 * (256 * 256 + 256)
    block = attention + (256 * 1024 + 1024) + (1024 * 256 + 256) + 2 * 2 * 256
    head = (256 * 256 + 256) + 2 * (256 + 1)
    assert full.report.total == embeddings + 12 * block + head


def test_json_has_the_promised_form(capsys: pytest.CaptureFixture[str]) -> None:
    strategies = "full,head,last_2,first_2,bitfit,lora,lora:r=4,targets=all_linear"
    arguments = ["bert-base-uncased", "--strategies", strategies, "--format", "json"]
    values = json.loads(printed(arguments, capsys))
    assert list(values) == ["checkpoint", "num_labels", "strategies"]
    assert (values["checkpoint"], values["num_labels"]) == ("bert-base-uncased", 2)
    assert [one["strategy"] for one in values["strategies"]] == [
        "full",
        "head",
        "last_2",
        "first_2",
        "bitfit",
        "lora:r=8,targets=attention_qv",
        "lora:r=4,targets=all_linear",
    ]
    for one in values["strategies"]:
        assert list(one)[1:] == [
            "total_parameters",
            "trainable_parameters",
            "frozen_parameters",
            "by_depth",
            "by_layer_type",
        ]
        for rows in (one["by_depth"], one["by_layer_type"]):
            for kind in ("total", "trainable", "frozen"):
                assert sum(row[kind] for row in rows) == one[f"{kind}_parameters"]
    last_2 = values["strategies"][2]
    assert last_2["by_depth"][12] == {
        "name": "block 11",
        "total": 7_087_872,
        "trainable": 7_087_872,
        "frozen": 0,
    }


def test_csv_is_one_table_and_notes_go_to_the_other_stream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["vit-base-patch16-224", "--strategies", "head,last_2", "--format", "csv"]
    assert main(["params", *arguments]) == 0
    output = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(output.out)))
    sums = {row["strategy"]: row["trainable_parameters"] for row in rows if row["group"] == "all"}
    assert sums == {"head": "769000", "last_2": "14944744"}
    for group in ("depth", "layer_type"):
        chosen = [row for row in rows if (row["group"], row["strategy"]) == (group, "last_2")]
        assert sum(int(row["trainable_parameters"]) for row in chosen) == 14_944_744
    assert {row["num_labels"] for row in rows} == {"1000"}
    assert "Configuration: the built-in catalogue" in output.err


@pytest.mark.parametrize("style", ["table", "markdown", "csv"])
def test_formats_look_as_before(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    strategies = ["--strategies", "full,head,last_2,lora:r=8,targets=all_linear,bitfit"]
    text = printed(["wav2vec2-base", "--num-labels", "12", *strategies, "--format", style], capsys)
    assert_snapshot(text, f"params_{style}.txt")


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_tables_set_strategies_side_by_side(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["bert-base-uncased", "--format", style], capsys)
    cells = [line.replace("|", " ").split() for line in text.splitlines()]
    assert ["last_2", "109,483,778", "14,177,282", "95,306,496", "12.95"] in cells
    assert ["head", "1,538", *["1,538"] * 5] in cells
    assert ["adapter", "-", "-", "-", "-", "294,912", "-"] in cells
    if style == "table":
        assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere/at-all"], "'/nowhere/at-all' does not exist"),
        (["bundled/bert-huge"], "'bundled/bert-huge' is not bundled"),
        (["timm/vit_bas_patch16_224"], "did you mean vit_base_patch16_224"),
        (["timm/vit_base_patch16_224.nope"], "nope"),
        (["gpt2", "--strategies", "lats_2"], "lats_2"),
        (["gpt2", "--strategies", "last_13"], "has 12 blocks, numbered 0 to 11"),
        (["gpt2", "--strategies", ""], "is not one of full, head"),
        (["gpt2", "--task", "poetry"], "task='poetry' is unknown; choose: text_classification"),
        (["gpt2", "--task", "image_classification"], "it fits: text_classification, causal_lm"),
        (["gpt2", "--num-labels", "0"], "num_labels=0"),
        (["gpt2", "--num-labels", "3", "--task", "causal_lm"], "belongs to classification"),
        (["gpt2", "--plot", "image.doc"], "ends in .png, .svg, .pdf"),
    ],
)
def test_a_mistake_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["params", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_image_shows_every_strategy_and_adapters_in_their_blocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "images/depth.png"
    text = printed(["bert-base-uncased", "--strategies", "head,lora", "--plot", str(image)], capsys)
    assert text.endswith(f"image: {image}\n")
    assert image.read_bytes().startswith(b"\x89PNG")
    figure = draw_over_depth(counts("bert-base-uncased", "head", "lora"))
    head, lora = figure.axes
    assert [label.get_text() for label in head.get_yticklabels()][:2] == ["embeddings", "block 0"]
    drawn = {(x, y) for x, y in lora.collections[1].get_offsets().tolist()}
    assert drawn == {*((8 * 2 * 2 * 768, 1 + i) for i in range(12)), (1538, 14)}
    assert head.collections[1].get_offsets().tolist() == [[1538, 14]]


def test_full_labels_are_read_back() -> None:
    for text in ("full", "last_2", "lora:r=8,targets=attention_qv", "lora:r=2,targets=all_linear"):
        assert parse_strategy(text).full_label == text
    assert StrategyConfig("lora").full_label == "lora:r=8,targets=attention_qv"
    assert StrategyConfig("lora").label == "lora"


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["bad", "good"], "exactly the labels bad, good start"),
        ([f"l{i}" for i in range(9)], "exactly the labels l0, l1, l2, l3, l4, l5, ... (9) start"),
        (["LABEL_0", "LABEL_1"], None),
    ],
)
def test_whose_head_it_would_be_is_said_where_the_checkpoint_names_labels(
    tmp_path: Path, names: list[str], named: str | None
) -> None:
    labels = {str(number): name for number, name in enumerate(names)}
    path = write_config(tmp_path, model_type="bert", num_hidden_layers=1, id2label=labels)
    notes = [note for note in counts(path, "full").notes if note.startswith("Head:")]
    assert len(notes) == (named is not None)
    assert all(str(named) in note for note in notes)
