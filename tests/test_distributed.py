"""Two real processes started by accelerate launch take the same steps as one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from text_zoo import build
from transformers import BertTokenizer, Dinov2Config, Dinov2Model, ViTImageProcessor

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config(tmp_path: Path, tiny_bert: Path) -> Path:
    """33 training samples in batches of 8: the last batch leaves one process without a sample."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for path in tiny_bert.iterdir():
        (checkpoint / path.name).write_bytes(path.read_bytes())
    values = json.loads((checkpoint / "config.json").read_text())
    values.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (checkpoint / "config.json").write_text(json.dumps(values))
    rows = [("good cat", "up"), ("bad dog sleeps", "down"), ("the red fish sings .", "side")] * 17
    data = tmp_path / "data"
    data.mkdir()
    for name, (start, end) in {"train": (0, 33), "validation": (33, 42), "test": (42, 49)}.items():
        lines = [json.dumps({"text": f"{t} {i}", "label": y}) for i, (t, y) in enumerate(rows)]
        (data / f"{name}.jsonl").write_text("\n".join(lines[start:end]))
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "task": "text_classification",
                "model": {"checkpoint": str(checkpoint)},
                "data": {
                    "source": str(data),
                    "validation_split": "validation",
                    "test_split": "test",
                },
                "training": {
                    "epochs": 3,
                    "batch_size": 8,
                    "eval_batch_size": 2,
                    "gradient_accumulation_steps": 2,
                    "learning_rate": 1e-3,
                },
            }
        )
    )
    return path


def launch(
    config: Path, processes: int, folder: Path, *more: str, task: str = "text_classification"
) -> dict[str, Any]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    launcher += ["--config_file", str(ROOT / "accelerate_configs/multi_cpu.yaml")]
    launcher += ["--num_processes", str(processes), "--main_process_port", "0"]
    recipe = [str(ROOT / f"recipes/{task}.py"), "--config", str(config)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*launcher, *recipe, f"output_dir={folder}", *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


@pytest.mark.parametrize(
    ("strategy", "epochs"), [("full", 3), pytest.param("gradual", 5, marks=pytest.mark.slow)]
)
def test_two_processes_give_the_numbers_of_one(
    config: Path, tmp_path: Path, strategy: str, epochs: int
) -> None:
    more = (f"strategy={strategy}", f"training.epochs={epochs}")
    one = launch(config, 1, tmp_path / "one", *more)
    two = launch(config, 2, tmp_path / "two", *more)
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    assert one["steps"] == two["steps"] == 3 * epochs  # 5 batches, windows of 2, 2 and 1

    for a, b in zip(one["history"], two["history"], strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=1e-5)
        assert b["validation"]["loss"] == pytest.approx(a["validation"]["loss"], abs=1e-5)
    assert two["test_metrics"]["loss"] == pytest.approx(one["test_metrics"]["loss"], abs=1e-5)

    for result in (one, two):  # every sample once: 7 in test, 9 in validation
        assert sum(map(sum, result["test_metrics"]["confusion_matrix"])) == 7
        for record in result["history"]:
            assert sum(map(sum, record["validation"]["confusion_matrix"])) == 9
    assert two["test_metrics"]["confusion_matrix"] == one["test_metrics"]["confusion_matrix"]


@pytest.mark.slow
def test_two_processes_take_batches_in_parts_of_one_length_as_one_does(
    config: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """Parts of an odd number of texts leave one process without a sample."""
    checkpoint = tmp_path / "fnet"
    tokenizer = BertTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(checkpoint)
    network: Any = build(
        "fnet", vocab_size=len(tokenizer), intermediate_size=128, hidden_dropout_prob=0.0
    )
    network.fnet.save_pretrained(checkpoint)
    more = (f"model.checkpoint={checkpoint}", "strategy=full")
    one = launch(config, 1, tmp_path / "one", *more)
    two = launch(config, 2, tmp_path / "two", *more)
    assert one["steps"] == two["steps"] == 9
    for result in (one, two):
        assert any("takes padding for text" in note for note in result["data"]["notes"])
        assert sum(map(sum, result["test_metrics"]["confusion_matrix"])) == 7
    for a, b in zip(one["history"], two["history"], strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=1e-5)
        assert b["validation"]["loss"] == pytest.approx(a["validation"]["loss"], abs=1e-5)


def test_two_processes_store_a_frozen_prefix_together(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind it they give the numbers of one process that computes it in every step."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one = launch(config, 1, tmp_path / "one", "strategy=last_1", "cache=off")
    two = launch(config, 2, tmp_path / "two", "strategy=last_1")
    assert one["prefix"] is None
    assert two["prefix"]["place"] == "blocks-2"
    entries = list((tmp_path / "cache/hfbench/prefix").iterdir())
    assert len(entries) == 3
    assert all({"0.bin", "1.bin"} < {file.name for file in entry.iterdir()} for entry in entries)
    for a, b in zip(one["history"], two["history"], strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=1e-5)
        assert b["validation"]["loss"] == pytest.approx(a["validation"]["loss"], abs=1e-5)
    assert two["test_metrics"]["confusion_matrix"] == one["test_metrics"]["confusion_matrix"]


def test_parameters_that_a_step_does_not_use_are_no_obstacle(tmp_path: Path) -> None:
    """DINOv2's mask token has no gradient without masking; also with one wrapped process."""
    torch.manual_seed(0)
    settings = Dinov2Config(
        image_size=16,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
    )
    Dinov2Model(settings).save_pretrained(tmp_path / "checkpoint")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "checkpoint")
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(level, level + 50, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{index}.png")
    config = tmp_path / "config.yaml"
    values = {
        "model": {"checkpoint": str(tmp_path / "checkpoint")},
        "data": {"source": str(tmp_path / "images")},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3},
    }
    config.write_text(yaml.safe_dump(values))
    one, two = (
        launch(config, count, tmp_path / f"run{count}", task="image_classification")
        for count in (1, 2)
    )
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    for a, b in zip(one["history"], two["history"], strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=1e-5)


def test_whole_batches_are_shared_out_too(tmp_path: Path) -> None:
    """701 digits in batches of 100: the last one has a single sample for two processes."""
    config = tmp_path / "config.yaml"
    values = {
        "network": {"widths": [16]},
        "data": {"source": "bundled/digits", "max_train_samples": 701},
        "training": {"epochs": 2, "batch_size": 100, "learning_rate": 1e-2, "l2": 1e-3},
    }
    config.write_text(yaml.safe_dump(values))
    one, two = (
        launch(config, count, tmp_path / f"run{count}", task="mnist_mlp") for count in (1, 2)
    )
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    for a, b in zip(one["history"], two["history"], strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=1e-5)
    assert one["test_metrics"]["confusion_matrix"] == two["test_metrics"]["confusion_matrix"]
