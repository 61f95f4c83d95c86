"""``hfbench layers``: counts and multiply-adds of real layers, against numbers by hand."""

import json
from pathlib import Path

import pytest
import timm
import torch
from counting import write_config
from snapshot_check import assert_snapshot
from torch import nn

import hfbench.layer_costs
from hfbench.block_costs import measure_block
from hfbench.cli import main
from hfbench.layer_costs import measure_layer
from hfbench.layers import LAYER_KINDS, Formula, parse_layer
from hfbench.models.inputs import meta_batch

pytestmark = pytest.mark.usefixtures("own_cache")


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["layers", *arguments]) == 0
    return capsys.readouterr().out


# layer -> parameters, trainable ones, multiply-adds, output shape
BY_HAND: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "linear:in=784,out=256": (784 * 256 + 256, 200_960, 200_704, (256,)),
    "conv1d:in=2,out=3,kernel=4,length=10": (2 * 3 * 4 + 3, 27, 24 * 7, (3, 7)),
    "conv1d:in=2,out=3,kernel=4,length=10,stride=2,padding=1": (27, 27, 24 * 5, (3, 5)),
    "conv2d:in=1,out=32,kernel=3,size=28": (32 * 9 + 32, 320, 32 * 9 * 26 * 26, (32, 26, 26)),
    "conv2d:in=3,out=64,kernel=7,size=224,stride=2,padding=3": (
        # ResNet-50's first layer, with a bias: 118 million multiply-adds
        64 * 3 * 49 + 64,
        9_472,
        64 * 3 * 49 * 112 * 112,
        (64, 112, 112),
    ),
    "maxpool2d:channels=32,kernel=2,size=28": (0, 0, 0, (32, 14, 14)),
    "maxpool2d:channels=64,kernel=3,size=112,stride=2,padding=1": (0, 0, 0, (64, 56, 56)),
    "avgpool2d:channels=5,kernel=3,size=10": (0, 0, 0, (5, 3, 3)),
    "layernorm:hidden=768": (768 + 768, 1_536, 0, (768,)),
    "batchnorm2d:channels=32,size=28": (32 + 32, 64, 0, (32, 28, 28)),
    "embedding:vocabulary=100,hidden=8,length=5": (800, 800, 0, (5, 8)),
    "attention:hidden=8,heads=2,length=5": (
        # four projections; 25 pairs of positions, each 8 numbers for its weight and 8 for the sum
        4 * (8 * 8 + 8),
        288,
        4 * 5 * 64 + 25 * 8 + 25 * 8,
        (5, 8),
    ),
    "lora:in=10,out=7,r=2": (10 * 7 + 7 + 2 * 10 + 2 * 7, 34, 10 * 7 + 2 * 10 + 2 * 7, (7,)),
}


@pytest.mark.parametrize(("text", "expected"), BY_HAND.items())
def test_a_layer_costs_what_a_hand_computes(
    text: str, expected: tuple[int, int, int, tuple[int, ...]]
) -> None:
    cost = measure_layer(parse_layer(text))
    assert (cost.parameters, cost.trainable, cost.multiply_adds, cost.output_shape) == expected
    assert cost.layer.label == text  # a name can be pasted back


def test_every_kind_is_computed_by_hand() -> None:
    assert {text.partition(":")[0] for text in BY_HAND} == set(LAYER_KINDS)


def test_heads_change_nothing_but_how_attention_is_divided() -> None:
    one, many = (
        measure_layer(parse_layer(f"attention:hidden=24,heads={heads},length=9"))
        for heads in (1, 12)
    )
    assert (one.parameters, one.multiply_adds) == (many.parameters, many.multiply_adds)


def test_a_formula_prints_what_it_computes() -> None:
    formula = Formula(((4, "length", "hidden", "hidden"), ("hidden",)))
    assert str(formula) == "4 × length × hidden² + hidden"
    assert formula.value({"length": 3, "hidden": 5}) == 4 * 3 * 25 + 5
    assert (str(Formula()), Formula().value({})) == ("0", 0)


def test_a_layer_that_is_not_what_its_formula_says_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_bias = (nn.Linear(784, 256, bias=False), (torch.empty(1, 784),))
    monkeypatch.setattr(hfbench.layer_costs, "_build", lambda layer: without_bias)
    with pytest.raises(AssertionError, match="parameters=200704"):
        measure_layer(parse_layer("linear"))


