"""Trains the networks of the depth study: data loaded once, each finished run kept as JSON."""

import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from hfbench import provenance
from hfbench.config import NetworkConfig, RunConfig
from hfbench.conversion import build
from hfbench.disk import write_whole
from hfbench.errors import UserError
from hfbench.models.network import ScratchNetwork
from hfbench.models.structure import find_structure
from hfbench.network_depth import (
    EQUAL_PARAMETERS,
    EQUAL_WIDTH,
    DepthCurve,
    NetworkRun,
    NetworkStudy,
    Widths,
    layer_parameters,
    widths_for_parameters,
)
from hfbench.parameters import count_parameters
from hfbench.plain_json import read_json
from hfbench.preparation import learning_rates, make_accelerator, settle_threads
from hfbench.record import run_id, slug
from hfbench.scoring import predictions, scores
from hfbench.strategies import layer_decay
from hfbench.tasks.base import TaskData
from hfbench.tasks.mnist_mlp import MnistMlp
from hfbench.training.fit import fit
from hfbench.training.objective import Objective
from hfbench.training.progress import progress_options

REGULARISERS = ("network.dropout", "training.l1", "training.l2", "training.weight_decay")
MEMORY_DISK = Path("/dev/shm")


def study_networks(
    config: RunConfig, *, depths: Sequence[int], seeds: Sequence[int], folder: Path
) -> NetworkStudy:
    """Train what ``folder`` does not hold yet, and measure train and test after the last epoch.

    The configured network sets the width and the number of parameters that the others share. No
    run looks at the validation split, so that nothing stops overfitting.

    Raises UserError for a network that is not an mlp of one width, or without regularisation.
    """
    width = _common_width(config)
    plain = _without_regularisation(config)
    task = MnistMlp(config)
    data = task.prepare_data()
    sizes = {"inputs": task.height * task.width, "outputs": len(data.label_names)}
    target = sum(layer_parameters((width,) * len(_network(config).widths), **sizes))
    networks = {
        EQUAL_WIDTH: [(width,) * (depth - 1) for depth in depths],
        EQUAL_PARAMETERS: [widths_for_parameters(depth, target, **sizes) for depth in depths],
    }
    distinct = dict.fromkeys(itertools.chain.from_iterable(networks.values()))
    planned = [
        _with_network(base, widths, seed)
        for seed in seeds
        for base in (plain, config)
        for widths in distinct
    ]
    runs = _Trainer(config, task, data, folder).run_all(planned)
    return NetworkStudy(
        dataset=config.data.label,
        samples={split: data.summary[split] for split in ("train", "test")},
        target_parameters=target,
        regularisation=", ".join(f"{k}={v}" for k, v in _regularisation(config).items() if v),
        seeds=tuple(seeds),
        curves={
            (way, regularised): DepthCurve.of(
                members, [run for run in runs if run.regularised == regularised]
            )
            for way, members in networks.items()
            for regularised in (False, True)
        },
    )


class _Trainer:
    def __init__(self, config: RunConfig, task: MnistMlp, data: TaskData, folder: Path) -> None:
        self.task, self.data, self.folder = task, data, folder
        self.accelerator: Accelerator = make_accelerator(config)
        threads = settle_threads(task, self.accelerator)
        self.about = {
            "versions": provenance.versions(),
            "hardware": provenance.hardware()
            | {"threads": threads, "precision": self.accelerator.mixed_precision},
        }

    def run_all(self, planned: Sequence[RunConfig]) -> list[NetworkRun]:
        bar = tqdm(planned, desc="networks", unit="run", **progress_options(True))
        return [self.stored(config) or self.train(config) for config in bar]

    def stored(self, config: RunConfig) -> NetworkRun | None:
        path = self.path(config)
        if not path.exists():
            return None
        try:
            values = read_json(path)
            return build(NetworkRun, values["run"], "run")
        except (ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(f"{str(path)!r} holds no run ({error}): remove it") from error

    def path(self, config: RunConfig) -> Path:
        return self.folder / f"{slug(config.start)}-{run_id(config)}.json"

    def train(self, config: RunConfig) -> NetworkRun:
        network = _network(config)
        set_seed(config.seed)  # first weights, then dropout
        model = ScratchNetwork(
            network,
            height=self.task.height,
            width=self.task.width,
            label_names=self.data.label_names,
        )
        structure = find_structure(model)
        parameters = count_parameters(model, structure)
        decay = layer_decay(structure, config.training.layerwise_lr_decay)
        with tempfile.TemporaryDirectory(dir=_place_for_states()) as states:
            fitted = fit(
                model,
                self.data.train,
                Objective(self.task.collate, self.task.loss_units, rate_factor=decay),
                config=config.training,
                rates=learning_rates(config),
                accelerator=self.accelerator,
                folder=Path(states),
                owner=network.label,
                seed=config.seed,
                title=f"{network.label} seed {config.seed}",
            )
        self.accelerator.free_memory()
        train, test = (
            scores(
                self.task,
                predictions(config, self.task, model, split, self.accelerator, "evaluate"),
            )
            for split in (self.data.train, self.data.test)
        )
        run = NetworkRun(
            widths=network.widths,
            regularised=any(_regularisation(config).values()),
            seed=config.seed,
            layer_parameters=tuple(row.total for row in parameters.by_depth),
            train_loss=train["loss"],
            train_accuracy=train["accuracy"],
            test_loss=test["loss"],
            test_accuracy=test["accuracy"],
            train_seconds=fitted.train_seconds,
        )
        self.keep(config, run)
        return run

    def keep(self, config: RunConfig, run: NetworkRun) -> None:
        values = {"run": dataclasses.asdict(run), "config": config.to_dict(), **self.about}
        write_whole(self.path(config), json.dumps(values, indent=2, allow_nan=False) + "\n")


def _place_for_states() -> Path | None:
    """In memory where the system has such a place.

    A state after every epoch is flushed to the disk, which takes longer than the epoch; a run of
    a second is sooner repeated than continued.
    """
    return MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None


def _network(config: RunConfig) -> NetworkConfig:
    return config.network or NetworkConfig()


def _common_width(config: RunConfig) -> int:
    network = _network(config)
    if network.kind != "mlp" or len(set(network.widths)) != 1:
        raise UserError(
            f"network.kind={network.kind} network.widths={list(network.widths)}: a depth study "
            "needs an mlp whose hidden layers have one width, such as [64, 64, 64]"
        )
    return network.widths[0]


def _regularisation(config: RunConfig) -> dict[str, float]:
    values: dict[str, Any] = config.to_dict()
    found = {}
    for name in REGULARISERS:
        section, key = name.split(".")
        found[name] = values[section][key]
    return found


def _without_regularisation(config: RunConfig) -> RunConfig:
    if not any(_regularisation(config).values()):
        raise UserError(f"there is no regularisation to compare: set {', '.join(REGULARISERS)}")
    return dataclasses.replace(
        config,
        network=dataclasses.replace(_network(config), dropout=0.0),
        training=dataclasses.replace(config.training, l1=0.0, l2=0.0, weight_decay=0.0),
    )


def _with_network(config: RunConfig, widths: Widths, seed: int) -> RunConfig:
    network = dataclasses.replace(_network(config), widths=widths)
    return dataclasses.replace(config, network=network, seed=seed)
