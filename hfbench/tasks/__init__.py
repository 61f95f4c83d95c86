"""What is learnt: data to features, batches, model class and metrics, one file a task."""

import importlib

from hfbench.config import RunConfig
from hfbench.errors import UserError
from hfbench.tasks.base import Task

# task -> its class, as module:class, imported only when it is used
TASKS = {
    "text_classification": "hfbench.tasks.text_classification:TextClassification",
    "image_classification": "hfbench.tasks.image_classification:ImageClassification",
    "audio_classification": "hfbench.tasks.audio_classification:AudioClassification",
    "speech_recognition": "hfbench.tasks.speech_recognition:SpeechRecognition",
    "causal_lm": "hfbench.tasks.causal_lm:CausalLM",
    "mnist_mlp": "hfbench.tasks.mnist_mlp:MnistMlp",
}


def make_task(config: RunConfig) -> Task:
    """The task that ``config.task`` names. Raises UserError for an unknown one."""
    if config.task not in TASKS:
        raise UserError(f"task={config.task!r} is unknown; choose: {', '.join(TASKS)}")
    module, _, name = TASKS[config.task].partition(":")
    task: Task = getattr(importlib.import_module(module), name)(config)
    return task