def test_left_out_sizes_are_those_of_the_default_table() -> None:
    assert parse_layer("linear:out=10").label == "linear:in=784,out=10"
    pool = parse_layer("maxpool2d:kernel=4")
    assert pool.label == "maxpool2d:channels=32,kernel=4,size=28"
    assert pool.sizes["stride"] == 4  # a window beside a window
    assert parse_layer("avgpool2d:stride=1").label.endswith("size=28,stride=1")


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_tables_look_as_before(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["--format", style], capsys)
    text += printed(["lora:r=16", "--block", "wav2vec2-base", "--format", style], capsys)
    assert_snapshot(text, f"layers_{style}.txt")
    if style == "table":
        assert max(map(len, text.splitlines())) <= 100


def test_json_has_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["conv1d:length=12", "lora:in=10,out=7,r=2", "--block", "bundled/bert-tiny"]
    values = json.loads(printed([*arguments, "--format", "json"], capsys))
    assert [one["kind"] for one in values["layers"]] == ["conv1d", "lora"]
    assert values["layers"][1] == {
        "layer": "lora:in=10,out=7,r=2",
        "kind": "lora",
        "sizes": {"in": 10, "out": 7, "r": 2},
        "parameter_formula": "in × out + out + r × in + r × out",
        "parameters": 111,
        "trainable_parameters": 34,
        "multiply_add_formula": "in × out + r × in + r × out",
        "multiply_adds": 104,
        "output_shape": [7],
    }
    (block,) = values["blocks"]
    assert (block["checkpoint"], block["depth"]) == ("bundled/bert-tiny", 6)
    assert block["input"] == {"name": "input_ids", "shape": [128]}
    for number in ("parameters", "multiply_adds"):
        assert sum(layer[number] for layer in block["layers"]) == block[number]


def transformer_block(hidden: int, inner: int, length: int) -> tuple[int, int]:
    """Parameters and multiply-adds of attention, two linear layers and two norms."""
    parameters = 4 * (hidden * hidden + hidden)
    parameters += hidden * inner + inner + inner * hidden + hidden + 2 * 2 * hidden
    multiply_adds = 4 * length * hidden * hidden + 2 * length * length * hidden
    return parameters, multiply_adds + 2 * length * hidden * inner


@pytest.mark.parametrize(
    ("checkpoint", "length"),
    [
        ("google-bert/bert-base-uncased", 128),
        ("google/vit-base-patch16-224", 14 * 14 + 1),
        ("facebook/wav2vec2-base", 49),  # frames of 16,000 samples
        ("openai-community/gpt2", 128),
        ("albert/albert-base-v2", 128),  # its one block runs twelve times
        ("timm/vit_base_patch16_224", 14 * 14 + 1),
    ],
)
def test_a_block_of_base_size_by_hand(checkpoint: str, length: int) -> None:
    cost = measure_block(checkpoint, max_length=128, max_seconds=1.0)
    parameters, multiply_adds = transformer_block(768, 3072, length)
    assert parameters == 7_087_872
    assert (cost.parameters, cost.multiply_adds) == (parameters, multiply_adds)
    assert cost.output_shape == (length, 768)
    assert cost.alike


def test_each_layer_of_a_bert_block() -> None:
    cost = measure_block("google-bert/bert-base-uncased", max_length=10, max_seconds=1.0)
    square, wide = 10 * 768 * 768, 10 * 768 * 3072
    found = {
        layer.name: (layer.parameters, layer.multiply_adds, layer.output_shape)
        for layer in cost.layers
    }
    assert found == {
        "attention.self.query": (590_592, square, (10, 768)),
        "attention.self.key": (590_592, square, (10, 768)),
        "attention.self.value": (590_592, square, (10, 768)),
        "attention.self": (0, 2 * 10 * 10 * 768, (10, 768)),
        "attention.output.dense": (590_592, square, (10, 768)),
        "attention.output.dropout": (0, 0, (10, 768)),
        "attention.output.LayerNorm": (1_536, 0, (10, 768)),
        "intermediate.dense": (2_362_368, wide, (10, 3072)),
        "intermediate.intermediate_act_fn": (0, 0, (10, 3072)),
        "output.dense": (2_360_064, wide, (10, 768)),
        "output.dropout": (0, 0, (10, 768)),
        "output.LayerNorm": (1_536, 0, (10, 768)),
    }


