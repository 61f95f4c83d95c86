"""The task mnist_mlp from files to a saved model, and its loop against the tutorial's."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from benchmarks import tutorial_mnist
from idx_files import patterns, write_idx_folder
from PIL import Image
from safetensors.torch import load_file, save_file
from test_run import FRESH

from hfbench.cli import main, recipe_main
from hfbench.config import load_config
from hfbench.preparation import learning_rates, prepare
from hfbench.results import RunResult
from hfbench.run import run
from hfbench.saving import load_model
from hfbench.tasks import make_task
from hfbench.training.batching import epoch_batches
from hfbench.training.fit import fit
from hfbench.training.objective import Objective

CONFIGS = Path(__file__).parents[1] / "recipes/configs"


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 images of MNIST's size that a network can learn, 100 to test."""
    folder = tmp_path_factory.mktemp("mnist")
    return write_idx_folder(folder, patterns(500), patterns(100, seed=1), zipped=True)


def arguments(config: str, data: Path | str, folder: Path, *more: str) -> list[str]:
    return [
        *("--config", str(CONFIGS / f"{config}.yaml"), f"data.source={data}"),
        *("training.epochs=3", f"output_dir={folder}", *more),
    ]


@pytest.mark.parametrize("config", ["mnist_mlp", "mnist_mlp_tuned", "mnist_cnn"])
def test_a_recipe_trains_saves_and_records(config: str, mnist: Path, tmp_path: Path) -> None:
    args = arguments(config, mnist, tmp_path / "run", "training.epochs=12")
    assert recipe_main("mnist_mlp", None, args) == 0
    result = RunResult.load(tmp_path / "run/result.json")
    assert result.status == "succeeded"
    assert result.checkpoint.startswith("cnn-16-32" if config == "mnist_cnn" else "mlp-256-128-64")
    assert result.strategy == "scratch"
    assert (result.data["train"], result.data["validation"], result.data["test"]) == (450, 50, 100)
    assert result.test_metrics["accuracy"] > 0.8  # chance is 0.1
    assert result.parameters is not None
    assert result.parameters.trainable == result.parameters.total
    saved = {path.name for path in (tmp_path / "run/model").iterdir()}
    assert saved == {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_the_saved_network_gives_the_same_logits_in_a_fresh_process(
    mnist: Path, tmp_path: Path
) -> None:
    more = ("network.normalisation=standard", "network.dropout=0.2")
    assert recipe_main("mnist_mlp", None, arguments("mnist_mlp", mnist, tmp_path, *more)) == 0
    batch = {"pixel_values": torch.rand(5, 1, 28, 28)}
    save_file(batch, tmp_path / "batch.safetensors")
    with torch.no_grad():
        expected = load_model(tmp_path / "model")(**batch).logits
    target = tmp_path / "logits.safetensors"
    script = [sys.executable, "-c", FRESH, str(tmp_path / "model")]
    subprocess.run([*script, str(tmp_path / "batch.safetensors"), str(target)], check=True)
    assert torch.equal(load_file(target)["logits"], expected)


def test_predictions_for_files_are_those_of_the_runs_evaluation(
    mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = arguments("mnist_mlp", mnist, tmp_path / "run", "network.normalisation=standard")
    assert recipe_main("mnist_mlp", None, args) == 0
    images, labels = patterns(100, seed=1)  # the test split
    files = [tmp_path / f"{number}.png" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    Image.fromarray(images[0]).resize((56, 56), Image.Resampling.NEAREST).save(tmp_path / "big.png")
    capsys.readouterr()
    inputs = [*map(str, files), str(tmp_path / "big.png")]
    assert main(["predict", str(tmp_path / "run"), *inputs, "--format", "json"]) == 0
    *found, big = json.loads(capsys.readouterr().out)["predictions"]
    right = [int(row["label"]) == label for row, label in zip(found, labels, strict=True)]
    result = RunResult.load(tmp_path / "run/result.json")
    assert sum(right) / len(right) == pytest.approx(result.test_metrics["accuracy"])
    assert big["label"] == found[0]["label"]

    (tmp_path / "notes.txt").write_text("no image")
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "notes.txt")]) == 2
    assert "notes.txt" in capsys.readouterr().err


@pytest.mark.parametrize("normalisation", ["unit", "standard"])
def test_the_saved_processor_gives_what_the_network_was_trained_on(
    mnist: Path, tmp_path: Path, normalisation: str
) -> None:
    from transformers import AutoImageProcessor

    task: Any = make_task(
        load_config(
            None,
            [f"data.source={mnist}", f"network.normalisation={normalisation}"],
            task="mnist_mlp",
        )
    )
    data = task.prepare_data()
    if normalisation == "standard":
        everything = torch.cat([data.train[i]["pixel_values"] for i in range(len(data.train))])
        assert everything.mean().item() == pytest.approx(0, abs=1e-5)
        assert everything.std().item() == pytest.approx(1, abs=1e-5)
    task.save_processor(tmp_path)
    processor: Any = AutoImageProcessor.from_pretrained(tmp_path)
    pixels = data.test.pixels[:3]
    images = [Image.fromarray(image[0].numpy()) for image in pixels]
    given = processor(images, return_tensors="pt", input_data_format="channels_first")
    trained = data.test.read_batch((0, 1, 2), torch.device("cpu"))["pixel_values"]
    torch.testing.assert_close(given["pixel_values"], trained, atol=1e-5, rtol=0)


