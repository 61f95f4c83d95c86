"""What text, image and audio classification have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hfbench.data.splits import load_splits
from hfbench.errors import UserError
from hfbench.models import loading
from hfbench.scores import classification_metrics
from hfbench.tasks.base import Answer, BuiltModel, Candidate, PredictingTask, Task, TaskData


class SingleLabelTask(Task):
    """One label a sample. ``logits``: (batch, num_labels), float32."""

    primary_metric = "accuracy"

    def loss_units(self, batch: Mapping[str, Tensor]) -> int:
        """The number of samples: the loss is a mean over them."""
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


class ClassificationTask(SingleLabelTask, PredictingTask):
    """A checkpoint with a head that classifies."""

    answer_name = "label"
    model_class: ClassVar[Any]  # an AutoModelFor...Classification
    config_overrides: ClassVar[Mapping[str, Any]] = {}

    def prepare_data(self) -> TaskData:
        self.processor = self.load_processor()  # first: a wrong checkpoint fails at once
        splits = load_splits(self.config.data, self.modality)
        return TaskData(
            train=self.features(splits.train, "train", keep=True),
            validation=self.features(splits.validation, "validation", keep=True),
            test=self.features(splits.test, "test", keep=True),
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
        if hasattr(config, "label_names"):  # timm's wrapper would save those of the checkpoint
            config.label_names = list(data.label_names)
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

    def save_processor(self, folder: Path) -> None:
        self.processor.save_pretrained(folder)

    def answer(self, model: nn.Module, batch: Mapping[str, Tensor], count: int) -> list[Answer]:
        """The most probable labels; equal logits in the order of their numbers."""
        logits = self.predictions(model(**batch), batch)
        # Of the logits: as probabilities two large ones may round to the same number.
        numbers = logits.sort(dim=-1, descending=True, stable=True).indices[:, :count]
        probabilities = logits.double().softmax(dim=-1).gather(-1, numbers)
        names = cast(Any, model).config.id2label
        return [
            tuple(Candidate(names[number], value) for number, value in zip(*row, strict=True))
            for row in zip(numbers.tolist(), probabilities.tolist(), strict=True)
        ]

    def check_trained(self, config: Any) -> None:
        kind = config.problem_type or "single_label_classification"
        if kind != "single_label_classification" or config.num_labels < 2:
            raise UserError(
                f"the model does {kind.replace('_', ' ')} with {config.num_labels} labels: "
                "probabilities are given for one of at least two labels only"
            )


def labels_of(samples: list[dict[str, Any]]) -> Tensor:
    """(batch,), int64."""
    return torch.tensor([sample["labels"] for sample in samples], dtype=torch.int64)


def with_labels(batch: dict[str, Tensor], samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The batch and, where the samples have them, their labels."""
    return batch | {"labels": labels_of(samples)} if "labels" in samples[0] else batch
