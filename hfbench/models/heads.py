"""Which tasks an architecture of transformers has a class for."""

from collections.abc import Mapping
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
