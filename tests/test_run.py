"""Whole runs: record, saved model, resume after SIGKILL, errors and exit codes."""

import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import overrides

from hfbench.cli import recipe_main
from hfbench.config import NETWORK_TASKS, load_config
from hfbench.errors import TrainingFailedError, is_out_of_memory
from hfbench.exits import guarded
from hfbench.record import run_id
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.saving import check_tensors, load_model
from hfbench.tasks import TASKS, make_task
from hfbench.training import state
from hfbench.verification import CHECK_FILE, check_inputs

TEXT_RECIPE = Path(__file__).parents[1] / "recipes/text_classification.py"


# Loads a saved model in a process of its own and writes the logits of the given batch.
FRESH = """
import sys, torch
from safetensors.torch import load_file, save_file
from hfbench.saving import load_model
from pathlib import Path
folder, batch, target = map(Path, sys.argv[1:])
with torch.inference_mode():
    save_file({"logits": load_model(folder)(**load_file(batch)).logits}, target)
"""


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        *itertools.product(("text", "image", "audio"), ("full", "last_1", "lora")),
        *itertools.product(("text",), ("dora", "ia3")),
    ],
)
def test_the_saved_model_gives_the_same_logits_in_a_fresh_process(
    kind: str,
    strategy: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from safetensors.torch import load_file, save_file

    checkpoint = {"text": "tiny_bert", "image": "tiny_vit", "audio": "tiny_wav2vec2"}[kind]
    arguments = overrides(
        request.getfixturevalue(checkpoint),
        request.getfixturevalue(f"{kind}s" if kind != "audio" else "sounds"),
        tmp_path / "run",
        f"strategy={strategy}",
    )
    config = load_config(None, arguments, task=f"{kind}_classification")
    kept: dict[str, torch.Tensor] = {}

    def check(model: torch.nn.Module, loaded: torch.nn.Module) -> None:
        check_tensors(model, loaded)
        trained.append(model)

    trained: list[torch.nn.Module] = []
    monkeypatch.setattr("hfbench.saving.check_tensors", check)
    result = run(config)
    batch = check_inputs(tmp_path / "run" / CHECK_FILE)
    with torch.no_grad():
        kept["logits"] = trained[0](**batch).logits  # not of a loaded one
    save_file(batch, tmp_path / "batch.safetensors")
    assert result.status == "succeeded"
    assert result.saved_bytes

    target = tmp_path / "logits.safetensors"
    script = [sys.executable, "-c", FRESH, str(tmp_path / "run/model")]
    subprocess.run([*script, str(tmp_path / "batch.safetensors"), str(target)], check=True)
    assert torch.equal(load_file(target)["logits"], kept["logits"])
    names = {path.name for path in (tmp_path / "run/model").iterdir()}
    assert ("adapter_model.safetensors" in names) == (strategy in ("lora", "dora", "ia3"))
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pkl"))}


def test_an_adapter_loads_from_anywhere_and_keeps_its_label_names(
    tiny_bert: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained with a relative path to its base, loaded from another working directory."""
    monkeypatch.chdir(tiny_bert.parent)
    arguments = overrides(Path(tiny_bert.name), texts, tmp_path / "run", "strategy=lora")
    assert run(load_config(None, arguments, task="text_classification")).status == "succeeded"
    monkeypatch.chdir(tmp_path)
    model: Any = load_model(tmp_path / "run/model")
    assert model.config.id2label == {0: "down", 1: "up"}
    adapter = json.loads((tmp_path / "run/model/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(tiny_bert)


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_a_run_in_bf16_is_saved_in_float32_and_checked(
    strategy: str, tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    """In a process of its own: Accelerate keeps one precision for a whole process."""
    more = ["training.mixed_precision=bf16", f"strategy={strategy}"]
    arguments = overrides(tiny_bert, texts, tmp_path / "run", *more)
    subprocess.run([sys.executable, str(TEXT_RECIPE), *arguments], check=True)
    result = RunResult.load(tmp_path / "run/result.json")
    assert result.status == "succeeded"
    assert result.config["training"]["mixed_precision"] == "bf16"
    model = load_model(tmp_path / "run/model")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_other_data_behind_the_same_name_is_another_run(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "texts.jsonl"
    rows = [{"text": f"good cat {i}", "label": "ab"[i % 2]} for i in range(40)]
    data.write_text("\n".join(map(json.dumps, rows)))
    arguments = overrides(tiny_bert, data, tmp_path / "run", "strategy=head")
    assert recipe_main("text_classification", None, arguments) == 0
    data.write_text("\n".join(map(json.dumps, rows[:30])))
    assert recipe_main("text_classification", None, arguments) == 2
    assert "with other settings, data or checkpoint" in capsys.readouterr().err


def test_a_result_records_the_run_and_a_second_call_only_reads_it(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = overrides(tiny_bert, texts, tmp_path / "run", "strategy=head")
    config = load_config(None, arguments, task="text_classification")
    result = run(config)
    printed = capsys.readouterr().out
    assert "trainable" in printed
    assert "66" in printed  # the head: 32 × 2 + 2
    assert result == RunResult.load(tmp_path / "run/result.json")
    assert result.parameters is not None
    assert result.parameters.trainable >= 66
    assert len(result.history) == 2
    assert (result.data["train"], result.data["validation"], result.data["test"]) == (48, 6, 6)
    assert result.steps == 2 * 6  # two epochs of 48 / 8 batches
    assert result.train_seconds is not None
    assert result.total_seconds is not None
    assert 0 < result.train_seconds < result.total_seconds
    assert result.peak_memory_bytes is not None
    assert result.peak_memory_bytes > 2**20
    assert 0 <= result.test_metrics["accuracy"] <= 1
    assert not (tmp_path / "run/state").exists()

    run(config)
    assert "holds this run already" in capsys.readouterr().out
    other = [*arguments, "training.epochs=3"]
    assert recipe_main("text_classification", None, other) == 2
    assert "holds another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [["strategy=full"], ["strategy=last_1", "cache=always"]], ids=["whole", "behind prefix"]
)
@pytest.mark.usefixtures("own_cache")
def test_a_killed_run_continues_to_the_same_numbers(
    more: list[str], tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle; the repeated command gives the numbers of an undisturbed run."""
    more = [*more, "training.epochs=40", "training.save_steps=5"]
    recipe = [sys.executable, str(TEXT_RECIPE)]

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(recipe + overrides(tiny_bert, texts, folder, *more))

    assert start(tmp_path / "through").wait(timeout=300) == 0
    process = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed/state").glob("step-*")):
        assert time.monotonic() < deadline, "no state was written"
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert RunResult.load(tmp_path / "killed/result.json").status == "failed"
    assert not (tmp_path / "killed/model").exists()

    assert start(tmp_path / "killed").wait(timeout=300) == 0
    through = RunResult.load(tmp_path / "through/result.json")
    killed = RunResult.load(tmp_path / "killed/result.json")
    assert killed.status == "succeeded"
    assert (killed.prefix is not None) == ("cache=always" in more)
    assert killed.history == through.history
    assert killed.test_metrics == through.test_metrics
    left, right = (tmp_path / f"{n}/model/model.safetensors" for n in ("killed", "through"))
    assert left.read_bytes() == right.read_bytes()


def test_gradient_checkpointing_changes_memory_and_no_number(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    results = []
    for checkpointed in (False, True):
        arguments = overrides(
            tiny_bert,
            texts,
            tmp_path / str(checkpointed),
            "strategy=last_2",
            f"training.gradient_checkpointing={checkpointed}",
        )
        results.append(run(load_config(None, arguments, task="text_classification")))
    plain, checkpointed_result = results
    assert checkpointed_result.history == plain.history  # dropout included
    assert plain.predicted is not None
    assert checkpointed_result.predicted is not None
    # Two trained blocks of three are computed twice.
    assert checkpointed_result.predicted.step_flops > 1.1 * plain.predicted.step_flops


def test_a_run_that_diverges_leaves_a_result_with_its_reason(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    arguments = overrides(tiny_bert, texts, tmp_path / "run", "training.learning_rate=1e30")
    config = load_config(None, [*arguments, "training.warmup_ratio=0"], task="text_classification")
    with pytest.raises(TrainingFailedError, match="training loss became"):
        run(config)
    result = RunResult.load(tmp_path / "run/result.json")
    assert result.status == "diverged"
    assert result.reason is not None
    assert "lower training.learning_rate" in result.reason
    assert not (tmp_path / "run/model").exists()


def test_memory_that_does_not_suffice_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.checkpoint=bundled/bert-huge", "bert-huge"),
        ("model.checkpoint=/nowhere/at-all", "/nowhere/at-all"),
        ("data.source=/nowhere/data.csv", "/nowhere/data.csv"),
        ("data.text_column=sentence", "sentence"),
        ("data.test_split=private", "private"),
        ("strategy=last_9", "3 blocks"),
        ("strategy.freeze=[nothing.*]", "matches no parameter"),
    ],
)
def test_a_mistake_of_the_user_is_one_message_and_exit_code_2(
    override: str,
    message: str,
    tiny_bert: Path,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = overrides(tiny_bert, texts, tmp_path / "run", override)
    assert recipe_main("text_classification", None, arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run/result.json").exists()


def test_a_hub_that_cannot_be_reached_is_exit_code_3(texts: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(TEXT_RECIPE)]
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_OFFLINE", None)
    arguments = overrides(Path("google-bert/bert-base-uncased"), texts, tmp_path / "run")
    finished = subprocess.run(
        command + arguments, env=environment, capture_output=True, text=True, timeout=240
    )
    assert finished.returncode == 3, finished.stderr
    assert "google-bert/bert-base-uncased" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_message_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """PyTorch's and Python's own errors for a device without space."""

    def save_with_torch() -> int:
        state._save({"weights": torch.zeros(10_000)}, Path("/dev/full"))
        return 0

    def save_with_python() -> int:
        Path("/dev/full").write_text("x")
        return 0

    for action in (save_with_torch, save_with_python):
        assert guarded(action) == 2
        assert "no space left on the disk" in capsys.readouterr().err


def test_the_tracker_gets_losses_and_metrics(tiny_bert: Path, texts: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = overrides(tiny_bert, texts, tmp_path / "run", "tracker=tensorboard")
    result = run(load_config(None, arguments, task="text_classification"))
    files = list((tmp_path / "run").rglob("events.out.tfevents.*"))
    assert files
    recorded: dict[str, list[float]] = {}
    for file in files:
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            recorded.setdefault(tag, []).extend(event.value for event in events.Scalars(tag))
    losses = [record.train_loss for record in result.history]
    assert recorded["train/loss"] == pytest.approx(losses)
    accuracies = [record.validation["accuracy"] for record in result.history]
    assert recorded["validation/accuracy"] == pytest.approx(accuracies)


def test_a_tracker_that_is_not_installed_is_named(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("trackio") is not None:
        pytest.skip("trackio is installed here")
    arguments = overrides(tiny_bert, texts, tmp_path / "run", "tracker=trackio")
    assert recipe_main("text_classification", None, arguments) == 2
    assert "pip install trackio" in capsys.readouterr().err


def test_runs_are_the_same_exactly_when_their_numbers_must_be() -> None:
    config = load_config(None, ["output_dir=a", "training.epochs=2"])
    assert run_id(config) == run_id(load_config(None, ["output_dir=b", "training.epochs=2"]))
    assert run_id(config) != run_id(load_config(None, ["output_dir=a", "training.epochs=3"]))


def test_every_task_name_makes_a_task() -> None:
    for name in set(TASKS) - set(NETWORK_TASKS):
        task: Any = make_task(load_config(None, [], task=name))
        assert task.name == name


SAVE_FOR_EVER = """
import sys
from pathlib import Path
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from hfbench.config import ModelConfig
from hfbench.saving import save_model
checkpoint, folder = sys.argv[1:]
torch.manual_seed(0)
model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
processor = AutoTokenizer.from_pretrained(checkpoint)
while True:
    save_model(
        model,
        processor.save_pretrained,
        Path(folder),
        base=ModelConfig(checkpoint),
        check=lambda loaded: None,
    )
    print("saved", flush=True)
"""


def test_killed_while_it_saves_the_folder_is_absent_or_complete(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """SIGKILL at four moments of a process that does nothing but save."""
    folder = tmp_path / "model"
    states = set()
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOR_EVER, str(tiny_bert), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(attempt):
            assert process.stdout.readline() == "saved\n"
        time.sleep(0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        states.add(folder.exists())
        if folder.exists():
            assert load_model(folder).num_labels == 2
            shutil.rmtree(folder)
    assert True in states


def test_an_output_folder_inside_the_data_is_refused(
    tiny_bert: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(texts, tmp_path / "train.jsonl")
    arguments = overrides(tiny_bert, tmp_path, tmp_path / "run")
    assert recipe_main("text_classification", None, arguments) == 2
    assert "lies inside data.source" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
