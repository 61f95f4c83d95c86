"""Configurations, processors and weights of checkpoints."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
)

from hfbench.config import ModelConfig
from hfbench.errors import HubUnreachableError, UserError
from hfbench.models.bundled import bundled_checkpoints, resolve_checkpoint
from hfbench.models.heads import TASKS
from hfbench.models.loading import (
    build_model,
    build_on_meta,
    load_config,
    load_feature_extractor,
    load_image_processor,
    load_model,
    load_tokenizer,
    require_task,
)


def test_weights_come_from_the_checkpoint_and_the_head_is_new(tiny_bert: Path) -> None:
    source = ModelConfig(checkpoint=str(tiny_bert))
    settings = load_config(source, num_labels=5)
    loaded = load_model(source, settings, AutoModelForSequenceClassification)
    model = loaded.model
    again = load_model(source, settings, AutoModelForSequenceClassification).model
    random, all_new = build_model(settings, AutoModelForSequenceClassification)
    assert loaded.new_parameters == {"classifier.weight", "classifier.bias"}
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(model.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(model.get_parameter(name), random.get_parameter(name))
    assert all_new == {name for name, _ in model.named_parameters()}


def test_a_head_for_other_labels_is_new(tiny_vit: Path, tmp_path: Path) -> None:
    source = ModelConfig(checkpoint=str(tiny_vit))
    ViTForImageClassification(load_config(source, num_labels=7)).save_pretrained(tmp_path)
    trained = ModelConfig(checkpoint=str(tmp_path))
    for num_labels, expected in ((7, set()), (2, {"classifier.weight", "classifier.bias"})):
        settings = load_config(trained, num_labels=num_labels)
        loaded = load_model(trained, settings, AutoModelForImageClassification)
        assert loaded.new_parameters == expected
        assert loaded.model.get_parameter("classifier.weight").shape == (num_labels, 32)


def test_half_precision_weights_are_read_as_float32(tiny_vit: Path, tmp_path: Path) -> None:
    settings = load_config(ModelConfig(checkpoint=str(tiny_vit)))
    ViTForImageClassification(settings).bfloat16().save_pretrained(tmp_path)
    source = ModelConfig(checkpoint=str(tmp_path))
    model = load_model(source, load_config(source), AutoModelForImageClassification).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("settings", "model_class", "total"),
    [
        (BertConfig(num_labels=2), AutoModelForSequenceClassification, 109_483_778),
        (ViTConfig(num_labels=10), AutoModelForImageClassification, 85_806_346),
        (Wav2Vec2Config(num_labels=12), AutoModelForAudioClassification, 94_571_660),
    ],
)
def test_base_models_are_counted_from_their_configuration(
    settings: BertConfig | ViTConfig | Wav2Vec2Config, model_class: type, total: int
) -> None:
    model = build_on_meta(settings, model_class)
    assert sum(p.numel() for p in model.parameters()) == total


def test_pickled_weights_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "bert" / "pytorch_model.bin")
    source = ModelConfig(checkpoint=str(tmp_path / "bert"))
    with pytest.raises(UserError, match="no safetensors weights"):
        load_model(source, load_config(source), AutoModelForSequenceClassification)


@pytest.mark.parametrize("kept_bytes", [2, 5000])
def test_broken_weights_are_a_user_error(tiny_bert: Path, tmp_path: Path, kept_bytes: int) -> None:
    shutil.copytree(tiny_bert, tmp_path / "bert")
    weights = tmp_path / "bert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept_bytes])
    source = ModelConfig(checkpoint=str(tmp_path / "bert"))
    with pytest.raises(UserError, match=r"the safetensors file .*model.safetensors. is broken"):
        load_model(source, load_config(source), AutoModelForSequenceClassification)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not a valid JSON"),
        ("{}", "Unrecognized model"),
        ('{"model_type": "unheard_of"}', "unheard_of"),
    ],
)
def test_a_bad_configuration_is_a_user_error(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=f"no usable configuration.*{problem}"):
        load_config(ModelConfig(checkpoint=str(tmp_path)))


def test_a_missing_processor_is_a_user_error(tiny_bert: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_bert / "config.json", tmp_path)
    source = ModelConfig(checkpoint=str(tmp_path))
    with pytest.raises(UserError, match="no tokenizer files"):
        load_tokenizer(source)
    with pytest.raises(UserError, match="no usable image processor"):
        load_image_processor(source)
    with pytest.raises(UserError, match="no usable feature extractor"):
        load_feature_extractor(source)


@pytest.mark.parametrize("key", ["feature_extractor_type", "image_processor_type"])
def test_a_preprocessor_of_the_old_type_is_read(tiny_vit: Path, tmp_path: Path, key: str) -> None:
    values = {key: "ViTFeatureExtractor", "size": 32, "image_std": [1, 1, 1]}
    shutil.copy(tiny_vit / "config.json", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    processor = load_image_processor(ModelConfig(checkpoint=str(tmp_path)))
    assert type(processor).__name__.startswith("ViTImageProcessor")
    assert (processor.size["height"], list(processor.image_std)) == (32, [1, 1, 1])


def test_a_network_of_another_kind_is_a_user_error() -> None:
    with pytest.raises(UserError, match="'vit' network does not fit this task"):
        build_on_meta(ViTConfig(), AutoModelForSequenceClassification)


@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize(
    ("checkpoint", "fits"),
    [
        ("bundled/bert-tiny", ["text_classification", "causal_lm"]),
        ("bundled/vit-tiny", ["image_classification"]),
        ("bundled/wav2vec2-tiny", ["audio_classification", "speech_recognition"]),
    ],
)
def test_a_checkpoint_for_other_tasks_is_refused_with_the_recipes_that_fit(
    task: str, checkpoint: str, fits: list[str]
) -> None:
    if task in fits:
        require_task(ModelConfig(checkpoint=checkpoint), task)
        return
    recipes = ", ".join(f"recipes/{name}.py" for name in fits)
    with pytest.raises(UserError, match=f"has no class for {task}: it fits {recipes}$"):
        require_task(ModelConfig(checkpoint=checkpoint), task)


@pytest.mark.parametrize(
    ("checkpoint", "problem"),
    [
        ("bundled/nothing", r"is not bundled .*; choose"),
        ("./missing", "does not exist"),
        ("a/b/c", "does not exist"),
        ("", "does not exist"),
    ],
)
def test_an_unknown_checkpoint_is_a_user_error(checkpoint: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        resolve_checkpoint(checkpoint)


def test_a_folder_without_configuration_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve_checkpoint(str(tmp_path))


def test_a_relative_folder_becomes_absolute(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bert.parent)
    assert resolve_checkpoint(tiny_bert.name) == str(tiny_bert.resolve())


@pytest.mark.parametrize("auto_class", ["AutoConfig", "AutoFeatureExtractor", "AutoModel"])
def test_code_from_a_repository_is_refused_without_asking(
    tiny_bert: Path, tmp_path: Path, auto_class: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(prompt: str) -> str:
        raise AssertionError(prompt)

    monkeypatch.setattr("builtins.input", ask)
    shutil.copytree(tiny_bert, tmp_path / "code")
    (tmp_path / "code" / "own.py").write_text("raise AssertionError('was run')")
    source = ModelConfig(checkpoint=str(tmp_path / "code"))
    file = tmp_path / "code" / "config.json"
    settings = json.loads(file.read_text()) | {"model_type": "own"}
    if auto_class == "AutoConfig":
        settings["auto_map"] = {"AutoConfig": "own.OwnConfig"}
        file.write_text(json.dumps(settings))
        with pytest.raises(UserError, match=r"its configuration needs code.*runs no code"):
            load_config(source)
    elif auto_class == "AutoFeatureExtractor":
        values = {"feature_extractor_type": "Own", "auto_map": {"AutoFeatureExtractor": "own.Own"}}
        (tmp_path / "code" / "preprocessor_config.json").write_text(json.dumps(values))
        with pytest.raises(UserError, match=r"its feature extractor needs code.*runs no code"):
            load_feature_extractor(source)
    else:
        foreign = ViTConfig(auto_map={"AutoModelForSequenceClassification": "own.Own"})
        foreign._name_or_path = str(tmp_path / "code")
        with pytest.raises(UserError, match=r"'vit' network needs code.*runs no code"):
            build_model(foreign, AutoModelForSequenceClassification)


@pytest.mark.parametrize("name", bundled_checkpoints())
def test_bundled_checkpoints_are_found(name: str) -> None:
    source = ModelConfig(checkpoint=f"bundled/{name}")
    assert load_config(source).model_type.startswith(name.removesuffix("-tiny"))  # gpt2: gpt-tiny


def test_a_hub_name_without_a_hub_is_its_own_error() -> None:
    source = ModelConfig(checkpoint="owner/name")
    for load in (load_config, load_image_processor):
        with pytest.raises(HubUnreachableError, match=r"checkpoint 'owner/name'.*bundled/"):
            load(source)
