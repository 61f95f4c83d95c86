"""Weights of a checkpoint that fit its network, fit it in part, or do not fit it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertForPreTraining,
)

from hfbench.config import HubConfig, ModelConfig, load_config
from hfbench.errors import UserError
from hfbench.hub import publication
from hfbench.models.loading import Loaded, load_model
from hfbench.models.loading import load_config as load_model_config
from hfbench.models.weight_files import INDEX_FILE, WEIGHTS_FILE
from hfbench.report.weights import weights_lines
from hfbench.results import RunResult, WeightsRecord
from hfbench.run import run
from hfbench.saving import load_model as load_saved

QUERY = "encoder.layer.0.attention.self.query.weight"
NEW_HEAD = {"classifier.weight", "classifier.bias"}


def loaded(folder: Path, model_class: Any, **changes: Any) -> Loaded:
    source = ModelConfig(checkpoint=str(folder), **changes)
    return load_model(source, load_model_config(source), model_class)


def rewritten(source: Path, folder: Path, rename: Callable[[str], str], **config: object) -> Path:
    """A copy of a checkpoint with other names in its file and other values in its config.json."""
    folder.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / WEIGHTS_FILE)
    save_file({rename(k): v for k, v in tensors.items()}, folder / WEIGHTS_FILE, {"format": "pt"})
    changed = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(changed))
    return folder


def shards(source: Path, folder: Path, rename: Callable[[str], str] = str) -> list[Path]:
    """The same in two files with an index."""
    rewritten(source, folder, rename)
    tensors = load_file(folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2]}
    parts["model-00002-of-00002.safetensors"] = names[1::2]
    for file, of in parts.items():
        save_file({name: tensors[name] for name in of}, folder / file, {"format": "pt"})
    where = {name: file for file, of in parts.items() for name in of}
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return [folder / file for file in parts]


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "module._orig_mod.", "model.model.", "_orig_mod.module."],
)
def test_what_a_wrapper_puts_before_the_names_is_removed(
    tiny_bert: Path, tmp_path: Path, prefix: str
) -> None:
    folder = rewritten(tiny_bert, tmp_path / "bert", lambda name: prefix + name)
    found = loaded(folder, AutoModelForSequenceClassification)
    stored = load_file(tiny_bert / WEIGHTS_FILE)
    assert found.new_parameters == NEW_HEAD
    assert torch.equal(found.model.get_parameter(f"bert.{QUERY}"), stored[QUERY])
    assert found.weights.removed_prefix == prefix
    assert weights_lines(found.weights)[0] == (
        f"weights: {prefix!r} is removed from the names in the file, which other programs do not do"
    )
    found.model.save_pretrained(tmp_path / "saved")  # type: ignore[operator]
    assert f"bert.{QUERY}" in load_file(tmp_path / "saved" / WEIGHTS_FILE)


def test_prefixes_are_removed_from_shards_and_from_names_inside(
    tiny_bert: Path, tmp_path: Path
) -> None:
    shards(tiny_bert, tmp_path / "shards", lambda name: f"module.{name}")
    found = loaded(tmp_path / "shards", AutoModelForSequenceClassification)
    assert (found.new_parameters, found.weights.removed_prefix) == (NEW_HEAD, "module.")

    def compiled(name: str) -> str:
        return f"bert._orig_mod.{name}"

    found = loaded(
        rewritten(tiny_bert, tmp_path / "inside", compiled), AutoModelForSequenceClassification
    )
    assert (found.new_parameters, found.weights.removed_prefix) == (NEW_HEAD, "_orig_mod.")


def test_a_prefix_that_is_the_networks_own_stays(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
    )
    network = transformers.LlamaForCausalLM(config)
    network.save_pretrained(tmp_path / "llama")
    found = loaded(tmp_path / "llama", AutoModelForSequenceClassification)
    assert found.new_parameters == {"score.weight"}
    assert found.weights.removed_prefix is None
    assert found.weights.left_over == {"lm_head": 1}
    wrapped = rewritten(tmp_path / "llama", tmp_path / "wrapped", lambda name: f"module.{name}")
    found = loaded(wrapped, AutoModelForCausalLM)
    assert (found.new_parameters, found.weights.removed_prefix) == (set(), "module.")
    assert torch.equal(found.model.get_parameter("lm_head.weight"), network.lm_head.weight)


def test_a_wrapped_timm_network_is_read(tmp_path: Path) -> None:
    config = transformers.TimmWrapperConfig.from_dict(
        {
            "architecture": "vit_tiny_patch16_224",
            "model_args": {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2},
            "num_classes": 3,
        }
    )
    transformers.TimmWrapperForImageClassification(config).save_pretrained(tmp_path / "timm")
    folder = rewritten(tmp_path / "timm", tmp_path / "wrapped", lambda name: f"module.{name}")
    found = loaded(folder, AutoModelForImageClassification)
    assert (found.new_parameters, found.weights.removed_prefix) == (set(), "module.")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (2, r"the network lacks bert\.encoder\.layer\.2 \(bert\.encoder\.layer\.2\..*13 more\)"),
        (4, r"the file lacks block 3 \(bert\.encoder\.layer\.3\..*13 more\)"),
        (6, r"the file lacks block 3 .*; the file lacks block 4 .*; the file lacks block 5"),
    ],
)
def test_another_number_of_layers_than_in_the_file_is_refused(
    tiny_bert: Path, tmp_path: Path, layers: int, message: str
) -> None:
    folder = rewritten(tiny_bert, tmp_path / "bert", str, num_hidden_layers=layers)
    with pytest.raises(UserError, match=message):
        loaded(folder, AutoModelForSequenceClassification)


@pytest.mark.parametrize(
    ("model_class", "config", "changes", "message"),
    [
        (
            AutoModelForImageClassification,
            tiny_models.vit,
            {"image_size": 16},
            r"position_embeddings is \[1, 5, 16\] in the file and \[1, 17, 16\] in the network",
        ),
        (
            AutoModelForAudioClassification,
            tiny_models.wav2vec2,
            {"conv_dim": [8], "conv_kernel": [4], "conv_stride": [4], "num_feat_extract_layers": 1},
            r"the network lacks wav2vec2\.feature_extractor\.conv_layers\.1 ",
        ),
        (
            AutoModelForSequenceClassification,
            tiny_models.gpt2,
            {"n_layer": 4},
            r"the file lacks block 3 \(transformer\.h\.3\.",
        ),
    ],
)
def test_what_does_not_fit_the_backbone_is_refused_by_name(
    tmp_path: Path,
    model_class: Any,
    config: Callable[[], Any],
    changes: dict[str, object],
    message: str,
) -> None:
    config().save_pretrained(tmp_path / "whole")
    folder = rewritten(tmp_path / "whole", tmp_path / "changed", str, **changes)
    with pytest.raises(UserError, match=message):
        loaded(folder, model_class)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lost", r"experts\.down_proj is \[1, 16, 32\] in the file and \[2, 16, 32\]"),
        ("cut", r"several tensors of the file into one of the network .* unequal shapes"),
    ],
)
def test_experts_that_do_not_fit_are_refused(tmp_path: Path, change: str, message: str) -> None:
    """Each is a tensor in the file, and all of a block are one in the network."""
    config = transformers.MixtralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    for name in [name for name in tensors if ".experts.1." in name]:
        tensor = tensors.pop(name)
        if change == "cut":
            tensors[name] = tensor[:-1].clone()
    save_file(tensors, tmp_path / WEIGHTS_FILE, {"format": "pt"})
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, AutoModelForCausalLM)


def test_names_of_another_library_are_shown(tiny_bert: Path, tmp_path: Path) -> None:
    folder = rewritten(tiny_bert, tmp_path / "bert", lambda name: f"student.{name}")
    with pytest.raises(UserError, match=r"file's names are like student\.embeddings\.LayerNorm"):
        loaded(folder, AutoModelForSequenceClassification)


def test_allowed_patterns_start_new_or_are_left_out(tiny_bert: Path, tmp_path: Path) -> None:
    more = rewritten(tiny_bert, tmp_path / "more", str, num_hidden_layers=4)
    found = loaded(more, AutoModelForSequenceClassification, allow_new=("*.layer.3.*",))
    assert set(found.weights.new) == {"block 3", "head"}
    assert len(found.weights.new["block 3"]) == 16
    fewer = rewritten(tiny_bert, tmp_path / "fewer", str, num_hidden_layers=2)
    found = loaded(fewer, AutoModelForSequenceClassification, allow_new=("*.layer.2.*",))
    assert found.weights.left_over == {"bert.encoder.layer.2": 16}
    with pytest.raises(UserError, match=r"allow_new=\['\*\.layer\.9\.\*'\] matches nothing"):
        loaded(fewer, AutoModelForSequenceClassification, allow_new=("*.layer.9.*",))
    with pytest.raises(UserError, match=r"the network lacks bert\.encoder\.layer\.2"):
        loaded(fewer, AutoModelForSequenceClassification, allow_new=("classifier.*",))


def bert_config() -> Any:
    return tiny_models.bert().config


@pytest.mark.parametrize(
    ("made", "model_class", "new", "left_over"),
    [
        (
            lambda: BertForMaskedLM(bert_config()),
            AutoModelForSequenceClassification,
            {"pooler", "head"},
            {"cls"},
        ),
        (
            lambda: BertForPreTraining(bert_config()),
            AutoModelForSequenceClassification,
            {"head"},
            {"cls"},
        ),
        (
            lambda: transformers.ViTModel(tiny_models.vit().config),
            AutoModelForImageClassification,
            {"head"},
            {"pooler"},
        ),
        (
            lambda: transformers.Wav2Vec2ForPreTraining(
                tiny_models.wav2vec2(
                    codevector_dim=8, proj_codevector_dim=8, num_codevectors_per_group=4
                ).config
            ),
            AutoModelForAudioClassification,
            {"head"},
            {"quantizer", "project_hid", "project_q"},
        ),
        (
            lambda: transformers.GPT2Model(tiny_models.gpt2_config()),
            AutoModelForCausalLM,
            set(),
            set(),
        ),
        (
            lambda: transformers.CLIPModel(
                transformers.CLIPConfig(
                    text_config={**tiny_models.SMALL, "vocab_size": 50},
                    vision_config={**tiny_models.SMALL, "image_size": 8, "patch_size": 4},
                )
            ),
            AutoModelForImageClassification,
            {"head"},
            {"text_model", "text_projection", "visual_projection", "logit_scale"},
        ),
    ],
    ids=["masked_lm", "pretraining", "vit", "wav2vec2", "gpt2", "clip"],
)
def test_what_a_task_adds_is_new_and_pretraining_heads_are_left_over(
    tmp_path: Path,
    made: Callable[[], Any],
    model_class: Any,
    new: set[str],
    left_over: set[str],
) -> None:
    made().save_pretrained(tmp_path)
    found = loaded(tmp_path, model_class).weights
    assert (set(found.new), set(found.left_over)) == (new, left_over)


def test_names_of_older_torch_and_transformers_are_read(tmp_path: Path) -> None:
    """Weight norm as ``weight_g``; masks among the weights of GPT-Neo's attention."""
    tiny_models.wav2vec2().save_pretrained(tmp_path / "wav2vec2")

    def older(name: str) -> str:
        name = name.replace("parametrizations.weight.original0", "weight_g")
        return name.replace("parametrizations.weight.original1", "weight_v")

    folder = rewritten(tmp_path / "wav2vec2", tmp_path / "older", older)
    found = loaded(folder, AutoModelForAudioClassification)
    assert found.new_parameters == set()
    neo = transformers.GPTNeoConfig(
        vocab_size=50,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global"], 2]],
        max_position_embeddings=12,
    )
    transformers.GPTNeoModel(neo).save_pretrained(tmp_path / "neo")
    tensors = load_file(tmp_path / "neo" / WEIGHTS_FILE)
    tensors["h.0.attn.attention.masked_bias"] = torch.tensor(-1e9)
    tensors["h.0.attn.attention.bias"] = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    save_file(tensors, tmp_path / "neo" / WEIGHTS_FILE, {"format": "pt"})
    assert loaded(tmp_path / "neo", AutoModelForCausalLM).weights.left_over == {}


