"""A run that is out of memory goes on with each batch in parts, to the same numbers."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import overrides
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from hfbench import matrix
from hfbench.choices import Choices, keep_choices, kept_choices
from hfbench.config import RunConfig, load_config
from hfbench.errors import StartAgainError, TrainingFailedError
from hfbench.matrix import plan_matrix, run_matrix
from hfbench.models.network import ScratchNetwork
from hfbench.record import run_id
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.training.batching import divided

FULL = "DefaultCPUAllocator: can't allocate memory"


def config(folder: Path, *more: str) -> RunConfig:
    options = ["data.source=bundled/digits", "data.max_train_samples=70", "network.widths=[16]"]
    options += ["training.batch_size=16", "training.gradient_accumulation_steps=2"]
    options += ["training.epochs=2", f"output_dir={folder}", *more]
    return load_config(None, options, task="mnist_mlp")


def hold(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the memory holds so many samples in a training step."""
    forward = ScratchNetwork.forward

    def bounded(self: ScratchNetwork, pixel_values: torch.Tensor, **more: Any) -> Any:
        if len(pixel_values) > samples and torch.is_grad_enabled() and self.training:
            raise RuntimeError(FULL)
        return forward(self, pixel_values, **more)

    monkeypatch.setattr(ScratchNetwork, "forward", bounded)


