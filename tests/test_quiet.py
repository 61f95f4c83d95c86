"""Standard error is ours: what libraries say that means nothing to the user is not heard."""

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import overrides

from hfbench import quiet

OURS = ("... ", "note: ", "warning: ", "hfbench: ")
BAR = "%|"
FEW_TASKS = ("text_classification",)
OTHERS = ("image_classification", "audio_classification", "speech_recognition", "causal_lm", None)
COMMANDS = """
import json, sys
from hfbench.start import prepare_process
prepare_process()
from hfbench.cli import main, recipe_main
for task, arguments in json.loads(sys.argv[1]):
    code = main(arguments) if task is None else recipe_main(task, None, arguments)
    assert code == 0, (task, arguments)
"""


@pytest.fixture
def odd_images(tmp_path: Path) -> Path:
    """Transparent palettes, and EXIF that is cut off."""
    folder = tmp_path / "odd_images"
    rng = np.random.default_rng(0)
    cut = b"Exif\\0\\0II*\\0\\x08\\0\\0\\0\\x05\\0\\x12\\x01\\x03\\0\\x01\\0\\0\\0\\x01\\0"
    for label, level in (("dark", 40), ("light", 200)):
        (folder / label).mkdir(parents=True)
        for index in range(10):
            image = Image.fromarray(rng.integers(level, level + 50, (20, 20, 3), dtype=np.uint8))
            image.save(folder / label / f"{index}.jpg", exif=cut)
            palette = image.convert("P")
            palette.save(folder / label / f"{index}.png", transparency=bytes(range(200)))
    return folder


@pytest.mark.parametrize("tasks", [FEW_TASKS, pytest.param(OTHERS, marks=pytest.mark.slow)])
def test_every_line_of_every_task_is_ours(
    tasks: tuple[str | None, ...],
    tiny_bert: Path,
    tiny_gpt2: Path,
    tiny_vit: Path,
    tiny_wav2vec2: Path,
    texts: Path,
    pairs: Path,
    odd_images: Path,
    sounds: Path,
    speech: Path,
    tmp_path: Path,
) -> None:
    def run(task: str, checkpoint: Path, data: Path, *more: str) -> tuple[str, list[str]]:
        few = ("training.max_steps=2", "training.num_workers=0")
        return task, overrides(checkpoint, data, tmp_path / task, *few, *more)

    def predict(task: str, given: str) -> tuple[None, list[str]]:
        output = str(tmp_path / f"{task}.csv")
        return None, ["predict", str(tmp_path / task), given, "--output", output]

    three_labels = tmp_path / "three_labels"  # a checkpoint with a head for other data
    shutil.copytree(tiny_bert, three_labels)
    settings = json.loads((three_labels / "config.json").read_text())
    settings["id2label"] = {"0": "a", "1": "b", "2": "c"}
    (three_labels / "config.json").write_text(json.dumps(settings))
    commands: dict[str | None, list[tuple[str | None, list[str]]]] = {
        "text_classification": [
            run("text_classification", three_labels, texts, "strategy=lora"),
            predict("text_classification", "a good cat"),
        ],
        "image_classification": [
            run("image_classification", tiny_vit, odd_images, "strategy=full"),
            predict("image_classification", str(odd_images / "dark/0.png")),
        ],
        "audio_classification": [
            run("audio_classification", tiny_wav2vec2, sounds, "strategy=head")
        ],
        "speech_recognition": [
            run("speech_recognition", tiny_wav2vec2, speech, "data.max_seconds=null")
        ],
        "causal_lm": [
            run("causal_lm", tiny_gpt2, pairs, "strategy=lora", "generation.max_new_tokens=8"),
            predict("causal_lm", "the cat"),
        ],
        None: [  # other commands
            (None, ["compare", str(tmp_path), "--output", str(tmp_path / "images")]),
            (None, ["params", str(tiny_vit), "--plot", str(tmp_path / "depth.png")]),
        ],
    }
    chosen = [command for task in tasks for command in commands[task]]
    command = [sys.executable, "-c", COMMANDS, json.dumps(chosen)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=_without_settings(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.replace("\r", "\n").splitlines()
    ours = (*OURS, "model: ", "preprocessing: ")
    foreign = [line for line in lines if line.strip() and not line.startswith(ours)]
    assert [line for line in foreign if BAR not in line] == []


def _without_settings(folder: Path) -> dict[str, str]:
    """As a user has it: nothing that a library is quieter with, and caches that are new."""
    names = ("PYTHONWARNINGS", "TOKENIZERS_PARALLELISM", "MPLCONFIGDIR")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return kept | {"XDG_CACHE_HOME": str(folder / "cache")}


@pytest.mark.parametrize(
    ("logger", "text", "heard"),
    [
        ("huggingface_hub.utils._http", "You are sending unauthenticated requests to", False),
        ("huggingface_hub.utils._http", "The file was moved", True),
        ("transformers.configuration_utils", "You passed `num_labels=2` which is", False),
        ("transformers.configuration_utils", "Model config: bos_token_id must", True),
        ("matplotlib", "mkdir -p failed for path /x: y", False),
        ("matplotlib", "Bad value in file '/x'", True),
        ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward from x", False),
        ("bitsandbytes.backends.cpu.ops", "something else", True),
    ],
)
def test_exactly_these_lines_are_dropped(
    logger: str, text: str, heard: bool, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger(logger).warning(text)
    assert (text in caplog.text) == heard


@pytest.mark.parametrize(
    ("text", "module", "heard"),
    [
        ("Corrupt EXIF data.  Expecting 12", "PIL.TiffImagePlugin", False),
        ("Corrupt EXIF data.  Expecting 12", "other", True),
        ("Truncated File Read", "PIL.TiffImagePlugin", True),
    ],
)
def test_exactly_these_warnings_are_dropped(text: str, module: str, heard: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        quiet.silence_warnings()
        warnings.warn_explicit(text, UserWarning, "a_file.py", 1, module=module)
    assert bool(caught) == heard
