"""Configurations of the classification tasks, and the logits of their models."""

from pathlib import Path
from typing import Any

import torch

from hfbench.config import DataConfig, ModelConfig, RunConfig
from hfbench.tasks.base import Task


def config(task: str, checkpoint: Path, source: Path | str, **data: Any) -> RunConfig:
    return RunConfig(
        task=task,
        model=ModelConfig(checkpoint=str(checkpoint)),
        data=DataConfig(source=str(source), **data),
    )


def logits_of(task: Task, model: torch.nn.Module, samples: list[dict[str, Any]]) -> torch.Tensor:
    batch = task.collate(samples)
    with torch.no_grad():
        return task.predictions(model.eval()(**batch), batch)
