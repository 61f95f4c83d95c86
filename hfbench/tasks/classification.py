"""What text, image and audio classification have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hfbench.data.columns import Modality
from hfbench.data.splits import Splits, load_splits
from hfbench.metrics import classification_metrics
from hfbench.models import loading
from hfbench.tasks.base import BuiltModel, Samples, Task, TaskData


class ClassificationTask(Task):
    """One label a sample. ``logits``: (batch, num_labels), float32."""

    primary_metric = "accuracy"
    modality: ClassVar[Modality]
    model_class: ClassVar[Any]  # an AutoModelFor...Classification
    config_overrides: ClassVar[Mapping[str, Any]] = {}

    processor: Any  # tokenizer, image processor or feature extractor; set by prepare_data

    @abstractmethod
    def load_processor(self) -> Any:
        """What turns raw input into features."""

    @abstractmethod
    def features(self, splits: Splits, split: str) -> Samples:
        """One split, ready for ``collate``."""

    def prepare_data(self) -> TaskData:
        self.processor = self.load_processor()  # first: a wrong checkpoint fails at once
        splits = load_splits(self.config.data, self.modality)
        return TaskData(
            train=self.features(splits, "train"),
            validation=self.features(splits, "validation"),
            test=self.features(splits, "test"),
            label_names=splits.label_names,
            summary=splits.summary,
        )

    def build_model(self, data: TaskData) -> BuiltModel:
        labels = dict(enumerate(data.label_names))
        config = loading.load_config(
            self.config.model,
            num_labels=len(labels),
            id2label=labels,
            label2id={name: number for number, name in labels.items()},
            problem_type="single_label_classification",
            **self.config_overrides,
        )
        self.complete_config(config)
        if self.config.strategy.name == "scratch":
            model, new = loading.build_model(config, self.model_class)
        else:
            model, new = loading.load_model(self.config.model, config, self.model_class)
        return BuiltModel(model, new)

    def build_on_meta(self, *, num_labels: int) -> nn.Module:
        config = loading.load_config(
            self.config.model, num_labels=num_labels, **self.config_overrides
        )
        return loading.build_on_meta(config, self.model_class)

    def complete_config(self, config: Any) -> None:
        """Set what the model must know of the processor."""

    def loss_units(self, batch: Mapping[str, Tensor]) -> int:
        """The number of samples: cross entropy is a mean over them."""
        return len(batch["labels"])

    def predictions(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits: (batch, num_labels), float32."""
        logits: Tensor = outputs.logits
        return logits.detach().float()

    def compute_metrics(
        self, predictions: npt.NDArray[Any], references: npt.NDArray[np.integer[Any]]
    ) -> dict[str, Any]:
        """Of logits (samples, num_labels) and label numbers (samples,)."""
        return classification_metrics(
            predictions.argmax(axis=-1), references, num_labels=predictions.shape[-1]
        )

    def save_processor(self, folder: Path) -> None:
        self.processor.save_pretrained(folder)


def labels_of(samples: list[dict[str, Any]]) -> Tensor:
    """(batch,), int64."""
    return torch.tensor([sample["labels"] for sample in samples], dtype=torch.int64)
