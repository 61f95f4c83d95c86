"""QLoRA: what 4 bits keep of a weight, and how an adapter is trained and saved on such a base."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import tiny_models
import torch
from counting import counts
from tiny_runs import overrides
from torch import nn
from transformers.pytorch_utils import Conv1D

from hfbench import cli
from hfbench.config import HubConfig, load_config, parse_strategy
from hfbench.errors import UserError
from hfbench.hub.publication import prepare_publication
from hfbench.models.structure import find_structure
from hfbench.quantization import FourBitLinear, block_linears, quantize
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.saving import load_model
from hfbench.strategies import apply_strategy

# The widest gap of the 16 values of 4-bit NormalFloat is from -1 to -0.6962 (Dettmers et al. 2023,
# appendix E), and half of it is the worst error; the scales are rounded to 8 bits as well.
WORST = (1 - 0.6962) / 2 * 1.05


def weight_of(layer: FourBitLinear, inputs: int) -> torch.Tensor:
    """(outputs, inputs), from the products with unit vectors."""
    zero = layer(torch.zeros(inputs))
    return (layer(torch.eye(inputs)) - zero).T.contiguous()


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(128, 192)


def test_a_weight_takes_four_bits_and_a_share_of_its_scales(linear: nn.Linear) -> None:
    layer = FourBitLinear(linear)
    count = 128 * 192
    sizes = {name: buffer.nbytes for name, buffer in layer.named_buffers()}
    assert sizes.pop("packed") == count / 2
    assert sizes.pop("scales") == count / 64
    assert sizes.pop("outer_scales") == 4 * -(-count // (64 * 256))
    assert sizes == {"code": 4 * 16, "outer_code": 4 * 256, "offset": 4}
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert list(layer.state_dict()) == ["bias"]


def test_no_weight_is_further_off_than_half_a_gap_of_its_block(linear: nn.Linear) -> None:
    packed = weight_of(FourBitLinear(linear), 128)
    error = (packed - linear.weight).abs().view(-1, 64)
    scale = linear.weight.abs().view(-1, 64).amax(1, keepdim=True)
    assert (error / scale).max() <= WORST
    assert all(len(block.round(decimals=5).unique()) <= 16 for block in packed.view(-1, 64))


def test_a_transposed_weight_becomes_the_same_layer(linear: nn.Linear) -> None:
    conv = Conv1D(192, 128)
    conv.weight.data, conv.bias.data = linear.weight.T.clone().detach(), linear.bias.detach()
    values = torch.randn(3, 5, 128)
    assert torch.equal(FourBitLinear(conv)(values), FourBitLinear(linear)(values))


def test_gradients_pass_to_the_input_also_after_an_evaluation(linear: nn.Linear) -> None:
    layer = FourBitLinear(linear).eval()
    weight = weight_of(layer, 128)
    with torch.no_grad():
        layer(torch.randn(4, 128))
    values = torch.randn(4, 128, requires_grad=True)
    factors = torch.randn(4, 192)
    (layer(values) * factors).sum().backward()
    torch.testing.assert_close(values.grad, factors @ weight)


def test_autocast_computes_in_bf16(linear: nn.Linear) -> None:
    layer = FourBitLinear(linear)
    values = torch.randn(4, 128)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(values)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(values), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["bert", "vit", "wav2vec2", "gpt2", "timm_vit"])
def test_every_linear_layer_of_the_blocks_is_packed_and_no_other(name: str) -> None:
    model = getattr(tiny_models, name)()
    structure = find_structure(model)
    layers = block_linears(model, structure)
    if name == "timm_vit":
        model.config = type("Config", (), {})()
    adapted = apply_strategy(model, structure, parse_strategy("qlora:last_n=1"))
    trainable = {n for n, p in adapted.named_parameters() if p.requires_grad}
    quantize(adapted, layers)
    packed = {
        n.removesuffix(".base_layer")
        for n, m in adapted.get_base_model().named_modules()
        if isinstance(m, FourBitLinear)
    }
    assert packed == set(layers)
    assert {n for n, p in adapted.named_parameters() if p.requires_grad} == trainable


def test_counts_are_those_of_lora(own_cache: None) -> None:
    found = counts("google-bert/bert-base-uncased", "qlora:r=4", "lora:r=4", num_labels=2)
    qlora, lora = (one.report for one in found.strategies)
    assert (qlora.total, qlora.trainable) == (lora.total, lora.trainable)


def trained(checkpoint: Path, data: Path, folder: Path, *more: str) -> RunResult:
    settings = overrides(checkpoint, data, folder, *more)
    return run(load_config(None, settings, task="text_classification"))


def test_a_run_stores_the_frozen_prefix_of_its_own_base(
    tiny_bert: Path, texts: Path, tmp_path: Path, own_cache: None
) -> None:
    lora = trained(tiny_bert, texts, tmp_path / "lora", "strategy=lora:last_n=1")
    stored = trained(
        tiny_bert, texts, tmp_path / "stored", "strategy=qlora:last_n=1", "cache=always"
    )
    computed = trained(tiny_bert, texts, tmp_path / "off", "strategy=qlora:last_n=1", "cache=off")
    assert stored.prefix is not None
    assert stored.predicted is None
    losses = [[epoch.train_loss for epoch in one.history] for one in (stored, computed, lora)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0] != pytest.approx(losses[2], abs=1e-6)
    assert stored.parameters == lora.parameters
    packed = [
        m for m in load_model(tmp_path / "stored/model").modules() if isinstance(m, FourBitLinear)
    ]
    assert len(packed) == 3 * 6


def test_it_is_published_as_an_adapter_only(
    tiny_bert: Path, texts: Path, tmp_path: Path, own_cache: None
) -> None:
    trained(tiny_bert, texts, tmp_path, "strategy=qlora", "training.max_steps=1")
    with pytest.raises(UserError, match="qlora belongs to a base in 4 bits"):
        prepare_publication(tmp_path, HubConfig(repo_id="a/b", adapter_only=False))


def missing(name: str) -> str:
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("found", "named"), [(missing, "not installed"), (lambda name: "0.49.2", "0.49.2")]
)
def test_without_the_library_the_message_says_what_to_install(
    found: Callable[[str], str],
    named: str,
    tiny_bert: Path,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("hfbench.quantization.version", found)
    arguments = overrides(tiny_bert, texts, tmp_path / "run", "strategy=qlora")
    assert cli.recipe_main("text_classification", None, arguments) == 2
    assert (
        f"qlora needs bitsandbytes >= 0.50, which here is {named}: pip" in capsys.readouterr().err
    )
    assert not (tmp_path / "run/result.json").exists()


def test_a_plan_says_that_it_cannot_predict(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str], own_cache: None
) -> None:
    assert (
        cli.main(["plan", str(tiny_bert), "--strategies", "lora,qlora", "--max-length", "16"]) == 2
    )
    assert "4-bit weights" in capsys.readouterr().err
