"""What a model gives for a whole split, and the loss and metrics of it."""

from typing import Any

from accelerate import Accelerator
from torch import nn

from hfbench.config import RunConfig
from hfbench.preparation import Prepared
from hfbench.results import UNTRAINED
from hfbench.status import working
from hfbench.tasks.base import Task
from hfbench.training.batching import SampleSource
from hfbench.training.evaluation import Predictions, predict_split
from hfbench.training.prefix.samples import without_stored


def predictions(
    config: RunConfig,
    task: Task,
    model: nn.Module,
    split: SampleSource,
    accelerator: Accelerator,
    title: str,
) -> Predictions:
    """What the model gives for a whole split, every sample once."""
    return predict_split(
        model,
        split,
        collate=task.collate,
        loss_units=task.loss_units,
        keep=task.predictions,
        batch_size=config.training.eval_batch_size,
        accelerator=accelerator,
        lengths=task.sample_lengths(without_stored(split)),
        equal_lengths=task.equal_lengths,
        num_workers=config.training.num_workers,
        title=title,
    )


def scores(task: Task, found: Predictions) -> dict[str, Any]:
    """Loss and metrics."""
    metrics: dict[str, Any] = task.compute_metrics(found.predictions, found.references)
    return {"loss": found.loss} | metrics


def score_untrained(
    config: RunConfig, prepared: Prepared, accelerator: Accelerator
) -> dict[str, Any]:
    """The primary metric on the test split before training, for tasks in which it means something.

    Nothing is chosen by it.
    """
    task = prepared.task
    if not task.tests_untrained:
        return {}
    model = prepared.model.to(accelerator.device)
    with working("testing the model as it came"):
        found = predictions(config, task, model, prepared.data.test, accelerator, "untrained")
    return {f"{task.primary_metric}{UNTRAINED}": scores(task, found)[task.primary_metric]}
