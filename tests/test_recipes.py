"""Every recipe with its demo configuration, started as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("task", "demo"),
    [
        ("text_classification", "demo_text"),
        ("image_classification", "demo_image"),
        ("audio_classification", "demo_audio"),
    ],
)
def test_accelerate_launch_trains_lora(task: str, demo: str, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", str(ROOT / "accelerate_configs/cpu.yaml")),
        *(str(ROOT / f"recipes/{task}.py"), "--config", str(ROOT / f"recipes/configs/{demo}.yaml")),
        *("strategy.name=lora", "training.epochs=1", "data.max_train_samples=48"),
        *("data.max_eval_samples=48", f"output_dir={tmp_path / 'run'}"),
    ]
    finished = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{task}: bundled/" in finished.stdout
    assert "% trainable" in finished.stdout
    assert "adapter" in finished.stdout
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["status"] == "succeeded"
    assert result["strategy"] == "lora"
    assert (tmp_path / "run/model/adapter_model.safetensors").is_file()
