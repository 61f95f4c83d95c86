"""The loop beside transformers.Trainer, and the start of the command line.

    make bench

One epoch over the same tokenised texts with the same model, batch size, optimiser and schedule,
in turn within one process, so that a machine whose speed drifts treats both alike. Ratios of
medians count; above 1.0 means that ours is slower.
"""

import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import Trainer, TrainingArguments

from hfbench.config import RunConfig, load_config
from hfbench.models.structure import find_structure
from hfbench.preparation import learning_rates
from hfbench.strategies import apply_strategy, set_training_mode
from hfbench.tasks import make_task
from hfbench.tasks.base import Task, TaskData
from hfbench.training.fit import Objective, fit

ROUNDS = 3
CONFIG = Path(__file__).parents[2] / "recipes/configs/demo_text.yaml"


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for strategy in ("full", "lora", "head"):
        compare_epoch(strategy)
    seconds = [run_seconds([sys.executable, "-m", "hfbench.cli", "--help"]) for _ in range(ROUNDS)]
    print(f"hfbench --help: {statistics.median(seconds):.2f} s")


def compare_epoch(strategy: str) -> None:
    config = load_config(
        CONFIG, [f"strategy={strategy}", "training.epochs=1", "data.max_train_samples=320"]
    )
    task = make_task(config)
    data = task.prepare_data()
    seconds: dict[str, list[float]] = {"hfbench": [], "Trainer": []}
    for _ in range(ROUNDS):
        seconds["hfbench"].append(timed(lambda: ours(config, task, data)))
        seconds["Trainer"].append(timed(lambda: theirs(config, task, data)))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f"{strategy:5} one epoch of {len(data.train):,} texts: hfbench {medians['hfbench']:.2f} s, "
        f"Trainer {medians['Trainer']:.2f} s, ratio {medians['hfbench'] / medians['Trainer']:.2f} "
        f"(range of ours {min(seconds['hfbench']):.2f}-{max(seconds['hfbench']):.2f} s)",
        flush=True,
    )


def timed(prepare: Callable[[], Callable[[], Any]]) -> float:
    """Seconds of what ``prepare`` returns; the preparation is not timed."""
    action = prepare()
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        action()
    return time.perf_counter() - started


def ours(config: RunConfig, task: Task, data: TaskData) -> Callable[[], Any]:
    model, structure = prepared_model(config, task, data)
    objective = Objective(
        collate=task.collate,
        loss_units=task.loss_units,
        train_mode=lambda model: set_training_mode(model, structure),
    )

    def action() -> None:
        with tempfile.TemporaryDirectory() as folder:
            fit(
                model,
                data.train,
                objective,
                config=config.training,
                rates=learning_rates(config),
                accelerator=Accelerator(),
                folder=Path(folder),
                seed=0,
            )

    return action


def theirs(config: RunConfig, task: Task, data: TaskData) -> Callable[[], Any]:
    model, _ = prepared_model(config, task, data)

    def action() -> None:
        with tempfile.TemporaryDirectory() as folder:
            Trainer(
                model=model,
                args=TrainingArguments(
                    output_dir=folder,
                    num_train_epochs=1,
                    per_device_train_batch_size=config.training.batch_size,
                    learning_rate=learning_rates(config).rest,
                    weight_decay=config.training.weight_decay,
                    warmup_steps=5,
                    report_to=[],
                    save_strategy="epoch",
                    remove_unused_columns=False,
                ),
                train_dataset=data.train,
                data_collator=task.collate,
            ).train()

    return action


def prepared_model(config: RunConfig, task: Task, data: TaskData) -> tuple[Any, Any]:
    torch.manual_seed(0)
    built = task.build_model(data)
    structure = find_structure(built.model)
    return apply_strategy(built.model, structure, config.strategy, built.new_parameters), structure


def run_seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
