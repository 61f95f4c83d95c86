"""timm's networks in image classification: counts, features, runs, saved models, errors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from counting import counts
from huggingface_hub import constants
from PIL import Image
from tiny_runs import overrides

from hfbench.cli import main
from hfbench.config import ModelConfig, RunConfig, load_config, parse_strategy
from hfbench.errors import HubUnreachableError, UserError
from hfbench.models import loading
from hfbench.models.structure import find_structure
from hfbench.models.timm_models import weights_repository
from hfbench.run import run
from hfbench.saving import load_model
from hfbench.strategies import apply_strategy
from hfbench.tasks import make_task
from hfbench.training.prefix.cut import Place, find_place

ARGUMENTS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network without a head, saved by timm itself: hidden 32, 3 blocks, images of 32."""
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGUMENTS)
    timm.models.save_for_hf(network, folder, model_args=ARGUMENTS, safe_serialization=True)
    return folder


def timm_config(checkpoint: str, images: Path, folder: Path, *more: str) -> RunConfig:
    arguments = overrides(Path(checkpoint), images, folder, "model.source=timm", *more)
    return load_config(None, arguments, task="image_classification")


# ---- counts


@pytest.mark.parametrize(
    "strategy",
    ["full", "head", "last_2", "first_2", "blocks:0+3", "bitfit", "norm", "attention", "lora"],
)
def test_the_vits_of_timm_and_transformers_have_the_same_counts(
    strategy: str, own_cache: None
) -> None:
    """LoRA too: r · (inputs + outputs) is linear in the outputs, so one fused layer of three times
    the width has as many as query and value have together: 8 · (768 + 2,304) a block.
    """
    ours, timms = (
        counts(name, strategy, num_labels=10).strategies[0]
        for name in ("google/vit-base-patch16-224", "timm/vit_base_patch16_224")
    )
    assert (ours.report.total, ours.report.trainable) == (
        timms.report.total,
        timms.report.trainable,
    )
    assert timms.report.by_depth == ours.report.by_depth
    if strategy == "lora":
        assert timms.adapter_total == 12 * 8 * (768 + 3 * 768) == 294_912


@pytest.mark.parametrize(
    ("strategy", "ours", "timms"),
    [
        # beside LoRA's matrices one length for each output
        ("dora", 12 * (8 * 4 * 768 + 2 * 768), 12 * (8 * 4 * 768 + 3 * 768)),
        ("lora:targets=attention", 12 * 8 * 4 * 2 * 768, 12 * 8 * (4 * 768 + 2 * 768)),
    ],
)
def test_a_fused_layer_is_one_target(strategy: str, ours: int, timms: int, own_cache: None) -> None:
    names = ("google/vit-base-patch16-224", "timm/vit_base_patch16_224")
    found = [counts(name, strategy, num_labels=10).strategies[0].adapter_total for name in names]
    assert found == [ours, timms]


# ---- runs


