"""Names of stored prefixes: another name wherever other numbers would be stored."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from live_step import make_batch
from probed_models import Samples, collate, other_model
from tiny_runs import overrides
from torch import nn

from hfbench.config import load_config
from hfbench.models.calls import record_calls
from hfbench.models.structure import find_structure
from hfbench.run import run
from hfbench.training.prefix import key
from hfbench.training.prefix.cut import Cut, Place
from hfbench.training.prefix.key import PrefixKeys, received


def key_of(model: nn.Module) -> str:
    """Of the first two blocks."""
    model.eval()
    structure = find_structure(model)
    calls = record_calls(model, lambda: model(**make_batch("bert")))
    return PrefixKeys(model, structure, calls).key(Cut(model, structure, Place(2)), "samples")


def test_equal_models_have_one_key_and_the_weights_inside_the_prefix_count() -> None:
    model: Any = other_model("bert")
    expected = key_of(model)
    assert key_of(other_model("bert")) == expected
    model.bert.encoder.layer[2].output.dense.weight.data += 1  # the first block behind it
    assert key_of(model) == expected
    model.bert.encoder.layer[1].output.dense.weight.data += 1
    assert key_of(model) != expected


def test_a_layer_that_runs_inside_the_prefix_counts_whatever_it_is_called() -> None:
    """DeBERTa-v2's convolution stands beside the blocks."""
    model: Any = other_model("deberta-with-convolution")
    expected = key_of(model)
    model.deberta.encoder.conv.conv.weight.data += 1
    assert key_of(model) != expected


def test_other_code_has_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = key_of(other_model("bert"))
    monkeypatch.setattr(key, "code_digest", lambda: "other")
    assert key_of(other_model("bert")) != expected


@pytest.mark.parametrize("changed", ["pixel_values", "labels"])
def test_what_collating_changes_counts_except_for_labels(changed: str) -> None:
    samples = Samples(make_batch("vit"))

    def other_collate(chosen: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collate(chosen)
        return {**batch, changed: batch[changed] + 1}

    is_equal = received(samples, other_collate) == received(samples, collate)
    assert is_equal == (changed == "labels")


@pytest.mark.usefixtures("own_cache")
def test_another_image_normalisation_does_not_read_the_old_rows(
    tiny_vit: Path, images: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(tiny_vit, tmp_path / "checkpoint")
    file = checkpoint / "preprocessor_config.json"

    def computed(name: str) -> int:
        options = overrides(checkpoint, images, tmp_path / name, "strategy=head")
        result = run(load_config(None, options, task="image_classification"))
        assert result.prefix is not None
        return result.prefix.computed_splits

    assert [computed("first"), computed("again")] == [3, 0]
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]}))
    assert computed("other") == 3