def run_config(checkpoint: Path, texts: Path, tmp_path: Path, *settings: str) -> Any:
    return load_config(
        None,
        [
            f"model.checkpoint={checkpoint}",
            f"data.source={texts}",
            f"output_dir={tmp_path / 'run'}",
            "strategy=head",
            "training.max_steps=1",
            *settings,
        ],
        task="text_classification",
    )


def test_a_run_from_a_wrapped_checkpoint_trains_the_head_alone_and_records_it(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrapped = rewritten(tiny_bert, tmp_path / "wrapped", lambda name: f"module.{name}")
    result = run(run_config(wrapped, texts, tmp_path))
    assert result.parameters is not None
    assert result.parameters.trainable == 2 * 32 + 2
    assert result.weights == WeightsRecord(
        head="new",
        new={"head": ["classifier.bias", "classifier.weight"]},
        reshaped={},
        left_over={},
        removed_prefix="module.",
    )
    assert RunResult.load(tmp_path / "run" / "result.json").weights == result.weights
    said = capsys.readouterr().out
    assert "weights: 'module.' is removed from the names in the file" in said
    assert said.index("weights: the head is new") < said.index("trainable")
    assert f"bert.{QUERY}" in load_file(tmp_path / "run" / "model" / WEIGHTS_FILE)


def test_an_adapter_of_a_wrapped_checkpoint_loads_again_and_is_not_published_alone(
    tiny_bert: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = rewritten(tiny_bert, tmp_path / "wrapped", lambda name: f"module.{name}")
    run(run_config(wrapped, texts, tmp_path, "strategy=lora:r=2"))
    stored = load_file(tiny_bert / WEIGHTS_FILE)[QUERY]
    model: Any = load_saved(tmp_path / "run" / "model")
    query = model.get_base_model().bert.get_submodule(QUERY.removesuffix(".weight"))
    assert torch.equal(query.base_layer.weight, stored)
    monkeypatch.setattr(publication, "_base_of", lambda folder: "owner/name")
    with pytest.raises(UserError, match=r"base begin with 'module\.', .* merged"):
        publication.prepare_publication(tmp_path / "run", HubConfig(repo_id="owner/adapter"))


def test_older_results_without_weights_are_read(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    values = run(run_config(tiny_bert, texts, tmp_path)).to_dict()
    del values["weights"]
    assert RunResult.from_dict(values).weights is None


def test_lines_are_short_for_many_names() -> None:
    record = WeightsRecord(
        head="new",
        new={"head": [f"h{i}" for i in range(6)], "pooler": ["p"]},
        reshaped={"h0": [3, 4]},
        left_over={"cls": 7, "scale": 1},
        removed_prefix=None,
    )
    assert weights_lines(record) == [
        "weights: the head is new; new are head (h0, h1, h2, h3, 2 more), pooler (p)",
        "weights: of another shape in the file are h0 [3, 4]",
        "weights: the file has more, which is left out: cls (7 tensors), scale (1 tensor)",
    ]
    assert weights_lines(None) == []


def missing(first: Path, second: Path) -> None:
    second.unlink()


def truncated(first: Path, second: Path) -> None:
    second.write_bytes(second.read_bytes()[:-100])


def of_another(first: Path, second: Path) -> None:
    second.write_bytes(first.read_bytes())


def no_names(first: Path, second: Path) -> None:
    (first.parent / INDEX_FILE).write_text('{"weight_map": [1]}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, r"lacks model-00002-of-00002\.safetensors: .* names 2 files of weights, and 1 "),
        (truncated, r"the safetensors file '.*model-00002-of-00002\.safetensors' is broken"),
        (of_another, r"model-00002-of-00002\.safetensors' lacks \d+ tensors that model\.safet"),
        (no_names, r"index\.json' does not say in which file each tensor is"),
    ],
)
def test_damaged_shards_are_named(
    tiny_bert: Path, tmp_path: Path, damage: Callable[[Path, Path], None], message: str
) -> None:
    folder = tmp_path / "bert"
    files = shards(tiny_bert, folder)
    assert loaded(folder, AutoModelForSequenceClassification).new_parameters == NEW_HEAD
    damage(*files)
    with pytest.raises(UserError, match=message):
        loaded(folder, AutoModelForSequenceClassification)
