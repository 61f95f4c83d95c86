"""Where configurations are found, and the networks that they make on the meta device."""

from pathlib import Path
from typing import Any

import pytest
import transformers
from counting import counts, write_config

from hfbench.cli import main
from hfbench.config import NETWORK_TASKS, RunConfig
from hfbench.errors import UserError
from hfbench.models import heads
from hfbench.models.configuration import find_configuration
from hfbench.tasks import TASKS, make_task

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_folder_and_its_config_file_count_like_the_model_that_trains(tiny_bert: Path) -> None:
    found = counts(tiny_bert)
    in_file = counts(tiny_bert / "config.json")
    assert found.strategies == in_file.strategies
    assert found.num_labels == 2
    assert f"Configuration: {tiny_bert / 'config.json'}" in found.notes
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    assert found.strategies[0].report.total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("task", [name for name in TASKS if name not in NETWORK_TASKS])
def test_classes_are_those_of_training(task: str) -> None:
    name = heads.TASKS[task][0]
    assert getattr(transformers, name) is make_task(RunConfig(task=task)).model_class  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("checkpoint", "task", "num_labels"),
    [
        ("roberta-base", "text_classification", 2),
        ("gpt2", "text_classification", 2),
        ("facebook/deit-tiny-patch16-224", "image_classification", 1000),
        ("facebook/hubert-base-ls960", "audio_classification", 2),
    ],
)
def test_task_and_labels_follow_from_the_checkpoint(
    checkpoint: str, task: str, num_labels: int
) -> None:
    found = counts(checkpoint, "head")
    assert (found.task, found.num_labels) == (task, num_labels)
    assert any(f"Task: {task}, the default for model type" in note for note in found.notes)


def test_own_labels_of_a_configuration(tmp_path: Path) -> None:
    labels = {"id2label": {"0": "no", "1": "maybe", "2": "yes"}}
    path = write_config(tmp_path, model_type="bert", num_hidden_layers=1, **labels)
    assert counts(path, "head").num_labels == 3
    assert counts(path, "head", num_labels=5).strategies[0].report.trainable == 5 * (768 + 1)


def test_timm_names_with_and_without_prefix_and_tag() -> None:
    strategies = ("full", "head", "last_2", "lora")
    plain = counts("deit_tiny_patch16_224", *strategies)
    assert [one.report.trainable for one in plain.strategies[:3]] == [5717416, 193000, 1082728]
    assert plain.num_labels == 1000
    assert plain.strategies[3].report.trainable == 193000 + 12 * 8 * (192 + 3 * 192)
    prefixed = counts("timm/deit_tiny_patch16_224", *strategies)
    assert prefixed.strategies == plain.strategies
    tagged = counts("timm/vit_tiny_patch16_224.augreg_in21k", "head", num_labels=10)
    assert tagged.strategies[0].report.trainable == 10 * (192 + 1)


def test_networks_without_attention_get_the_strategies_that_they_can_have() -> None:
    labels = [one.strategy for one in counts("resnet18").strategies]
    assert labels == ["full", "head", "last_2", "bitfit"]
    # The classifier lies inside a larger module and is new all the same.
    found = counts("convnext_atto", "head", num_labels=3)
    assert found.strategies[0].report.trainable == 3 * (320 + 1)


def test_a_timm_configuration_in_a_folder(tmp_path: Path) -> None:
    write_config(
        tmp_path, architecture="vit_tiny_patch16_224", num_classes=7, model_args={"depth": 2}
    )
    found = counts(tmp_path, "head", "full")
    assert found.strategies[0].report.trainable == 7 * (192 + 1)
    assert [row.name for row in found.strategies[1].report.by_depth if "block" in row.name] == [
        "block 0",
        "block 1",
    ]


def test_what_the_hub_client_downloaded_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub/models--someone--model"
    write_config(folder / "snapshots/0123456789abcdef", model_type="distilbert", n_layers=1)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("0123456789abcdef")
    found = find_configuration("someone/model")
    assert found.values == {"model_type": "distilbert", "n_layers": 1}
    assert "revision 0123456789ab" in found.source


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"model_type": "perceptron-9", "architectures": ["Nine"]}, "'perceptron-9', Nine is unkn"),
        ({"hidden_size": 3, "color": "red"}, "It holds: hidden_size, color"),
        ({"model_type": ["bert"]}, "names neither a model_type"),
        ({"model_type": "t5"}, r"several stacks of blocks \(transformer.decoder.block, .*T5Stack"),
        ({"model_type": "blip"}, "'blip'.* has no class for any of text_classification"),
        ({"model_type": "bert", "num_hidden_layers": 0}, "no list of like blocks.*BertEmbeddings"),
        ({"model_type": "bert", "num_labels": "two"}, "number of labels, 'two'"),
        ({"architecture": "vit_tiny_patch16_224", "model_args": {"n": 3}}, "no network.*'n'"),
        ({"model_type": "bert", "hidden_size": "wide"}, "makes no network.*hidden_size"),
        ({"model_type": "bert", "hidden_size": 100}, "makes no network.*multiple of"),
    ],
)
def test_an_unknown_architecture_says_what_was_found(
    values: dict[str, Any], found: str, tmp_path: Path
) -> None:
    path = write_config(tmp_path, **values)
    with pytest.raises(UserError, match=f"(?s){found}"):
        counts(path)


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff\x00")
    with pytest.raises(UserError, match=r"model.safetensors' is not a JSON file"):
        counts(path)


def test_without_a_hub_similar_known_names_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["params", "google-bert/bert-base-uncase"]) == 3
    assert "did you mean google-bert/bert-base-uncased" in capsys.readouterr().err
