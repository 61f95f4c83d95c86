"""A fine-tuned model, found on this machine or on the hub, with the preprocessing of its training.

Only configurations, safetensors and the files of tokenizers are fetched; no pickle is opened and
no code of a repository is run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import snapshot_download
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hfbench.config import (
    DataConfig,
    DecodingConfig,
    ModelConfig,
    RunConfig,
    StrategyConfig,
    data_config,
    decoding_config,
)
from hfbench.errors import UserError
from hfbench.hub_access import BUNDLED, hub_errors, local_path
from hfbench.models.adapter_files import adapter_base, is_adapter
from hfbench.models.bundled import resolve_checkpoint
from hfbench.models.configuration import CONFIG_FILE, find_configuration
from hfbench.models.meta import task_of_class
from hfbench.models.network import ScratchNetwork, is_network_folder
from hfbench.record import damage
from hfbench.results import MODEL_REMOVED, RESULT_FILE, RunResult
from hfbench.saving import MODEL_FOLDER, load_model
from hfbench.tasks import TASKS, make_task
from hfbench.tasks.base import PredictingTask

FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # of a repository's top folder
# What is assumed of a model that no result.json of ours comes with.
ASSUMED_MAX_LENGTH = 512  # tokens; fewer where the model takes fewer
ASSUMED_MAX_SECONDS = 10.0
ASSUMED_SPEECH_SECONDS = 30.0  # transcripts are of whole recordings


@dataclass(frozen=True)
class TrainedModel:
    """A fine-tuned model before its weights are loaded.

    Attributes:
        name: as the user wrote it.
        revision: the commit of a repository; None for a local folder.
        task: with the processor of the training, ready for ``features``.
        training_columns: what the columns of the training data were called, by modality; None
            where that is not known.
        notes: what it is and what was assumed, for people.
    """

    name: str
    folder: Path
    revision: str | None
    task: PredictingTask
    training_columns: Mapping[str, str] | None
    notes: tuple[str, ...]

    def load(self) -> nn.Module:
        """The network in eval mode, on the CPU.

        Raises UserError for missing weights and a head of another kind.
        """
        model: Any = load_model(self.folder)
        self.task.fit_to(getattr(model, "config", None))  # a network from scratch has none
        network: nn.Module = model
        return network


def find_trained(name: str, revision: str | None = None) -> TrainedModel:
    """The model of a run's folder, of a folder with ``config.json``, or of a hub repository.

    Settings of the preprocessing are those of the training where a ``result.json`` lies beside
    the model; else they are assumed, and the notes say so.

    Raises:
        UserError: there is no such model, or one without a head, without safetensors or with code
            of its own.
        HubUnreachableError: the hub is needed and does not answer.
    """
    folder, commit = _locate(name, revision)
    architecture = _architecture(name, folder)
    network = architecture == ScratchNetwork.__name__
    own = "mnist_mlp" if network else task_of_class(architecture)
    result = _result_of(folder)
    wanted = own if result is None else result.task
    if own is None or own != wanted or own not in TASKS:
        needed = "a task of hfbench" if result is None else wanted
        raise UserError(
            f"{name!r} is a {architecture}: it has no trained head for {needed}. Fine-tune it "
            "first (hfbench compare, or a recipe) and give the run's folder"
        )
    speech = own == "speech_recognition"
    assumed = DataConfig(
        max_length=ASSUMED_MAX_LENGTH,
        max_seconds=ASSUMED_SPEECH_SECONDS if speech else ASSUMED_MAX_SECONDS,
    )
    data = assumed if result is None else _data_of(result)
    decoding = DecodingConfig()
    if result is not None:
        decoding = decoding_config(result.config.get("decoding", {}))
    config = RunConfig(
        task=own,
        model=ModelConfig(checkpoint="" if network else str(folder)),
        data=data,
        strategy=StrategyConfig(name="scratch" if network else "full"),
        decoding=decoding,
    )
    task = make_task(config)
    assert isinstance(task, PredictingTask)  # as all tasks
    task.processor = task.processor_of(folder)
    return TrainedModel(
        name=name,
        folder=folder,
        revision=commit,
        task=task,
        training_columns=None if result is None else result.data.get("columns"),
        notes=(
            _what_it_is(name, folder, commit, architecture),
            _preprocessing(task, data, known=result is not None),
        ),
    )


def _locate(name: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder that holds the model, and the commit of a repository."""
    if name.startswith(BUNDLED):
        return Path(resolve_checkpoint(name)), None
    path = local_path(name, key="RUN_OR_REPO", choices=())
    if path is None:
        return _download(name, revision)
    if revision is not None:
        raise UserError(f"--revision={revision} is for hub repositories; {name!r} is on the disk")
    path = path.resolve()
    if not path.is_dir():
        raise UserError(f"{name!r} is a file; give the folder of a run or of a saved model")
    for folder in (path / MODEL_FOLDER, path):
        if (folder / CONFIG_FILE).is_file():
            return folder, None
    raise UserError(f"{name!r} {_why_no_model(path)}")


