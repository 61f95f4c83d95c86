"""What outputs mean: one label, several, or a number; loss, metrics and answers of each."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hfbench.config import ProblemType
from hfbench.scores import classification_metrics, multi_label_metrics, regression_metrics
from hfbench.tasks.base import Answer, Candidate

Array = npt.NDArray[Any]

FEW_LABELS = 10  # whose weights are listed
THRESHOLD = 0.5  # a label applies from this probability on


class Problem(ABC):
    """``logits`` are (batch, outputs), float32, and ``names`` those of the outputs."""

    name: ClassVar[ProblemType]
    primary_metric: ClassVar[str]
    greater_is_better: ClassVar[bool] = True
    answer_name: ClassVar[str] = "label"
    min_outputs: ClassVar[int]

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A mean over the samples."""

    @abstractmethod
    def metrics(self, logits: Array, labels: Array) -> dict[str, Any]:
        """Of a whole split; ``primary_metric`` is among the keys."""

    @abstractmethod
    def answers(self, logits: Tensor, names: Mapping[int, str], count: int | None) -> list[Answer]:
        """At most ``count`` candidates for each row; None: what the model says of it."""


class SingleLabel(Problem):
    """``labels``: (batch,), int64. Cross-entropy."""

    name = "single_label_classification"
    primary_metric = "accuracy"
    min_outputs = 2

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    def metrics(self, logits: Array, labels: Array) -> dict[str, Any]:
        return classification_metrics(logits.argmax(axis=-1), labels, num_labels=logits.shape[-1])

    def answers(self, logits: Tensor, names: Mapping[int, str], count: int | None) -> list[Answer]:
        """The most probable labels; equal logits in the order of their numbers."""
        probabilities = logits.double().softmax(dim=-1)
        return [answer[: count or 1] for answer in _ranked(logits, probabilities, names)]


class MultiLabel(Problem):
    """``labels``: (batch, outputs), float32, 0 or 1. Binary cross-entropy, a mean over both."""

    name = "multi_label_classification"
    primary_metric = "f1_micro"
    min_outputs = 1

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels)

    def metrics(self, logits: Array, labels: Array) -> dict[str, Any]:
        return multi_label_metrics(logits >= _LOGIT_THRESHOLD, labels == 1)

    def answers(self, logits: Tensor, names: Mapping[int, str], count: int | None) -> list[Answer]:
        """The most probable labels; without ``count`` those that apply, perhaps none."""
        ranked = _ranked(logits, logits.double().sigmoid(), names)
        if count is not None:
            return [answer[:count] for answer in ranked]
        applying = (logits >= _LOGIT_THRESHOLD).sum(dim=-1).tolist()
        return [answer[:held] for answer, held in zip(ranked, applying, strict=True)]


class Regression(Problem):
    """``labels``: (batch,), float32, and one output. Mean squared error in the data's units."""

    name = "regression"
    primary_metric = "mse"
    greater_is_better = False
    answer_name = "value"
    min_outputs = 1

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(logits.squeeze(-1), labels)

    def metrics(self, logits: Array, labels: Array) -> dict[str, Any]:
        return regression_metrics(logits[:, 0], labels)

    def answers(self, logits: Tensor, names: Mapping[int, str], count: int | None) -> list[Answer]:
        return [(Candidate(f"{value:.6g}"),) for value in logits[:, 0].tolist()]


PROBLEMS: Mapping[str, Problem] = {
    problem.name: problem for problem in (SingleLabel(), MultiLabel(), Regression())
}
_LOGIT_THRESHOLD = float(np.log(THRESHOLD / (1 - THRESHOLD)))


def problem_of(config: Any) -> Problem | None:
    """Of a saved model's configuration, as transformers reads it; None for an unknown one."""
    name = config.problem_type or (
        "regression" if config.num_labels == 1 else "single_label_classification"
    )
    problem = PROBLEMS.get(name)
    if problem is None or config.num_labels < problem.min_outputs:
        return None
    return None if problem.name == "regression" and config.num_labels > 1 else problem


def _ranked(logits: Tensor, probabilities: Tensor, names: Mapping[int, str]) -> list[Answer]:
    """Every label of every row, the most probable first."""
    # Of the logits: as probabilities two large ones may round to the same number.
    numbers = logits.sort(dim=-1, descending=True, stable=True).indices
    rows = zip(numbers.tolist(), probabilities.gather(-1, numbers).tolist(), strict=True)
    return [
        tuple(Candidate(names[number], value) for number, value in zip(*row, strict=True))
        for row in rows
    ]


def balanced_weights(labels: Sequence[int], num_labels: int) -> list[float]:
    """samples / (labels × samples of the label), as scikit-learn's ``class_weight="balanced"``.

    Labels that do not occur do not count, and weigh 1 where an evaluation meets them. Over
    ``labels`` the weights have the mean 1.
    """
    counts = np.bincount(np.asarray(labels), minlength=num_labels)
    present = counts > 0
    weights = np.ones(num_labels)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return [float(weight) for weight in weights]


def described_weights(names: Sequence[str], weights: Sequence[float]) -> str:
    """One line for people; of many labels only from where to where."""
    if len(names) > FEW_LABELS:
        return f"a sample's loss is multiplied by {min(weights):.4g} to {max(weights):.4g}"
    listed = (f"{weight:.4g} ({name})" for name, weight in zip(names, weights, strict=True))
    return f"a sample's loss is multiplied by its label's weight: {', '.join(listed)}"


class WeightedLoss:
    """Cross-entropy with a weight for each label, divided by the number of samples.

    Not by the sum of the weights, as torch does: a sample's share of a step then depends on the
    samples beside it, and in a batch of one label the weights vanish. So the loss stays a mean
    over samples, and windows and processes add up as they do without weights.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = weights

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = torch.tensor(self.weights, device=logits.device)
        return F.cross_entropy(logits, labels, weight=weights, reduction="sum") / len(labels)
