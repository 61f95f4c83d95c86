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
class Side:
    """The seconds of one side and what each of its runs gave, by strategy and seed."""

    seconds: float
    outcomes: dict[tuple[str, int], Outcome]


def measure_trainer(matrix: Matrix, folder: Path) -> Side:
    seconds = timed(lambda: _run_trainer(matrix, folder))
    texts = {run: (_run_folder(folder, run) / "result.json").read_text() for run in matrix.runs()}
    return Side(seconds, {run: Outcome(**json.loads(text)) for run, text in texts.items()})


def measure_ours(matrix: Matrix, folder: Path, trainer: Side) -> Side:
    """Raises RuntimeError unless the same parameters were trained by as many updates."""
    seconds = timed(lambda: _run_compare(matrix, folder))
    outcomes = {
        (result.strategy, result.seed): Outcome(
            test_accuracy=result.test_metrics["accuracy"],
            trainable=result.parameters.trainable,
            steps=result.steps,
        )
        for result in load_all(folder)
        if result.parameters is not None
    }
    for run in matrix.runs():
        theirs = trainer.outcomes[run]
        if dataclasses.replace(theirs, test_accuracy=outcomes[run].test_accuracy) != outcomes[run]:
            raise RuntimeError(f"{run}: not the same was trained: {theirs}, {outcomes[run]}")
    return Side(seconds, outcomes)


def _run_compare(matrix: Matrix, folder: Path) -> None:
    folder.mkdir(parents=True)
    values = matrix.config.to_dict()
    chosen = {key: values[key] for key in ("task", "model", "data", "training")}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(chosen))
    command = [sys.executable, "-m", "hfbench", "compare", "--config", str(path)]
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
