"""What text, image and audio classification have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn

from hfbench.config import DataConfig
from hfbench.data.columns import Modality
from hfbench.data.cropping import Facts
from hfbench.data.media import Unreadable
from hfbench.data.splits import Splits, load_splits
from hfbench.errors import UserError
from hfbench.models import adapted, loading
from hfbench.models.heads import named_labels
from hfbench.models.label_heads import HeadChoice, choose_head, settle_head
from hfbench.results import BASELINE_MSE
from hfbench.tasks.base import Answer, BuiltModel, Loss, PredictingTask, Samples, Task, TaskData
from hfbench.tasks.problems import (
    PROBLEMS,
    Problem,
    WeightedLoss,
    balanced_weights,
    described_weights,
    problem_of,
)
from hfbench.tasks.reading import Read, bad_rows_of, facts_of, read_splits


class LabelTask(Task):
    """One output a label, or one number. ``logits``: (batch, outputs), float32."""

    problem: Problem = PROBLEMS["single_label_classification"]
    primary_metric = problem.primary_metric

    def set_problem(self, problem: Problem) -> None:
        self.problem = problem
        self.primary_metric = problem.primary_metric
        self.greater_is_better = problem.greater_is_better

    def load_data(self, data: DataConfig, modality: Modality, read: Read) -> TaskData:
        """Every split, by ``read``, without the rows that cannot be used.

        Raises UserError for more of them than ``data.max_bad_rows``, after listing them.
        """
        bad = bad_rows_of(self.config)
        splits = load_splits(data, modality, bad)
        self.set_problem(PROBLEMS[splits.problem_type])
        self.fit_inputs(splits)
        found = read_splits(splits, modality, read, bad)
        self.describe_inputs(facts_of(found), found.summary)
        return found

    def fit_inputs(self, splits: Splits) -> None:
        """Choose, before any sample is read, what about the inputs follows from the data."""

    def describe_inputs(self, facts: Facts, summary: dict[str, Any]) -> None:
        """Add to the summary and its notes what was done to the inputs while they were read."""

    def loss_units(self, batch: Mapping[str, Tensor]) -> int:
        """The number of samples: the loss is a mean over them."""
        return len(batch["labels"])

    def predictions(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits: (batch, outputs), float32."""
        logits: Tensor = outputs.logits
        return logits.detach().float()

    def compute_metrics(
        self, predictions: npt.NDArray[Any], references: npt.NDArray[np.integer[Any]]
    ) -> dict[str, Any]:
        """Of logits (samples, outputs) and labels (samples, ...)."""
        return self.problem.metrics(predictions, references)


