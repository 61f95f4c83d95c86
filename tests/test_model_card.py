"""The card of a published model: metadata, claims and no secrets."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from card_results import card_result, with_config
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from snapshot_check import assert_snapshot

from hfbench.config import StrategyName, load_config, parse_strategy
from hfbench.data.tables import TABLE_READERS
from hfbench.errors import UserError
from hfbench.record import run_id
from hfbench.report.card_metadata import TABLE_SUFFIXES, find_source
from hfbench.report.model_card import model_card
from hfbench.results import RunResult

SST2 = (
    "model.checkpoint=google-bert/bert-base-uncased",
    "model.revision=86b5e0934494bd15c9632b12f734a8a67f723594",
    "data.source=nyu-mll/glue",
    "data.name=sst2",
    "data.revision=bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    "data.test_split=validation",
)
BUNDLED = ("model.checkpoint=bundled/bert-tiny", "data.source=bundled/python-docs")
LOCAL = (
    "model.checkpoint=/home/alice/hf_notatokenbutlookslikeone/my-bert",
    "data.source=/home/alice/hf_notatokenbutlookslikeone/reviews.csv",
    "output_dir=/home/alice/hf_notatokenbutlookslikeone/runs",
)
DATASET_ID = re.compile(r"(?:[\w-]+/)?[\w.-]+")


def card_of(result: RunResult, **changes: Any) -> str:
    arguments: dict[str, Any] = {"repo_id": "alice/reviews", "contents": "model", "local": ()}
    return model_card(result, **(arguments | changes))


def metadata_of(text: str) -> dict[str, Any]:
    """The YAML block, read without the Hub's library."""
    loaded: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return loaded


def yaml_config(text: str) -> str:
    return text.split("```yaml\n")[1].split("```")[0]


