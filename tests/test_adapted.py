"""Folders of adapters as checkpoints to start from, and folders that only hold checkpoints."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_models
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hfbench.config import ModelConfig, load_config
from hfbench.errors import UserError
from hfbench.models import loading
from hfbench.models.adapted import load_model
from hfbench.models.bundled import resolve_checkpoint
from hfbench.models.configuration import find_configuration
from hfbench.report.weights import weights_lines
from hfbench.run import run
from hfbench.saving import load_model as load_saved
from hfbench.tasks import make_task


@pytest.fixture(scope="module")
def base(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path_factory.mktemp("adapted") / "base"))


@pytest.fixture(scope="module")
def own_run(base: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LoRA on classes ``down`` and ``up``."""
    folder = tmp_path_factory.mktemp("adapted_run") / "run"
    run(config_of(base, texts, folder, "strategy=lora:r=2", "training.learning_rate=0.01"))
    return folder


def config_of(checkpoint: Path, texts: Path, folder: Path, *settings: str) -> Any:
    return load_config(
        None,
        [
            f"model.checkpoint={checkpoint}",
            f"data.source={texts}",
            f"output_dir={folder}",
            "training.max_steps=2",
            *settings,
        ],
        task="text_classification",
    )


def changed_lora(model: Any, kind: type = peft.LoraConfig, **options: Any) -> Any:
    """An adapter that changes what the model answers."""
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, kind(**options))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "ia3_l" in name:
                parameter.normal_(1.0 if "ia3" in name else 0.0, 0.3)
    return adapted.eval()


def loaded(folder: Path, model_class: Any, **settings: Any) -> loading.Loaded:
    source = ModelConfig(checkpoint=str(folder))
    return load_model(source, loading.load_config(source, **settings), model_class)


def test_a_run_goes_on_from_an_adapter_and_its_head(
    own_run: Path, base: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = own_run / "model"
    config = config_of(adapter, texts, tmp_path / "run", "strategy=lora:r=2")
    task = make_task(config)
    data = task.prepare_data()
    built = task.build_model(data)
    assert built.new_parameters == set()
    batch = task.collate([data.test[0], data.test[1]])
    batch.pop("labels")
    with torch.no_grad():
        expected = load_saved(adapter)(**batch).logits
        torch.testing.assert_close(built.model(**batch).logits, expected, rtol=1e-4, atol=1e-5)
    result = run(config)
    assert result.weights is not None
    assert result.weights.merged == f"LORA adapter of {base}"
    said = f"weights: the checkpoint is a LORA adapter of {base}, merged into it"
    assert said in capsys.readouterr().out
    load_saved(tmp_path / "run" / "model")  # an adapter of an adapter


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (peft.LoraConfig, {"r": 2, "target_modules": ["query", "value"]}),
        (
            peft.IA3Config,
            {"target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"]},
        ),
    ],
    ids=["lora", "ia3"],
)
def test_an_adapter_without_configuration_takes_its_bases(
    base: Path, tmp_path: Path, kind: type, options: dict[str, Any]
) -> None:
    network = transformers.BertForSequenceClassification.from_pretrained(base)
    adapted = changed_lora(network, kind, modules_to_save=["classifier"], **options)
    adapted.save_pretrained(tmp_path)
    found = loaded(tmp_path, AutoModelForSequenceClassification)
    assert found.new_parameters == set()
    batch = tiny_models.batch_for(network)
    batch.pop("labels")
    batch = {name: values % 40 for name, values in batch.items()}
    with torch.no_grad():
        torch.testing.assert_close(
            found.model(**batch).logits, adapted(**batch).logits, rtol=1e-4, atol=1e-5
        )
    assert loading.load_tokenizer(ModelConfig(checkpoint=str(tmp_path))).vocab_size == 42
    assert find_configuration(str(tmp_path)).values["model_type"] == "bert"
    other = loaded(tmp_path, AutoModelForSequenceClassification, num_labels=5)
    assert other.new_parameters == {"classifier.weight", "classifier.bias"}


def test_a_language_models_adapter_serves_a_classifier(tmp_path: Path) -> None:
    tiny_models.gpt2_lm().save_pretrained(tmp_path / "base")  # type: ignore[operator]
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = changed_lora(network, r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    adapted.save_pretrained(tmp_path / "adapter")
    found = loaded(tmp_path / "adapter", AutoModelForSequenceClassification, num_labels=3)
    assert found.new_parameters == {"score.weight"}
    merged = adapted.merge_and_unload().transformer.h[0].attn.c_attn.weight
    torch.testing.assert_close(
        found.model.get_parameter("transformer.h.0.attn.c_attn.weight"), merged
    )
    lines = weights_lines(found.weights)
    assert lines[0].startswith("weights: the checkpoint is a LORA adapter of ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model_name_or_path": None}, "names no base"),
        ({"base_model_name_or_path": "/gone"}, "needs its base '/gone', which is not on this"),
        ({"target_modules": ["q_proj"]}, "does not fit a BertForSequenceClassification"),
        ({"target_modules": ["query"]}, "no place for .*value.lora_A"),
        ({"target_modules": ["query", "key", "value"]}, "it lacks .*key.lora_A"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}, "changes no weights"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    base: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    network = transformers.BertForSequenceClassification.from_pretrained(base)
    changed_lora(network, r=2, target_modules=["query", "value"]).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    values = json.loads(file.read_text())
    if "peft_type" in changes:
        values = {"task_type": "SEQ_CLS", "base_model_name_or_path": str(base)}
    file.write_text(json.dumps(values | changes))
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, AutoModelForSequenceClassification)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("model", "it is a run of hfbench, whose model is FOLDER/model"),
        ("lora_seed0/model", "it holds runs of hfbench, whose models are FOLDER/lora_seed0/model"),
        ("checkpoint-500", "it holds the states of a training, such as FOLDER/checkpoint-500"),
        ("snapshots/0a1b", "it is of the hub's cache, whose snapshots are FOLDER/snapshots/0a1b"),
        ("models--a--b/snapshots/0a1b", "it is the hub's cache, with FOLDER/models--a--b/"),
        ("bert", "there are some in it: FOLDER/bert"),
    ],
)
def test_folders_around_a_checkpoint_name_it(tmp_path: Path, inside: str, message: str) -> None:
    (tmp_path / inside).mkdir(parents=True)
    (tmp_path / inside / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no config\.json") as raised:
        resolve_checkpoint(str(tmp_path))
    assert message.replace("FOLDER", str(tmp_path)) in str(raised.value)
