"""Attention is computed by the way that was measured to be faster, and gives the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from accelerate import Accelerator
from live_step import make_batch
from probed_models import TimmNetwork, other_model, probe_of
from tiny_runs import overrides
from torch import nn

from hfbench.config import load_config, parse_strategy
from hfbench.models.attention import can_write_out, written_out
from hfbench.models.structure import find_structure
from hfbench.run import run
from hfbench.strategies import apply_strategy
from hfbench.training import attention
from hfbench.training.attention import (
    AttentionChoice,
    AttentionSizes,
    OwnCalls,
    attend,
    choose_attention,
    fastest_attention,
)

NAMES = ("bert", "vit", "distilbert", "gpt2", "wav2vec2", "timm")
WRITTEN_OUT, AS_LOADED = AttentionChoice(2.0, 1.0), AttentionChoice(1.0, 2.0)


def batch_for(name: str) -> dict[str, torch.Tensor]:
    return make_batch({"timm": "vit", "vit": "vit", "wav2vec2": "wav2vec2"}.get(name, "bert"))


def own_calls(model: nn.Module, name: str) -> int:
    with torch.no_grad(), OwnCalls() as seen:
        model(**batch_for(name))
    return len(seen.queries)


@pytest.mark.parametrize("strategy", ["full", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_written_out_gives_the_same_without_pytorchs_function(name: str, strategy: str) -> None:
    model = other_model(name)
    model = apply_strategy(model, find_structure(model), parse_strategy(strategy)).eval()
    assert can_write_out(model)
    expected = model(**batch_for(name)).logits
    assert own_calls(model, name) == 4  # one a block
    with written_out(model):
        assert own_calls(model, name) == 0
        found = model(**batch_for(name)).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert own_calls(model, name) == 4


def test_the_formula_is_that_of_pytorchs_function() -> None:
    query, key, value = torch.rand(3, 2, 4, 7, 8, generator=torch.Generator().manual_seed(0))
    fused = nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(attend(query, key, value), fused)


@pytest.mark.parametrize(
    ("own", "written", "chosen"), [(1.09, 1.0, True), (1.11, 1.0, False), (0.5, 1.0, True)]
)
def test_written_out_must_be_a_tenth_faster(own: float, written: float, chosen: bool) -> None:
    assert AttentionChoice(own, written).as_loaded == chosen


@pytest.mark.usefixtures("own_cache")
def test_the_choice_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = AttentionSizes(heads=2, head_size=8, positions=5, bf16=False)
    first = choose_attention(sizes)
    assert first.own_seconds > 0 < first.written_out_seconds
    monkeypatch.setattr(attention, "medians", lambda ways, device: pytest.fail("measured again"))
    assert choose_attention(sizes) == first


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", AttentionSizes(4, 16, positions=48, bf16=False, dropout=0.1)),
        ("vit", AttentionSizes(4, 16, positions=65, bf16=False, dropout=0.1)),
        ("timm", AttentionSizes(3, 64, positions=17, bf16=False, dropout=0.0)),
    ],
)
@pytest.mark.parametrize("choice", [WRITTEN_OUT, AS_LOADED])
def test_the_faster_way_is_used_for_the_sizes_of_the_run(
    name: str,
    expected: AttentionSizes,
    choice: AttentionChoice,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []
    monkeypatch.setattr(
        attention, "choose_attention", lambda sizes: (asked.append(sizes), choice)[1]
    )
    model = other_model(name).eval()
    probe = probe_of(model, batch_for(name))
    with fastest_attention(model, probe, Accelerator()):
        assert own_calls(model, name) == (4 if choice.as_loaded else 0)
    assert asked == [expected]
    assert own_calls(model, name) == 4
    way = "as loaded (1e+03 ms" if choice.as_loaded else "written out (1e+03 ms"
    said = f"attention, float32, {expected.positions} positions: {way}"
    assert said in capsys.readouterr().out


def test_attention_within_windows_stays_as_it_is() -> None:
    """Its queries have a dimension more."""
    network = timm.create_model("hiera_tiny_224", num_classes=3, img_size=(64, 64))
    model = TimmNetwork(network).eval()
    batch = {"pixel_values": torch.zeros(2, 3, 64, 64), "labels": torch.tensor([0, 1])}
    with fastest_attention(model, probe_of(model, batch), Accelerator()) as attention_of_run:
        assert attention_of_run == "as loaded"


@pytest.mark.usefixtures("own_cache")
def test_a_saved_model_does_not_know_of_it(
    tiny_bert: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[Any] = []
    for choice in (WRITTEN_OUT, AS_LOADED):
        monkeypatch.setattr(attention, "choose_attention", lambda sizes, choice=choice: choice)
        folder = tmp_path / str(choice.as_loaded)
        result = run(
            load_config(None, overrides(tiny_bert, texts, folder), task="text_classification")
        )
        assert result.status == "succeeded"
        assert result.hardware["attention"] == ("as loaded" if choice.as_loaded else "written out")
        (saved,) = folder.rglob("model/config.json")
        configs.append(json.loads(saved.read_text()))
    assert configs[0] == configs[1]
