"""Scores of classification from label indices, as plain numbers and lists."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sklearn_metrics

Average = Literal["binary", "macro", "weighted"]
Labels = Sequence[int] | npt.NDArray[np.integer[Any]]


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