@pytest.mark.parametrize("overrides", [SST2, BUNDLED, LOCAL], ids=["hub", "bundled", "local"])
def test_the_model_index_equals_the_result_to_the_last_digit(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    result = card_result(*overrides)
    result.save(tmp_path / "result.json")
    stored = json.loads((tmp_path / "result.json").read_text())["test_metrics"]
    text = card_of(result)
    card = ModelCard(text)  # raises ValueError for metadata that are not valid
    assert card.data.model_name == "reviews"
    expected = [stored[key] for key in ("loss", "accuracy", "f1_macro", "f1", "precision")]
    values = [one.metric_value for one in card.data.eval_results]
    assert list(map(repr, values)) == list(map(repr, expected))
    kinds = [(one.metric_type, one.metric_args) for one in card.data.eval_results]
    assert kinds == [
        ("loss", None),
        ("accuracy", None),
        ("f1", {"average": "macro"}),
        ("f1", {"average": "binary"}),
        ("precision", {"average": "binary"}),
    ]
    index = metadata_of(text)["model-index"]
    assert eval_results_to_model_index("reviews", card.data.eval_results) == index
    assert len(index[0]["results"]) == 1
    assert DATASET_ID.fullmatch(index[0]["results"][0]["dataset"]["type"])
    assert str(card) == text  # nothing is lost by reading and writing


def test_metadata_of_a_hub_checkpoint_and_hub_data_name_both_with_their_revisions() -> None:
    text = card_of(card_result(*SST2, "strategy=lora"), contents="adapter")
    metadata = metadata_of(text)
    index = metadata.pop("model-index")
    assert metadata == {
        "base_model": "google-bert/bert-base-uncased",
        "base_model_relation": "adapter",
        "datasets": ["nyu-mll/glue"],
        "library_name": "peft",
        "metrics": ["accuracy", "f1", "precision"],
        "pipeline_tag": "text-classification",
        "tags": ["hfbench", "lora", "transformers"],
    }
    assert index[0]["results"][0]["task"] == {
        "type": "text-classification",
        "name": "Text Classification",
    }
    assert index[0]["results"][0]["dataset"] == {
        "name": "nyu-mll/glue (sst2)",
        "type": "nyu-mll/glue",
        "config": "sst2",
        "split": "validation",
        "revision": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    }


@pytest.mark.parametrize("contents", ["model", "merged"])
def test_whole_weights_are_a_finetune_for_transformers(contents: str) -> None:
    metadata = metadata_of(card_of(card_result(*SST2), contents=contents))
    assert metadata["library_name"] == "transformers"
    assert metadata["base_model_relation"] == "finetune"
    assert metadata["tags"] == ["hfbench", "full"]


@pytest.mark.parametrize("overrides", [BUNDLED, LOCAL], ids=["bundled", "local"])
def test_what_is_not_on_the_hub_is_not_claimed_to_be(overrides: tuple[str, ...]) -> None:
    metadata = metadata_of(card_of(card_result(*overrides)))
    unknown = {"base_model", "base_model_relation", "datasets", "license", "language"}
    assert not unknown & set(metadata)


def test_random_weights_derive_from_no_checkpoint() -> None:
    pretrained = card_of(card_result(*SST2, "strategy=last_2"))
    assert "It had learnt from BooksCorpus, English Wikipedia" in pretrained
    assert "Those of the base checkpoint (Apache-2.0) and of the data apply." in pretrained
    text = card_of(card_result(*SST2, "strategy=scratch"))
    assert "BooksCorpus" not in text
    assert "That of the data applies." in text
    metadata = metadata_of(text)
    assert "base_model" not in metadata
    assert metadata["datasets"] == ["nyu-mll/glue"]


def test_a_split_that_was_taken_from_train_is_no_split_of_the_data() -> None:
    result = card_result(*BUNDLED)
    notes = ["no test split: 300 samples were taken from train (stratified)"]
    result = dataclasses.replace(result, data=result.data | {"notes": notes})
    text = card_of(result)
    assert "split" not in metadata_of(text)["model-index"][0]["results"][0]["dataset"]
    assert "Tested on 300 samples of bundled/python-docs, taken from train" in text


def test_a_metric_that_is_not_finite_has_no_place_in_the_index() -> None:
    result = card_result(*SST2, test_metrics={"loss": math.nan, "accuracy": 0.5})
    index = metadata_of(card_of(result))["model-index"]
    assert [one["type"] for one in index[0]["results"][0]["metrics"]] == ["accuracy"]


@pytest.mark.parametrize("contents", ["model", "adapter"])
def test_no_path_of_a_machine_and_nothing_like_a_token_is_published(contents: str) -> None:
    text = card_of(card_result(*LOCAL), contents=contents, repo_id="team/reviews")
    assert "my-bert" in text
    assert "reviews.csv" in text
    for private in ("/home", "alice", "hf_", "runs", "/my-bert", "/reviews.csv"):
        assert private not in text
    windows = with_config(card_result(*LOCAL), "data", source="C:\\Users\\alice\\reviews.csv")
    assert "alice" not in card_of(windows, contents=contents, repo_id="team/reviews")


def test_names_are_local_by_their_form_or_because_the_caller_says_so() -> None:
    assert set(TABLE_SUFFIXES) == set(TABLE_READERS)
    for name in ("a/b/c", "./a", "~/a", "/a", "a.csv", "b/a.PARQUET", "a b", "..", "C:\\a"):
        assert find_source(name, None, local=()).kind == "local", name
    for name in ("imdb", "user/data-v1.0"):
        assert find_source(name, "main", local=()).kind == "hub", name
    assert find_source("models/bert", None, local=()).kind == "hub"
    assert find_source("models/bert/", "x", local=["models/bert/"]).name == "bert"
    assert find_source("~", None, local=()).name == "local folder"


def test_a_whole_card_looks_as_before() -> None:
    result = card_result(
        *SST2, "strategy=lora:r=4", "training.learning_rate=2e-5", "seed=1", "training.epochs=2"
    )
    text = card_of(result, contents="adapter", revision="trial", plots=["plots/loss.png"])
    assert_snapshot(text, "model_card.md")


@pytest.mark.parametrize(
    "strategy", ["full", "last_2", "blocks:0+3", "lora:r=4,targets=all_linear", "full:freeze=*.b*"]
)
def test_the_settings_to_reproduce_are_those_of_the_run(strategy: str, tmp_path: Path) -> None:
    overrides = [*SST2, f"strategy={strategy}", "training.learning_rate=3e-5", "seed=7"]
    neutral = ["output_dir=/home/alice/runs", "training.eval_batch_size=8", "tracker=wandb"]
    config = load_config(None, [*overrides, *neutral], task="text_classification")
    file = tmp_path / "config.yaml"
    file.write_text(yaml_config(card_of(card_result(*overrides, *neutral))))
    assert run_id(load_config(file, task="text_classification")) == run_id(config)
    assert set(yaml.safe_load(file.read_text())["training"]) == {"learning_rate"}


def test_a_measured_precision_is_named_and_repeated_elsewhere() -> None:
    hardware = {"cpu": "AMD EPYC", "cores": 2, "gpus": [], "threads": 1, "precision": "bf16"}
    text = card_of(card_result(*SST2, "training.mixed_precision=auto", hardware=hardware))
    assert "1 thread, bfloat16 autocast of float32 weights." in text
    assert yaml.safe_load(yaml_config(text))["training"]["mixed_precision"] == "bf16"


def test_local_files_are_asked_for_where_the_run_is_repeated() -> None:
    text = card_of(card_result(*LOCAL))
    assert "Put your path into `model.checkpoint` and `data.source`" in text
    assert yaml.safe_load(yaml_config(text))["data"] == {"source": "reviews.csv"}


@pytest.mark.parametrize(
    ("processes", "gpus", "threads", "expected"),
    [
        (1, [], 1, "accelerate launch --config_file accelerate_configs/cpu.yaml recipes"),
        (1, ["H100"], None, "accelerate launch --config_file accelerate_configs/single_gpu.yaml r"),
        (1, ["H100"], 8, "accelerate launch --config_file accelerate_configs/cpu.yaml recipes"),
        (
            4,
            ["H100"] * 4,
            None,
            "accelerate launch --config_file accelerate_configs/multi_gpu.yaml --num_processes 4 r",
        ),
        (
            2,
            [],
            None,
            "ACCELERATE_USE_CPU=true accelerate launch --config_file "
            "accelerate_configs/multi_cpu.yaml --num_processes 2 recipes",
        ),
    ],
)
def test_the_command_starts_as_many_processes_on_the_same_kind_of_device(
    processes: int, gpus: list[str], threads: int | None, expected: str
) -> None:
    hardware = {"cpu": "AMD EPYC", "cores": 8, "gpus": gpus, "threads": threads}
    text = card_of(card_result(*SST2, num_processes=processes, hardware=hardware))
    line = text.split("Then, in a clone of hfbench:\n\n```\n")[1].splitlines()[0]
    assert line.startswith(expected)
    assert line.endswith("recipes/text_classification.py --config config.yaml")
    named = re.search(r"accelerate_configs/\w+\.yaml", line)
    assert named is not None
    assert (Path(__file__).parents[1] / named[0]).is_file()


def test_every_strategy_is_described() -> None:
    spellings = {name: name for name in get_args(StrategyName)}
    spellings |= {"last_n": "last_2", "first_n": "first_3", "blocks": "blocks:0+3"}
    for name, spelling in spellings.items():
        assert parse_strategy(spelling).name == name
        text = card_of(card_result(*SST2, f"strategy={spelling}"))
        assert "trained" in text.split(f"with the strategy `{spelling}`: ")[1].splitlines()[0]
    for spelling, words in (("last_2", "last 2 blocks"), ("first_1", "first block")):
        text = card_of(card_result(*SST2, f"strategy={spelling}"))
        assert f"the head and the {words} trained." in text
    narrow = card_of(card_result(*SST2, "strategy=lora:targets=attention,last_n=2,freeze=*.bias"))
    assert "on the attention's layers of the last 2 blocks) and the head trained" in narrow
    assert "except the parameters that match `*.bias`" in narrow


def test_numbers_by_label_and_the_standard_error_are_computed_from_the_matrix() -> None:
    """120 of 165 predicted negative are right, 120 of 150 true; 225 of 300 in all."""
    text = card_of(card_result(*SST2))
    assert "| `negative` | 150 | 0.7273 | 0.8000 | 0.7619 |" in text
    assert "| `positive` | 150 | 0.7778 | 0.7000 | 0.7368 |" in text
    assert "standard error of 0.0250" in text  # sqrt(0.75 * 0.25 / 300)
    assert "an accuracy of 0.5000" in text
    assert "Never its answer" not in text
    metrics = {"accuracy": 0.5, "confusion_matrix": [[0, 0], [150, 150]]}
    odd = card_of(card_result(*SST2, test_metrics=metrics))
    assert "because the test split lacks them: `negative`." in odd
    silent = {"accuracy": 0.5, "confusion_matrix": [[150, 0], [150, 0]]}
    assert "Never its answer on the test split: `positive`." in card_of(
        card_result(*SST2, test_metrics=silent)
    )


def test_limits_of_the_data_and_of_training_are_named() -> None:
    result = card_result(
        *BUNDLED, "data.max_eval_samples=300", "training.epochs=3", "training.max_steps=20"
    )
    notes = ["no validation split: 150 samples were taken from train (stratified)"]
    text = card_of(dataclasses.replace(result, data=result.data | {"notes": notes}))
    assert "as many as `data.max_eval_samples` allowed" in text
    assert "The validation data (150 samples), by which the epoch was chosen, were taken" in text
    assert "Training ended after 2 of 3 epochs, as `training.max_steps` asked." in text
    stopped = card_result(*BUNDLED, "training.epochs=3", "training.early_stopping_patience=1")
    assert "as `training.early_stopping_patience` asked" in card_of(stopped)
    assert "Training ended after" not in card_of(card_result(*BUNDLED, "training.epochs=2"))


def test_many_labels_are_folded_and_none_is_left_out() -> None:
    result = card_result(*SST2)
    labels = [f"kind {i} | x" for i in range(30)]
    matrix = [[10 * (row == column) for column in range(30)] for row in range(30)]
    metrics = {"accuracy": 1.0, "confusion_matrix": matrix}
    result = dataclasses.replace(
        result, data=result.data | {"labels": labels}, test_metrics=metrics
    )
    text = card_of(result)
    assert text.count("<details>") == 2
    assert text.count("| <code>kind 29 &#124; x</code> | 10 | 1.0000 | 1.0000 | 1.0000 |") == 1


def test_a_run_without_a_prediction_has_a_card() -> None:
    text = card_of(card_result(*SST2, predicted=None, git=None))
    assert "| seconds per optimiser step | - | 0.500 |" in text  # 10 s, 20 steps
    assert "git commit" not in text


def test_a_failed_run_and_an_unknown_task_have_no_card() -> None:
    with pytest.raises(UserError, match="failed, so there is no model"):
        card_of(card_result(*SST2, status="failed", reason="x"))
    with pytest.raises(UserError, match="no model card for the task 'mnist_mlp'"):
        card_of(card_result("data.source=mnist", task="mnist_mlp"))
