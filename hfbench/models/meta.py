"""The network of a configuration on the meta device: shapes without memory, and no weights."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hfbench.errors import UserError
from hfbench.models.configuration import DEFAULT_LABELS, Configuration
from hfbench.models.heads import TASKS, named_labels, shown_labels, tasks_of
from hfbench.models.loading import build_on_meta
from hfbench.models.structure import Structure, timm_classifier
from hfbench.models.timm_models import network_arguments, timm_labels, timm_name, wrapper_values


@dataclass(frozen=True)
class Head:
    """What a network is to learn."""

    task: str
    num_labels: int | None  # None for causal_lm; tokens of the vocabulary for speech_recognition
    notes: tuple[str, ...]  # where both come from, for people


def choose_head(configuration: Configuration, task: str | None, num_labels: int | None) -> Head:
    """Fill in what is None: the task from the architecture, the labels from the checkpoint.

    Raises UserError for an unknown architecture or task, and for one that has no such task.
    """
    if task is not None and task not in TASKS:
        raise UserError(f"task={task!r} is unknown; choose: {', '.join(TASKS)}")
    if num_labels is not None and num_labels < 1:
        raise UserError(f"num_labels={num_labels} must be a number >= 1")
    possible = _possible_tasks(configuration)
    if task is not None and task not in possible:
        raise UserError(
            f"{configuration.checkpoint!r} ({_architecture(configuration)}) has no class for "
            f"{task}; it fits: {', '.join(possible)}"
        )
    chosen = task or possible[0]
    if chosen == "causal_lm" and num_labels is not None:
        raise UserError(f"num_labels={num_labels} belongs to classification, not to causal_lm")
    notes = [f"Task: {chosen}"]
    if task is None:
        others = [f"--task {other}" for other in possible if other != chosen]
        notes[0] += f", the default for {_architecture(configuration)}"
        notes[0] += f" (also possible: {', '.join(others)})" if others else ""
    if chosen == "causal_lm":
        return Head(chosen, None, tuple(notes))
    speech = chosen == "speech_recognition"
    own = _own_vocabulary(configuration) if speech else _own_labels(configuration)
    what = "Tokens" if speech else "Labels"
    if num_labels is not None:
        notes.append(f"{what}: {num_labels}")
    elif own:
        notes.append(f"{what}: {own}, the checkpoint's own (--num-labels changes it)")
    else:
        notes.append(f"{what}: {DEFAULT_LABELS}, as the checkpoint names none (--num-labels)")
    named = None if speech else named_labels(configuration.values.get("id2label"))
    if named:
        notes.append(
            f"Head: counted as new; data with exactly the labels {shown_labels(named)} start with "
            "the checkpoint's own (model.head=new or reuse)"
        )
    return Head(chosen, num_labels or own or DEFAULT_LABELS, tuple(notes))


def task_of_class(name: str) -> str | None:
    """The task of a network's class, such as BertForSequenceClassification; None for others."""
    for task, (_, classes) in TASKS.items():
        for known in classes.values():
            if name in ((known,) if isinstance(known, str) else known):  # DeiT has two
                return task
    return None


def build_network(configuration: Configuration, head: Head) -> nn.Module:
    """The network on the meta device. Raises UserError for values that fit no network."""
    try:
        if configuration.library == "timm":
            return _build_timm(configuration, head)
        config = _config_class(configuration).from_dict(configuration.values)
        if head.task == "speech_recognition":
            config.vocab_size = head.num_labels
        elif head.num_labels is not None:
            config.num_labels = head.num_labels
        return build_on_meta(config, getattr(transformers, TASKS[head.task][0]))
    except UserError:
        raise
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise UserError(
            f"the configuration of {configuration.checkpoint!r} ({configuration.source}) makes no "
            f"network: {error}"
        ) from error


def with_loss(configuration: Configuration) -> Configuration:
    """The same network in a class that computes a loss: a timm model inside transformers' wrapper.

    Raises UserError for a name that the installed timm does not know.
    """
    if configuration.library != "timm":
        return configuration
    return replace(configuration, values=wrapper_values(configuration.values))


def with_image_size(configuration: Configuration, pixels: int) -> Configuration:
    """The configuration for square images of another size."""
    values = configuration.values
    if values.get("model_type") != "timm_wrapper":
        return replace(configuration, values=values | {"image_size": pixels})
    own = values["pretrained_cfg"]
    changes = {
        "model_args": (values.get("model_args") or {}) | {"img_size": pixels},
        "pretrained_cfg": own | {"input_size": (own["input_size"][0], pixels, pixels)},
    }
    return replace(configuration, values=values | changes)


def new_parameters(network: nn.Module, structure: Structure, head: Head) -> list[str]:
    """Names of what fine-tuning a plain base checkpoint would initialise: the classifier."""
    if head.num_labels is None:
        return []
    inside = {id(p) for module in timm_classifier(network) for p in module.parameters()}
    return [
        name
        for name, parameter in network.named_parameters(remove_duplicate=False)
        if structure.part_of(name) == "head" or id(parameter) in inside
    ]


def _possible_tasks(configuration: Configuration) -> tuple[str, ...]:
    if configuration.library == "timm":
        timm_name(configuration.values["architecture"])  # refuses an unknown one
        return ("image_classification",)
    model_type = _config_class(configuration).model_type
    possible = tasks_of(model_type)
    if not possible:
        raise UserError(
            f"{configuration.checkpoint!r} ({_architecture(configuration)}) has no class for any "
            f"of {', '.join(TASKS)}"
        )
    return possible


def _config_class(configuration: Configuration) -> Any:
    model_type = configuration.values["model_type"]
    if model_type not in CONFIG_MAPPING:
        keys = ", ".join(configuration.values)
        raise UserError(
            f"{configuration.checkpoint!r}: {_architecture(configuration)} is unknown to "
            f"transformers {transformers.__version__}; {configuration.source} holds: {keys}. "
            "A newer transformers may know it; code from a repository is not run for counting"
        )
    return CONFIG_MAPPING[model_type]


def _architecture(configuration: Configuration) -> str:
    values = configuration.values
    if configuration.library == "timm":
        return f"timm architecture {values['architecture']!r}"
    classes = "".join(f", {name}" for name in values.get("architectures") or ())
    return f"model type {values['model_type']!r}{classes}"


def _own_labels(configuration: Configuration) -> int:
    """How many the checkpoint's own head has; 0 where it names none."""
    values = configuration.values
    if configuration.library == "timm":
        own = values.get("num_classes") or timm_labels(values["architecture"])
    else:
        own = values.get("num_labels") or values.get("num_classes")  # the latter: TimmWrapper
        own = own or len(values.get("id2label") or ())
    if not isinstance(own, int):
        raise UserError(f"{configuration.source}: the number of labels, {own!r}, is no number")
    return own


def _own_vocabulary(configuration: Configuration) -> int:
    """Tokens; where the checkpoint names none, as many as its architecture has by default."""
    config: Any = _config_class(configuration).from_dict(configuration.values)
    return int(config.vocab_size)


def _build_timm(configuration: Configuration, head: Head) -> nn.Module:
    import timm

    values = configuration.values
    with torch.device("meta"):
        network: nn.Module = timm.create_model(
            values["architecture"], num_classes=head.num_labels, **network_arguments(values)
        )
    return network