def test_a_batch_is_divided_into_parts_of_like_size() -> None:
    assert divided([5, 3, 1, 4, 2], 4) == [[5, 3], [1, 4, 2]]
    assert divided([5, 3], 1) == [[5], [3]]
    assert divided([5, 3, 1], 3) == [[5, 3, 1]]


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(("size", "parts", "steps"), [(10, 4, 10), (5, 2, 20), (8, 16, 13)])
def test_the_expected_steps_are_those_of_whole_batches(
    size: int, parts: int, steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [f"training.batch_size={size}", "training.gradient_accumulation_steps=1"]
    more += ["data.max_train_samples=100", "training.epochs=1", "training.oom=retry"]
    asked = config(tmp_path, *more)
    keep_choices(tmp_path, run_id(asked), Choices(parts=parts))
    result = run(asked)
    assert (result.steps, result.batch_parts) == (steps, parts)
    assert f"expected: {steps} steps" in capsys.readouterr().out


@pytest.mark.usefixtures("own_cache")
def test_the_same_steps_in_parts_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(config(tmp_path / "whole"))
    hold(5, monkeypatch)
    asked = config(tmp_path / "run", "training.oom=retry")
    for parts, size in ((2, 8), (4, 4)):
        with pytest.raises(StartAgainError, match=f"in parts of at most {size} "):
            run(asked)
        failed = RunResult.load(tmp_path / "run/result.json")
        assert (failed.status, failed.batch_parts) == ("out_of_memory", parts // 2)
    result = run(asked)
    assert (result.status, result.batch_parts) == ("succeeded", 4)
    said = "it computes each batch in parts of at most 4 (training) and 16 (evaluation) samples"
    assert result.data["notes"][-1] == f"the memory was exhausted: {said}, in the same steps"
    assert said in capsys.readouterr().out
    assert result.run_id == run(asked).run_id == RunResult.load(tmp_path / "run/result.json").run_id
    assert (result.steps, result.config["training"]["batch_size"]) == (whole.steps, 16)
    for ours, theirs in zip(result.history, whole.history, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-6)
    assert result.test_metrics["loss"] == pytest.approx(whole.test_metrics["loss"], rel=1e-5)


@pytest.mark.usefixtures("own_cache")
def test_a_state_of_whole_batches_goes_on_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(config(tmp_path / "whole"))
    asked = config(tmp_path / "run", "training.oom=retry", "training.save_steps=1")
    calls = [0]
    forward = ScratchNetwork.forward

    def exhausted(self: ScratchNetwork, pixel_values: torch.Tensor, **more: Any) -> Any:
        calls[0] += self.training and torch.is_grad_enabled()
        if kept_choices(tmp_path / "run").parts == 1 and calls[0] > 7:
            raise RuntimeError(FULL)
        return forward(self, pixel_values, **more)

    monkeypatch.setattr(ScratchNetwork, "forward", exhausted)
    with pytest.raises(StartAgainError):
        run(asked)
    result = run(asked)
    assert result.batch_parts == 2
    for ours, theirs in zip(result.history, whole.history, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-6)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("room", "option"), [(0, "retry"), (8, "fail")], ids=["not one sample fits", "not asked for"]
)
def test_where_nothing_smaller_helps_the_reason_stays(
    room: int, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(room, monkeypatch)
    size = 16 if room else 2
    asked = config(tmp_path, f"training.oom={option}", f"training.batch_size={size}")
    asked = replace(asked, training=replace(asked.training, eval_batch_size=size))
    if option == "retry":
        with pytest.raises(StartAgainError):
            run(asked)
    with pytest.raises(TrainingFailedError, match="lower training") as failed:
        run(asked)
    assert not isinstance(failed.value, StartAgainError)
    result = RunResult.load(tmp_path / "result.json")
    assert (result.status, result.reason) == ("out_of_memory", f"RuntimeError: {FULL}")


@pytest.mark.usefixtures("own_cache")
def test_batch_norms_are_named(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "resnet"
    sizes: Any = {"embedding_size": 8, "hidden_sizes": [32, 32], "depths": [2, 2]}
    ResNetForImageClassification(ResNetConfig(**sizes)).save_pretrained(checkpoint)
    ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(checkpoint)
    more = ("training.oom=retry", "training.max_steps=1")
    options = overrides(checkpoint, images, tmp_path / "run", *more)
    asked = load_config(None, options, task="image_classification")
    with monkeypatch.context() as patch:
        patch.setattr("hfbench.run.fit", _exhaust)
        with pytest.raises(StartAgainError):
            run(asked)
    assert "batch norms see the parts, so the numbers are other" in run(asked).data["notes"][-1]


@pytest.mark.usefixtures("own_cache")
def test_a_short_last_batch_that_fits_is_not_divided(tmp_path: Path, images: Path) -> None:
    """A batch norm refuses a single sample of one pixel: 18 samples are 16 and 2."""
    checkpoint = tmp_path / "resnet"
    sizes: Any = {"embedding_size": 8, "hidden_sizes": [32, 32], "depths": [2, 2]}
    ResNetForImageClassification(ResNetConfig(**sizes)).save_pretrained(checkpoint)
    ConvNextImageProcessor(size={"shortest_edge": 8}).save_pretrained(checkpoint)
    more = ("training.oom=retry", "training.batch_size=16", "data.max_train_samples=18")
    asked = load_config(
        None, overrides(checkpoint, images, tmp_path / "run", *more), task="image_classification"
    )
    (tmp_path / "run").mkdir()
    keep_choices(tmp_path / "run", run_id(asked), Choices(parts=2))
    assert run(asked).steps == 4


def _exhaust(*_: Any, **__: Any) -> None:
    raise MemoryError(FULL)


def test_a_comparison_starts_such_a_run_again_in_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = iter([0, matrix.START_AGAIN, matrix.START_AGAIN, 0, 1])
    calls = []

    def in_child(context: object, target: object, *arguments: object) -> int:
        calls.append(arguments[0])
        return next(codes)

    monkeypatch.setattr(matrix, "_in_child", in_child)
    usual = load_config(None)
    runs = plan_matrix(usual, [usual.strategy], [0, 1], tmp_path)
    assert {one.training.oom for one in runs} == {"retry"}
    assert run_matrix(runs) == 1
    assert calls[1:] == [runs[0], runs[0], runs[0], runs[1]]
    own = load_config(None, ["training.oom=fail"])
    assert plan_matrix(own, [own.strategy], [0], tmp_path)[0].training.oom == "fail"


RECIPE = """
import sys
from hfbench.start import recipe
from hfbench.models.network import ScratchNetwork
forward = ScratchNetwork.forward
def bounded(self, pixel_values, **more):
    if len(pixel_values) > 5 and self.training:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    return forward(self, pixel_values, **more)
ScratchNetwork.forward = bounded
if __name__ == "__main__":
    sys.exit(recipe("mnist_mlp", None))
"""


@pytest.mark.usefixtures("own_cache")
def test_a_recipe_starts_itself_again(tmp_path: Path) -> None:
    script = tmp_path / "recipe.py"
    script.write_text(RECIPE)
    asked = ["data.source=bundled/digits", "data.max_train_samples=32", "network.widths=[16]"]
    asked += ["training.batch_size=8", "training.epochs=1", "training.oom=retry"]
    command = [sys.executable, str(script), *asked, f"output_dir={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.count(
            "parts of at most 4 (training) and 32 (evaluation) samples; it starts again now"
        )
        == 1
    )
    assert RunResult.load(tmp_path / "run/result.json").batch_parts == 2
