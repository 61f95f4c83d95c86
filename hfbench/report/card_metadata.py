"""The metadata of a model card: what the Hub reads, filters by and shows as results.

Specification: https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented

from hfbench.hub_access import BUNDLED
from hfbench.models.pretraining import PRETRAINING, Pretraining
from hfbench.report.markup import code_span
from hfbench.results import UNTRAINED, RunResult
from hfbench.terminal_text import visible

Contents = Literal["model", "adapter", "merged"]
SourceKind = Literal["hub", "bundled", "local"]

TABLE_SUFFIXES = (
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".parquet",
    ".txt",
)  # what local tables end with

# The Hub wants the name of a data set there, or one of the same shape. These are no data set's:
# new ones have an owner before a slash.
_DATASET_TYPES = {"bundled": "hfbench-bundled", "local": "local-data"}
_PIPELINE_TAGS = {  # the others have the name of the task
    "causal_lm": "text-generation",
    "speech_recognition": "automatic-speech-recognition",
}
_TITLES = {"f1": "F1", "wer": "word error rate", "cer": "character error rate"}
_AVERAGED = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Source:
    """Where the checkpoint or the data come from, without anybody's path."""

    kind: SourceKind
    name: str  # the Hub's, bundled/<name>, or the last part of a local path
    revision: str | None = None

    @property
    def pinned(self) -> str:
        """The name with the revision, or with where it is when it is not on the Hub."""
        name = code_span(self.name)
        if self.kind == "local":
            return f"{name} (local, not on the Hub)"
        if self.kind == "bundled":
            return f"{name} (part of hfbench)"
        return name + (f" at revision {code_span(self.revision)}" if self.revision else "")

    @property
    def pretraining(self) -> Pretraining | None:
        """What a well-known checkpoint learnt; None for every other."""
        return PRETRAINING.get(self.name) if self.kind == "hub" else None


def find_source(name: str, revision: str | None, *, local: Collection[str]) -> Source:
    """What ``name`` in a configuration refers to.

    ``local`` are names that are files or folders although the Hub could have the same.
    """
    if name.startswith(BUNDLED):
        return Source("bundled", name)
    if name in local or not _could_be_on_hub(name):
        last = " ".join(visible(PureWindowsPath(name).name).split())  # knows both kinds of slash
        return Source("local", last if last.strip(".~") else "local folder")
    return Source("hub", name, revision)


def checkpoint_source(result: RunResult, *, local: Collection[str]) -> Source:
    """The checkpoint that the run started from."""
    model = result.config["model"]
    revision = result.checkpoint_commit or model["revision"]
    name = model["checkpoint"]
    if model.get("source") == "timm" and name not in local:
        from hfbench.models.timm_models import weights_repository

        name = weights_repository(name) or name
    return find_source(name, revision, local=local)


def data_source(result: RunResult, *, local: Collection[str]) -> Source:
    """The data that the run was trained and tested on."""
    data = result.config["data"]
    return find_source(data["source"], data["revision"], local=local)


def card_metadata(
    result: RunResult, *, repo_id: str, contents: Contents, checkpoint: Source, data: Source
) -> ModelCardData:
    """Only what is known: no licence and no language are invented.

    A network from random weights derives from no checkpoint, so it names none.
    """
    adapter = contents == "adapter"
    derived = checkpoint.kind == "hub" and is_pretrained(result)
    results = list(_eval_results(result, data))
    types = dict.fromkeys(one.metric_type for one in results if one.metric_type != "loss")
    return ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag=pipeline_tag(result),
        base_model=checkpoint.name if derived else None,
        base_model_relation=("adapter" if adapter else "finetune") if derived else None,
        datasets=[data.name] if data.kind == "hub" else None,
        metrics=list(types) or None,
        tags=["hfbench", result.config["strategy"]["name"], *(["transformers"] if adapter else [])],
        model_name=repo_id.rpartition("/")[2],
        eval_results=results or None,
    )


def is_pretrained(result: RunResult) -> bool:
    """Whether the checkpoint gave weights and not its architecture alone."""
    return bool(result.config["strategy"]["name"] != "scratch")


def has_head(result: RunResult) -> bool:
    """Whether parameters stand behind the backbone; a tied output layer has none of its own."""
    assert result.parameters is not None  # the run succeeded
    return any(row.name == "head" for row in result.parameters.by_depth)


def pipeline_tag(result: RunResult) -> str:
    """The task as the Hub names it, such as ``text-classification``."""
    return _PIPELINE_TAGS.get(result.task, result.task.replace("_", "-"))


def problem_type(result: RunResult) -> str:
    """What the outputs mean, as transformers names it; older results are all of single labels."""
    return str(result.data.get("problem_type", "single_label_classification"))


def data_name(result: RunResult, data: Source) -> str:
    """The data with their configuration, such as ``nyu-mll/glue (sst2)``."""
    name = result.config["data"]["name"]
    return data.name if name is None else f"{data.name} ({name})"


def is_from_train(result: RunResult, role: str) -> bool:
    """Whether the split ``role`` was taken from train, as the notes of the data say."""
    return any(note.startswith(f"no {role} split:") for note in result.data["notes"])


def scalars(metrics: dict[str, Any]) -> Iterator[tuple[str, int | float]]:
    """The finite numbers among metrics, as the result's JSON file holds them."""
    for name, value in metrics.items():
        if isinstance(value, (int, float)):
            yield name, value


def metric_title(name: str) -> str:
    """A metric for people: ``f1_macro`` is F1 (macro)."""
    kind, average = _kind_and_average(name)
    title = _TITLES.get(kind, kind.replace("_", " "))
    return title if average is None or kind == name else f"{title} ({average})"


def _eval_results(result: RunResult, data: Source) -> Iterator[EvalResult]:
    settings = result.config["data"]
    split = None if is_from_train(result, "test") else settings["test_split"] or "test"
    for name, value in scalars(result.to_dict()["test_metrics"]):
        if name.endswith(UNTRAINED) or name == "generated_samples":
            continue  # no score of this model
        kind, average = _kind_and_average(name)
        yield EvalResult(
            task_type=pipeline_tag(result),
            task_name=result.task.replace("_", " ").title(),
            dataset_type=_DATASET_TYPES.get(data.kind, data.name),
            dataset_name=data_name(result, data),
            dataset_config=settings["name"] if data.kind == "hub" else None,
            dataset_split=split,
            dataset_revision=data.revision,
            metric_type=kind,
            metric_name=metric_title(name),
            metric_value=value,
            metric_args=None if average is None else {"average": average},
        )


def _kind_and_average(name: str) -> tuple[str, str | None]:
    """``f1_macro`` is ``f1``, averaged ``macro``; without a suffix it is of label 1, ``binary``."""
    kind, _, average = name.partition("_")
    return (kind, average or "binary") if kind in _AVERAGED else (name, None)


def _could_be_on_hub(name: str) -> bool:
    """Whether the name has the Hub's form; a table's suffix makes it a file."""
    if PureWindowsPath(name).suffix.lower() in TABLE_SUFFIXES:
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