def test_a_batch_is_what_collating_its_samples_gives(mnist: Path) -> None:
    task = make_task(load_config(None, [f"data.source={mnist}"], task="mnist_mlp"))
    data: Any = task.prepare_data()
    whole = data.train.read_batch((7, 3, 3), torch.device("cpu"))
    collated = task.collate([data.train[i] for i in (7, 3, 3)])
    assert whole.keys() == collated.keys()
    assert all(torch.equal(whole[key], collated[key]) for key in whole)


def test_images_of_any_size_and_source_are_an_input(tmp_path: Path) -> None:
    """scikit-learn's digits have 8 × 8 pixels."""
    more = ("network.widths=[32]", "training.epochs=30", "training.learning_rate=3e-3")
    args = arguments("mnist_mlp", "bundled/digits", tmp_path, *more)
    assert recipe_main("mnist_mlp", None, args) == 0
    result = RunResult.load(tmp_path / "result.json")
    assert result.parameters is not None
    assert result.parameters.total == 64 * 32 + 32 + 32 * 10 + 10
    assert result.test_metrics["accuracy"] > 0.9


def test_a_vision_transformer_reads_the_same_files(
    mnist: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    options = [f"data.source={mnist}", f"model.checkpoint={tiny_vit}", f"output_dir={tmp_path}"]
    options += ["training.epochs=1", "data.max_train_samples=60"]
    result = run(load_config(None, options, task="image_classification"))
    assert result.status == "succeeded"
    mlp = make_task(load_config(None, options[:1], task="mnist_mlp")).prepare_data()
    assert result.data["labels"] == list(mlp.label_names)
    assert result.data["test"] == mlp.summary["test"] == 100


def test_broken_files_end_the_command_with_2(
    mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in mnist.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    (data / "train-labels-idx1-ubyte.gz").write_bytes(b"<html>not found</html>")
    assert recipe_main("mnist_mlp", None, arguments("mnist_mlp", data, tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert "train-labels-idx1-ubyte.gz" in error
    assert "is not a gzip file" in error
    assert "Traceback" not in error


def test_an_interrupted_training_goes_on_bit_for_bit(mnist: Path, tmp_path: Path) -> None:
    """Whole batches, dropout and random shifts; interrupted in the second of three epochs."""
    config = load_config(
        CONFIGS / "mnist_mlp_tuned.yaml",
        [
            *(f"data.source={mnist}", "network.shift=1", "network.dropout=0.3"),
            *("training.epochs=3", "training.batch_size=64", "training.save_steps=2"),
        ],
        task="mnist_mlp",
    )

    def train(folder: Path, stop_after: int | None = None) -> tuple[Any, dict[str, Any]]:
        prepared = prepare(config, make_task(config), Accelerator(cpu=True))
        torch.manual_seed(5)
        data: Any = prepared.data.train
        read, reads = data.read_batch, 0

        def counted(indices: Any, device: Any) -> Any:
            nonlocal reads
            reads += 1
            if stop_after is not None and reads > stop_after:
                raise KeyboardInterrupt
            return read(indices, device)

        data.read_batch = counted
        fitted = fit(
            prepared.model,
            data,
            Objective(prepared.task.collate, prepared.task.loss_units),
            config=config.training,
            rates=learning_rates(config),
            accelerator=Accelerator(cpu=True),
            folder=folder,
            owner="run",
            seed=0,
        )
        return fitted, prepared.model.state_dict()

    expected, weights = train(tmp_path / "through")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", stop_after=12)  # 8 batches an epoch
    actual, resumed = train(tmp_path / "broken")
    assert actual.step_losses == expected.step_losses
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)


def test_a_thousand_steps_give_the_tutorials_losses(tmp_path: Path) -> None:
    """The recipe's own steps beside the plain loop: same seed, same order, 16,000 images."""
    folder = write_idx_folder(tmp_path / "data", patterns(17_778), patterns(100, seed=1))
    config = load_config(
        CONFIGS / "mnist_mlp.yaml",
        [f"data.source={folder}", "training.epochs=4", f"output_dir={tmp_path / 'run'}"],
        task="mnist_mlp",
    )
    prepared = prepare(config, make_task(config), Accelerator(cpu=True))
    data: Any = prepared.data.train
    assert len(data) == 16_000
    theirs = tutorial_mnist.network()
    values = list(prepared.model.state_dict().values())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    ours = fit(
        prepared.model,
        data,
        Objective(prepared.task.collate, prepared.task.loss_units),
        config=config.training,
        rates=learning_rates(config),
        accelerator=Accelerator(cpu=True),
        folder=tmp_path / "state",
        owner="run",
        seed=0,
    )
    images = tutorial_mnist.Images(data.pixels[:, 0], data.labels)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    losses: list[float] = []
    for epoch in range(4):
        (order,) = epoch_batches(16_000, 16_000, seed=0, epoch=epoch)
        losses += tutorial_mnist.train_epoch(
            theirs, optimizer, tutorial_mnist.in_order(images, order)
        )
    assert len(losses) == len(ours.step_losses) == 1000
    np.testing.assert_allclose(ours.step_losses, losses, atol=1e-5, rtol=0)
    assert losses[0] > 2
    assert losses[-1] < 0.1


def test_compare_runs_a_network_from_scratch_without_being_told(
    mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    command = ["compare", "--config", str(CONFIGS / "mnist_mlp.yaml"), "--seeds", "0,1"]
    more = [f"data.source={mnist}", "training.epochs=1", "--output", str(tmp_path)]
    assert main([*command, *more]) == 0
    printed = capsys.readouterr().out
    assert "mlp-256-128-64-relu" in printed
    results = [json.loads(path.read_text()) for path in tmp_path.glob("*/result.json")]
    assert sorted(result["seed"] for result in results) == [0, 1]
