"""A matrix of strategies and seeds: one command of ours against one Trainer process a run."""

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from measuring import timed

from hfbench.config import RunConfig, parse_strategy
from hfbench.models.bundled import resolve_checkpoint
from hfbench.preparation import learning_rates
from hfbench.results import load_all

SCRIPT = Path(__file__).with_name("trainer_runs.py")
STRATEGIES = ("scratch", "head", "last_1", "last_2", "last_4", "lora", "full")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Matrix:
    config: RunConfig  # strategy and seed do not count
    strategies: tuple[str, ...] = STRATEGIES
    seeds: tuple[int, ...] = SEEDS

    def runs(self) -> list[tuple[str, int]]:
        return [(strategy, seed) for seed in self.seeds for strategy in self.strategies]


@dataclass(frozen=True)
class Outcome:
    """Of one run."""

    test_accuracy: float
    trainable: int  # parameters
    steps: int


@dataclass(frozen=True)
class Sides:
    """One round: the seconds of both sides and what each run gave, by strategy and seed."""

    trainer_seconds: float
    our_seconds: float
    trainer: dict[tuple[str, int], Outcome]
    ours: dict[tuple[str, int], Outcome]


def measure_matrix(matrix: Matrix, folder: Path) -> Sides:
    """Both sides, one after the other, into ``folder``. The same must have been trained."""
    trainer_seconds = timed(lambda: _run_trainer(matrix, folder / "trainer"))
    our_seconds = timed(lambda: _run_compare(matrix, folder / "ours"))
    trainer = {
        run: Outcome(
            **json.loads((_run_folder(folder / "trainer", run) / "result.json").read_text())
        )
        for run in matrix.runs()
    }
    ours = {
        (result.strategy, result.seed): Outcome(
            test_accuracy=result.test_metrics["accuracy"],
            trainable=result.parameters.trainable,
            steps=result.steps,
        )
        for result in load_all(folder / "ours")
        if result.parameters is not None
    }
    for run in matrix.runs():
        theirs = dataclasses.replace(trainer[run], test_accuracy=ours[run].test_accuracy)
        if theirs != ours[run]:
            raise RuntimeError(f"{run}: not the same was trained: {trainer[run]}, {ours[run]}")
    return Sides(trainer_seconds, our_seconds, trainer, ours)


def _run_compare(matrix: Matrix, folder: Path) -> None:
    folder.mkdir(parents=True)
    values = matrix.config.to_dict()
    chosen = {key: values[key] for key in ("task", "model", "data", "training")}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(chosen))
    command = [sys.executable, "-m", "hfbench.cli", "compare", "--config", str(path)]
    command += ["--strategies", ",".join(matrix.strategies)]
    command += ["--seeds", ",".join(str(seed) for seed in matrix.seeds), "--output", str(folder)]
    _call(command, folder / "cache")


def _run_trainer(matrix: Matrix, folder: Path) -> None:
    config = matrix.config
    for run in matrix.runs():
        strategy, seed = run
        rates = learning_rates(dataclasses.replace(config, strategy=parse_strategy(strategy)))
        options = {
            "checkpoint": resolve_checkpoint(config.model.checkpoint),
            "data": config.data.source,
            "strategy": strategy,
            "output": _run_folder(folder, run),
            "seed": seed,
            "epochs": config.training.epochs,
            "batch-size": config.training.batch_size,
            "learning-rate": rates.rest,
            "max-length": config.data.max_length,
        }
        listed = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        _call([sys.executable, str(SCRIPT), *listed], folder / "cache")


def _run_folder(folder: Path, run: tuple[str, int]) -> Path:
    strategy, seed = run
    return folder / f"{strategy}_seed{seed}"


def _call(command: list[str], cache: Path) -> None:
    """Run it with a cache of its own, as on a machine that has not seen these data."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr}")
