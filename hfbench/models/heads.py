"""Which tasks an architecture of transformers has a class for, and what its outputs are called."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers.models.auto import modeling_auto

# task -> its class in transformers and the model types that have one; the first that fits is the
# default.
TASKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "text_classification": (
        "AutoModelForSequenceClassification",
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    ),
    "image_classification": (
        "AutoModelForImageClassification",
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    ),
    "audio_classification": (
        "AutoModelForAudioClassification",
        modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    ),
    "speech_recognition": ("AutoModelForCTC", modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES),
    "causal_lm": ("AutoModelForCausalLM", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
}


def tasks_of(model_type: str) -> tuple[str, ...]:
    """The tasks that networks of this type can learn, the usual one first."""
    return tuple(task for task, (_, types) in TASKS.items() if model_type in types)


_NO_NAME = re.compile(r"LABEL_\d+")  # transformers' names of labels that nobody named
_SHOWN_LABELS = 6


def named_labels(id2label: Mapping[Any, str] | None) -> tuple[str, ...] | None:
    """The names of a checkpoint's outputs, in their order; None where it names none."""
    by_number = {int(number): str(name) for number, name in (id2label or {}).items()}
    names = tuple(by_number[number] for number in sorted(by_number))
    return None if all(map(_NO_NAME.fullmatch, names)) else names


def shown_labels(names: Sequence[str]) -> str:
    """In one line, the number of many."""
    more = f", ... ({len(names)})" if len(names) > _SHOWN_LABELS else ""
    return ", ".join(names[:_SHOWN_LABELS]) + more