def test_weights_that_another_layer_reads_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """WavLM hands its projections' weights to one function and never calls them."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    config = write_config(tmp_path, model_type="wavlm", num_hidden_layers=2, **sizes)
    cost = measure_block(str(config), max_length=1, max_seconds=1.0)
    unseen = [layer for layer in cost.layers if layer.output_shape is None]
    projections = ["k_proj", "out_proj", "q_proj", "v_proj"]
    assert sorted(layer.name for layer in unseen) == [f"attention.{name}" for name in projections]
    assert {(layer.parameters, layer.multiply_adds) for layer in unseen} == {(32 * 32 + 32, 0)}
    (attention,) = (layer for layer in cost.layers if layer.name == "attention")
    assert attention.multiply_adds == 4 * 49 * 32 * 32 + 2 * 49 * 49 * 32
    assert not cost.alike  # the first one holds the positions of all
    text = printed(["--block", str(config)], capsys)
    assert "the blocks differ" in text
    assert "Without an output" in text


def test_a_block_of_convolutions() -> None:
    """ResNet-18's first: two 3 × 3 convolutions without biases, each with a norm."""
    cost = measure_block("timm/resnet18", max_length=1, max_seconds=1.0)
    weights = 2 * 64 * 64 * 9
    assert cost.depth == 8
    assert cost.parameters == weights + 2 * 2 * 64
    assert cost.multiply_adds == weights * 56 * 56
    assert cost.output_shape == (64, 56, 56)


def test_inputs_of_a_timm_network_have_the_size_it_was_built_for() -> None:
    network = timm.create_model("vit_tiny_patch16_224", img_size=96)
    batch = meta_batch(network, 2, max_length=1, max_seconds=1.0)
    assert batch["x"].shape == (2, 3, 96, 96)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["lineer:in=1"],
            "'lineer' is no kind of layer; choose: linear, conv1d, conv2d, maxpool2d",
        ),
        (["linear:on=1"], "linear: 'on=1' is unknown; sizes are given as name=number, with the"),
        (["conv2d:groups=2"], "names in, out, kernel, size, stride, padding"),
        (["linear:in"], "linear: 'in' is unknown"),
        (["linear:"], "linear: '' is unknown"),
        (["linear:in=0"], "linear: in='0' is not a whole number from 1 to 1,000,000"),
        (["linear:in=-3"], "in='-3' is not a whole number"),
        (["linear:in=1.5"], "in='1.5' is not a whole number"),
        (["linear:in=1,in=2"], "linear: in is given twice"),
        (["attention:hidden=10,heads=3"], "hidden=10 is no multiple of heads=3"),
        (["conv2d:kernel=31,padding=1"], "the kernel is larger than the padded input"),
        (["maxpool2d:padding=2"], "padding is at most half of the kernel"),
        (["conv2d:in=1000000,out=1000000,kernel=1000000,size=1000000"], "exceeds 2^60"),
        (["--max-length", "3"], "belong to --block CHECKPOINT"),
        (["linear", "--max-seconds", "3"], "belong to --block CHECKPOINT"),
        (["--block", "/nowhere/at-all"], "'/nowhere/at-all' does not exist"),
        (["--block", "gpt2", "--max-length", "1025"], "exceeds the model's 1024 tokens"),
        (["--block", "gpt2", "--max-length", "0"], "max_length=0 must be at least 1 token"),
        (["--block", "wav2vec2-base", "--max-seconds", "0.02"], "max_seconds=0.02 is too short"),
        (["--block", "wav2vec2-base", "--max-seconds", "nan"], "nan is not a number of seconds"),
    ],
)
def test_a_mistake_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["layers", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_help_lists_every_kind_with_its_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["layers", "--help"])
    text = capsys.readouterr().out
    for kind in LAYER_KINDS.values():
        assert f"{kind.name}:{','.join((*kind.sizes, *kind.options))}" in text