class ClassificationTask(LabelTask, PredictingTask):
    """A checkpoint with a head that classifies, or gives a number."""

    answer_name = "label"
    model_class: ClassVar[Any]  # an AutoModelFor...Classification
    config_overrides: ClassVar[Mapping[str, Any]] = {}
    baseline_mse: float | None = None  # after prepare_data, of numbers

    def prepare_data(self) -> TaskData:
        loading.require_task(self.config.model, self.name)
        self.processor = self.load_processor()  # first: a wrong checkpoint fails at once

        def read(rows: Dataset, role: str, unreadable: Unreadable) -> Samples:
            return self.features(rows, role, keep=True, unreadable=unreadable)

        data = self.load_data(self.config.data, self.modality, read)
        weights = self.class_weights(data)
        if weights is not None:
            data.summary["notes"].append(described_weights(data.label_names, weights))
        units = self.target_units(data)
        if units is not None:
            numbers = np.asarray(cast(Any, data.test).labels(), dtype=np.float64)
            self.baseline_mse = float(((numbers - units[0]) ** 2).mean())
            data.summary["notes"].append(
                f"the mean of train has a mse of {self.baseline_mse:.6g} on test"
            )
        return data

    @abstractmethod
    def features(
        self, rows: Dataset, title: str, *, keep: bool, unreadable: Unreadable | None = None
    ) -> Samples:
        """As :class:`PredictingTask` says; rows that cannot be read go to ``unreadable``.

        Without that they are an error.
        """

    def set_problem(self, problem: Problem) -> None:
        super().set_problem(problem)
        self.answer_name = problem.answer_name

    def own_loss(self, data: TaskData) -> Loss | None:
        """The problem's where it is not cross-entropy, or with ``training.class_weights``."""
        weights = self.class_weights(data)
        if weights is not None:
            return WeightedLoss(weights)
        usual = self.problem.name == "single_label_classification"
        return None if usual else self.problem.loss

    def target_units(self, data: TaskData) -> tuple[float, float] | None:
        if self.problem.name != "regression":
            return None
        targets = data.summary["targets"]
        return targets["mean"], targets["std"]

    def comparable(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Numbers in standard units: in those of the data a small difference may be lost."""
        z: Tensor | None = getattr(outputs, "standardised", None)
        return self.predictions(outputs, batch) if z is None else z.detach().float()

    def further_test_metrics(
        self, model: nn.Module, test: Samples, accelerator: Accelerator
    ) -> dict[str, Any]:
        """Of numbers what train's mean would reach."""
        return {} if self.baseline_mse is None else {BASELINE_MSE: self.baseline_mse}

    def class_weights(self, data: TaskData) -> list[float] | None:
        """Of the labels of train; None where all weigh the same.

        Raises UserError where a sample has not one label.
        """
        chosen = self.config.training.class_weights
        if chosen == "none":
            return None
        if self.problem.name != "single_label_classification":
            raise UserError(
                f"training.class_weights={chosen} belongs to one label a sample, and these data "
                f"are {self.problem.name.replace('_', ' ')}"
            )
        return balanced_weights(cast(Any, data.train).labels(), len(data.label_names))

    def build_model(self, data: TaskData) -> BuiltModel:
        labels = dict(enumerate(data.label_names))
        config = loading.load_config(
            self.config.model,
            num_labels=len(labels),
            id2label=labels,
            label2id={name: number for number, name in labels.items()},
            problem_type=self.problem.name,
            **self.config_overrides,
        )
        if hasattr(config, "label_names"):  # timm's wrapper would save those of the checkpoint
            config.label_names = list(data.label_names)
        self.complete_config(config)
        if self.config.strategy.name == "scratch":
            return BuiltModel(*loading.build_model(config, self.model_class))
        choice = self._head(data)
        loaded = adapted.load_model(self.config.model, config, self.model_class)
        settled = settle_head(loaded, choice, self.model_class, checkpoint=self.config.model)
        return BuiltModel.of(settled)

    def _head(self, data: TaskData) -> HeadChoice:
        """The checkpoint's where it answers alike and its labels have the names of the data's."""
        own = loading.load_config(self.config.model)
        problem = problem_of(own)
        alike = problem is not None and problem.name == self.problem.name
        names = named_labels(own.id2label) if alike else None
        return choose_head(self.config.model, names, data.label_names)

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
        return self._answers(model, batch, count)

    def answer_whole(self, model: nn.Module, batch: Mapping[str, Tensor]) -> list[Answer]:
        """The best label, all labels that apply, or the number."""
        return self._answers(model, batch, None)

    def _answers(
        self, model: nn.Module, batch: Mapping[str, Tensor], count: int | None
    ) -> list[Answer]:
        logits = self.predictions(model(**batch), batch)
        return self.problem.answers(logits, cast(Any, model).config.id2label, count)

    def fit_to(self, config: Any) -> None:
        problem = problem_of(config)
        if problem is None:
            kind = config.problem_type or "single_label_classification"
            raise UserError(
                f"the model does {kind.replace('_', ' ')} with {config.num_labels} outputs; known "
                f"are {', '.join(PROBLEMS)}, one label of at least two and one number"
            )
        self.set_problem(problem)


def labels_of(samples: list[dict[str, Any]]) -> Tensor:
    """(batch, ...), int64 of whole numbers, else float32."""
    return torch.tensor([sample["labels"] for sample in samples])


def with_labels(batch: dict[str, Tensor], samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The batch and, where the samples have them, their labels."""
    return batch | {"labels": labels_of(samples)} if "labels" in samples[0] else batch
