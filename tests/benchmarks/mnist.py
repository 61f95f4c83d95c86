"""One epoch and the whole job on MNIST beside the loop that tutorials teach.

    python tests/benchmarks/mnist.py [FOLDER] [--epochs 10]

FOLDER holds MNIST's idx files; without one, random images of the same number and size stand in for
them (what is learnt does not change the time of a step). Everything is measured in turn, so that a
machine whose speed drifts treats all alike; ratios of medians count. Loop: one epoch over all
training images in this process. Command: a process of its own from its imports to the test
accuracy, ours with the check of the saved model. The peak is this machine's best matrix product
with all threads, in the same run; the share counts the operations that a step does. What no loop in
PyTorch can leave out is timed alone as well: the products of an epoch in their own small shapes,
Adam's updates, and calling the operations of a step, on almost no numbers. Beside them stands the
barest loop of the same updates: tensors, a permutation, no progress, no record of the losses; and
for the whole command a process that only imports PyTorch and makes an optimiser.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tutorial_mnist
from accelerate import Accelerator
from measuring import matrix_peak, timed
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from hfbench.config import RunConfig, load_config
from hfbench.data.pixels import PixelSamples
from hfbench.preparation import learning_rates
from hfbench.tasks import make_task
from hfbench.training.fit import fit
from hfbench.training.objective import Objective
from hfbench.training.threads import choose_threads

sys.path.append(str(Path(__file__).parents[1]))
from idx_files import write_idx_folder

ROUNDS = 3
ROOT = Path(__file__).parents[2]
BARE_START = "import torch; torch.optim.Adam([torch.zeros(1, requires_grad=True)])"
CONFIG = ROOT / "recipes/configs/mnist_mlp.yaml"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--epochs", type=int, default=10, help="of the whole job (default 10)")
    options = parser.parse_args()
    all_threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {all_threads} threads, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or random_images(Path(temporary) / "random")
        barest = compare_loops(folder, all_threads)
        compare_commands(folder, Path(temporary), options.epochs, barest)


def random_images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    splits = [
        (
            rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            rng.integers(0, 10, count, dtype=np.uint8),
        )
        for count in (60_000, 10_000)
    ]
    return write_idx_folder(folder, *splits)


def compare_loops(folder: Path, all_threads: int) -> float:
    """Prints the comparison; the seconds of the barest loop over all images."""
    images = tutorial_mnist.load(folder, "train")
    config = load_config(CONFIG, [f"data.source={folder}", "training.epochs=1"])
    seconds: dict[str, list[float]] = {"tutorial": [], "hfbench": []}
    peaks, threads = [], []
    alone: dict[str, list[float]] = {}
    barest = []
    steps = -(-len(images) // config.training.batch_size)
    for _ in range(ROUNDS):
        torch.set_num_threads(all_threads)
        peaks.append(matrix_peak())
        seconds["tutorial"].append(timed(lambda: tutorial_epoch(images)))
        threads.append(choose_threads(make_task(config).step_probe()).threads)
        seconds["hfbench"].append(our_epoch(config, images))
        barest.append(barest_epoch(images))
        for name, repeat in necessities(config).items():
            alone.setdefault(name, []).append(timed(lambda again=repeat: repeated(again, steps)))
    report(f"one epoch of {len(images):,} images", seconds)
    peak = max(peaks)
    reached = step_flops(config) * steps / statistics.median(seconds["hfbench"])
    print(
        f"matrix products: {peak / 1e9:.0f} GFLOP/s at best; ours {reached / 1e9:.0f} GFLOP/s "
        f"({reached / peak:.0%}) with {', '.join(map(str, threads))} threads"
    )
    least = {name: statistics.median(values) for name, values in alone.items()}
    together, ours = sum(least.values()), statistics.median(seconds["hfbench"])
    parts = ", ".join(f"{name} {value:.2f} s" for name, value in least.items())
    print(
        f"of an epoch alone: {parts}; together {together:.2f} s, {together / ours:.0%} of ours, "
        f"{statistics.median(seconds['tutorial']) / together:.1f} times as fast as the tutorial\n"
        f"the barest loop: {statistics.median(barest):.2f} s, "
        f"{statistics.median(seconds['tutorial']) / statistics.median(barest):.1f} times as fast",
        flush=True,
    )
    return statistics.median(barest)


def tutorial_epoch(images: tutorial_mnist.Images) -> None:
    torch.manual_seed(0)
    model = tutorial_mnist.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(images, batch_size=tutorial_mnist.BATCH_SIZE, shuffle=True)
    tutorial_mnist.train_epoch(model, optimizer, loader)


def our_epoch(config: RunConfig, images: tutorial_mnist.Images) -> float:
    """Seconds of the loop, as results record them: without evaluation and saving."""
    task: Any = make_task(config)
    model = task.network_for_mnist(tuple("0123456789"))
    data = PixelSamples(images.data, images.targets.long(), mean=0.0, std=1.0)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fitted = fit(
            model,
            data,
            Objective(task.collate, task.loss_units),
            config=config.training,
            rates=learning_rates(config),
            accelerator=Accelerator(),
            folder=Path(folder),
            seed=0,
        )
    return fitted.train_seconds


def barest_epoch(images: tutorial_mnist.Images) -> float:
    """Seconds of the same updates with nothing around them."""
    network = tutorial_mnist.network()
    parameters = list(network.parameters())
    adam = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    labels = images.targets.long()
    started = time.perf_counter()
    for batch in torch.randperm(len(labels)).split(tutorial_mnist.BATCH_SIZE):
        pixels = images.data[batch].float().div_(255)
        functional.cross_entropy(network(pixels), labels[batch]).backward()
        adam.step()
        for parameter in parameters:
            parameter.grad = None
    return time.perf_counter() - started


def necessities(config: RunConfig) -> dict[str, Callable[[], object]]:
    """Of one step, what cannot be left out, each on its own."""
    task: Any = make_task(config)
    network = task.network_for_mnist(tuple("0123456789"))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    adam = torch.optim.Adam(network.parameters(), lr=1e-9, fused=True)
    return {
        "products": bare_products(network, config.training.batch_size),
        "Adam": adam.step,
        "calls": calls_on_almost_nothing(network),
    }


def bare_products(network: nn.Module, batch: int) -> Callable[[], None]:
    """The matrix products of a step and nothing else."""
    weights = [module.weight.detach() for module in network.modules() if hasattr(module, "weight")]
    inputs = [torch.rand(batch, weight.shape[1]) for weight in weights]
    gradients = [torch.rand(batch, weight.shape[0]) for weight in weights]

    def products() -> None:
        for number, weight in enumerate(weights):
            inputs[number] @ weight.T
            gradients[number].T @ inputs[number]
            if number:  # nobody needs gradients of the images
                gradients[number] @ weight

    return products


def calls_on_almost_nothing(network: nn.Module) -> Callable[[], None]:
    """Forward and backward passes of as many layers, each of one number, in the plainest form."""
    depth = sum(hasattr(module, "weight") for module in network.modules())
    layers = [layer for _ in range(depth) for layer in (nn.Linear(1, 1), nn.ReLU())]
    plain = nn.Sequential(*layers[:-1])
    images, labels = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)

    def passes() -> None:
        functional.cross_entropy(plain(images), labels).backward()

    return passes


def repeated(action: Callable[[], object], times: int) -> None:
    for _ in range(times):
        action()


def step_flops(config: RunConfig) -> int:
    """Operations of the matrix products in one step: none for gradients of the images."""
    task: Any = make_task(config)
    with FlopCounterMode(display=False) as counter:
        task.step_probe()()
    return int(counter.get_total_flops())


def compare_commands(folder: Path, temporary: Path, epochs: int, barest: float) -> None:
    """``barest``: seconds of the barest epoch over all images."""
    python = sys.executable
    seconds: dict[str, list[float]] = {"tutorial": [], "hfbench": []}
    starts = []
    for number in range(ROUNDS):
        theirs = [python, str(Path(tutorial_mnist.__file__)), str(folder), "--epochs", str(epochs)]
        seconds["tutorial"].append(timed(lambda command=theirs: run(command)))
        ours = [python, str(ROOT / "recipes/mnist_mlp.py"), "--config", str(CONFIG)]
        ours += [f"data.source={folder}", f"training.epochs={epochs}"]
        ours += [f"output_dir={temporary / str(number)}"]
        seconds["hfbench"].append(timed(lambda command=ours: run(command)))
        starts.append(timed(lambda: run([python, "-c", BARE_START])))
    report(f"whole command, {epochs} epochs", seconds)
    start, trained = statistics.median(starts), 0.9 * epochs * barest  # a tenth validates
    together = start + trained
    print(
        f"of the command alone: PyTorch and an optimiser {start:.2f} s, {epochs} epochs of the "
        f"barest loop {trained:.2f} s; together {together:.2f} s, "
        f"{statistics.median(seconds['tutorial']) / together:.1f} times as fast as the tutorial"
    )


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def report(what: str, seconds: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ranges = {name: f"{min(values):.2f}-{max(values):.2f}" for name, values in seconds.items()}
    print(
        f"{what}: tutorial {medians['tutorial']:.2f} s ({ranges['tutorial']}), hfbench "
        f"{medians['hfbench']:.2f} s ({ranges['hfbench']}): "
        f"{medians['tutorial'] / medians['hfbench']:.1f} times as fast",
        flush=True,
    )


if __name__ == "__main__":
    main()