@pytest.mark.parametrize(
    "strategy",
    ["head", "lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "scratch"))],
)
def test_a_run_is_saved_and_predicted_with(
    strategy: str,
    timm_folder: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run loads what it saved and compares the logits bit for bit; ``predict`` comes beside."""
    config = timm_config(str(timm_folder), images, tmp_path / "run", f"strategy={strategy}")
    result = run(config)
    assert result.status == "succeeded"
    model: Any = load_model(tmp_path / "run/model")
    task = make_task(config)
    data = task.prepare_data()
    batch = task.collate([data.test[i] for i in range(len(data.test))])
    with torch.no_grad():
        expected = model(**batch).logits.softmax(dim=-1)
    paths = sorted(str(path) for path in images.rglob("*.png"))
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), *paths, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    given = sorted(row["probability"] for row in found)
    for value in expected.max(dim=-1).values.tolist():
        assert min(abs(value - one) for one in given) < 1e-6
    assert {row["label"] for row in found} <= {"dark", "light"}


def test_weights_saved_by_timm_are_those_of_the_model(timm_folder: Path, images: Path) -> None:
    task = make_task(timm_config(str(timm_folder), images, timm_folder))
    built = task.build_model(task.prepare_data())
    names = {name.rpartition("head.")[2] for name in built.new_parameters if "head." in name}
    assert len(built.new_parameters) == len(names) == 2  # the head's weight and bias alone
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGUMENTS)
    loaded: Any = built.model
    for name, parameter in network.named_parameters():
        assert torch.equal(loaded.timm_model.get_parameter(name), parameter), name


def test_the_output_of_the_backbone_is_not_stored_where_it_holds_the_head(
    timm_folder: Path, images: Path
) -> None:
    task = make_task(timm_config(str(timm_folder), images, timm_folder))
    model = task.build_on_meta(num_labels=2)
    structure = find_structure(model)
    assert structure.backbone == "timm_model"
    assert structure.head == ("timm_model.head",)
    model = apply_strategy(model, structure, parse_strategy("head"))
    assert find_place(model, structure) == Place(3)


# ---- names of timm, without a hub


def test_features_are_those_of_timms_own_data_configuration(images: Path, tmp_path: Path) -> None:
    config = timm_config("test_vit", images, tmp_path)
    task = make_task(config)
    data = task.prepare_data()
    network = timm.create_model("test_vit", pretrained=False)
    settings = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**settings, is_training=False)
    paths = sorted(images.rglob("*.png"))
    expected = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    batch = task.collate([data.test[i] for i in range(len(data.test))])
    assert batch["pixel_values"].shape == (len(data.test), 3, 160, 160)
    for pixels in batch["pixel_values"]:
        assert np.any([torch.equal(pixels, own) for own in expected])


def test_a_network_from_scratch_needs_no_hub(images: Path, tmp_path: Path) -> None:
    config = timm_config("timm/test_vit", images, tmp_path, "strategy=scratch")
    task = make_task(config)
    built = task.build_model(task.prepare_data())
    own = timm.create_model("test_vit", num_classes=2)
    assert sum(p.numel() for p in built.model.parameters()) == sum(
        p.numel() for p in own.parameters()
    )
    assert len(built.new_parameters) == len(list(own.parameters()))


def test_pretrained_weights_are_asked_of_timms_repository(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    config = timm_config("test_vit", images, tmp_path)
    task = make_task(config)
    data = task.prepare_data()
    with pytest.raises(HubUnreachableError, match=r"'timm/test_vit\.r160_in1k' is not on"):
        task.build_model(data)


def test_an_adapter_on_downloaded_weights_names_their_repository(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client finds timm's repository among what it downloaded; nothing else is asked."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub/models--timm--test_vit.r160_in1k"
    network = timm.create_model("test_vit", pretrained=False)
    timm.models.save_for_hf(network, repository / "snapshots" / commit, safe_serialization=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    result = run(timm_config("test_vit", images, tmp_path / "run", "strategy=lora"))
    assert result.status == "succeeded"  # loaded again, with its base, and compared
    assert result.checkpoint_commit == commit
    adapter = json.loads((tmp_path / "run/model/adapter_config.json").read_text())
    named = (adapter["base_model_name_or_path"], adapter["revision"])
    assert named == ("timm/test_vit.r160_in1k", commit)
    loaded: Any = load_model(tmp_path / "run/model")
    base = loaded.get_base_model().timm_model
    assert torch.equal(base.blocks[0].mlp.fc1.weight, network.blocks[0].mlp.fc1.weight)


def test_the_repository_of_the_weights() -> None:
    name = "vit_base_patch16_224"
    assert weights_repository(name) == f"timm/{name}.augreg2_in21k_ft_in1k"
    assert weights_repository(f"timm/{name}.augreg_in21k") == f"timm/{name}.augreg_in21k"
    assert weights_repository("vit_giant_patch14_224") is None
    # an adapter's base is found again by it, without model.source
    assert loading.weights_name(ModelConfig(name, source="timm")) == weights_repository(name)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("vit_bas_patch16_224", "timm .* has no model 'vit_bas_patch16_224'; did you mean"),
        ("test_vit.nope", "timm model 'test_vit.nope'"),
        ("vit_giant_patch14_224", "timm has no weights for .*strategy=scratch"),
    ],
)
def test_names_that_timm_cannot_load(checkpoint: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loading.load_model(
            ModelConfig(checkpoint, source="timm"),
            None,
            None,  # type: ignore[arg-type]
        )


def test_a_folder_of_transformers_is_none_of_timms(tiny_vit: Path) -> None:
    with pytest.raises(UserError, match=r"model.source=timm, but .* is a 'vit' of transformers"):
        loading.load_config(ModelConfig(str(tiny_vit), source="timm"))


def test_other_tasks_have_no_timm_networks() -> None:
    with pytest.raises(UserError, match="belongs to image_classification, not to task='text_cla"):
        load_config(None, ["model.source=timm"], task="text_classification")