def _why_no_model(folder: Path) -> str:
    if (folder / RESULT_FILE).is_file():
        result = RunResult.load(folder / RESULT_FILE)
        if result.model_removed is not None:
            return f"is a run without a model: {MODEL_REMOVED.format(result.model_removed)}"
        return f"is a run without a model: {result.status}, {result.reason}. Repeat its command"
    if is_adapter(folder):
        return f"is an adapter without {CONFIG_FILE}, so neither its head nor its labels are known"
    runs = sorted(path.parent.parent for path in folder.glob(f"**/{MODEL_FOLDER}/{CONFIG_FILE}"))
    if runs:
        return f"holds several runs; give one of {', '.join(map(str, runs))}"
    return f"holds neither a run ({RESULT_FILE} and {MODEL_FOLDER}/) nor a model ({CONFIG_FILE})"


def _download(name: str, revision: str | None) -> tuple[Path, str]:
    with hub_errors("trained model", name):
        folder = snapshot_download(
            name, revision=revision, allow_patterns=list(FETCHED), ignore_patterns=["*/*"]
        )
    path = Path(folder)
    if not (path / CONFIG_FILE).is_file():
        raise UserError(f"the repository {name!r} {_why_no_model(path)}")
    if not any(path.glob("*.safetensors")):
        raise UserError(
            f"the repository {name!r} has no safetensors weights. Pickle files are not loaded "
            "because they can run code: choose a --revision that has model.safetensors"
        )
    return path, path.name


def _architecture(name: str, folder: Path) -> str:
    """The network's class. Raises UserError where that is none of transformers or our own."""
    values = find_configuration(str(folder)).values
    if is_network_folder(folder):
        return ScratchNetwork.__name__
    named = values.get("architectures") or [None]
    known = values.get("model_type") in CONFIG_MAPPING and hasattr(transformers, str(named[0]))
    if known:
        return str(named[0])
    code = values.get("auto_map")
    if code:
        raise UserError(
            f"{name!r} needs code from its repository ({', '.join(map(str, code.values()))}), and "
            "hfbench never runs code from repositories. Choose a model whose architecture is part "
            "of transformers"
        )
    raise UserError(
        f"{name!r}: its {CONFIG_FILE} names the model type {values.get('model_type')!r} and the "
        f"class {named[0]!r}, which transformers {transformers.__version__} does not know"
    )


def _result_of(folder: Path) -> RunResult | None:
    """The record of the training: inside a repository, or beside a run's model.

    Raises UserError for a run whose files are not as they were written.
    """
    if folder.name == MODEL_FOLDER and (problem := damage(folder.parent)) is not None:
        raise UserError(f"{problem}. Repeat the run's command, which makes it whole")
    for place in (folder, folder.parent):
        if (place / RESULT_FILE).is_file():
            result = RunResult.load(place / RESULT_FILE)
            if result.model_removed is not None:  # and what is here was left by a killed process
                raise UserError(f"{str(place)!r} {_why_no_model(place)}")
            return result
    return None


def _data_of(result: RunResult) -> DataConfig:
    """The settings of the training's data, with what was chosen by the data themselves."""
    return replace(
        data_config(result.config["data"]),
        completion_column=result.data.get("columns", {}).get("completion"),
        max_seconds=result.max_seconds,
    )


def _what_it_is(name: str, folder: Path, commit: str | None, architecture: str) -> str:
    where = name if commit is None else f"{name}, revision {commit}"
    note = f"model: {where} ({architecture})"
    if not is_adapter(folder):
        return note
    return f"{note}, adapter of {adapter_base(folder).label}"


def _preprocessing(task: PredictingTask, data: DataConfig, *, known: bool) -> str:
    settings = [f"data.{key}={getattr(data, key)!r}" for key in task.input_settings]
    if known:
        return ", ".join(["preprocessing: as in training", *settings])
    return ", ".join([f"assumed, as there is no {RESULT_FILE}: {task.name}", *settings])
