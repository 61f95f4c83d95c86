"""Scores of labels and of numbers, as plain numbers and lists.

Those of labels follow from the confusion matrix. Definitions as scikit-learn has them (Pedregosa et
al., JMLR 12, 2011), to which tests hold them; importing it takes longer than a small training.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Average = Literal["binary", "macro", "weighted"]
Labels = Sequence[int] | npt.NDArray[np.integer[Any]]


def accuracy(predictions: Labels, references: Labels) -> dict[str, Any]:
    """``accuracy``: the share of predictions that are right, in [0, 1]."""
    return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


def precision_recall_f1(
    predictions: Labels, references: Labels, average: Average = "macro"
) -> dict[str, Any]:
    """``precision``, ``recall`` and ``f1``, in [0, 1].

    Macro and weighted means go over the labels that occur among the predictions or references. A
    label that is never predicted has precision 0, and one without true samples recall 0.
    ``binary`` are the scores of label 1, of labels 0 and 1.

    Raises ValueError for ``binary`` with other labels.
    """
    counts = _confusion_counts(predictions, references, at_least=2)
    right, predicted, true = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    scores = {
        "precision": _share(right, predicted),
        "recall": _share(right, true),
        "f1": _share(2 * right, predicted + true),
    }
    if average == "binary":
        if len(counts) > 2:
            raise ValueError(
                f"average='binary' is for the labels 0 and 1; there is {len(counts) - 1}: choose "
                "macro or weighted"
            )
        return {name: float(values[1]) for name, values in scores.items()}
    weights = true if average == "weighted" else (predicted + true > 0).astype(np.int64)
    return {name: float(np.average(values, weights=weights)) for name, values in scores.items()}


def confusion_matrix(
    predictions: Labels, references: Labels, num_labels: int | None = None
) -> dict[str, Any]:
    """``confusion_matrix``: nested lists, row = true label, column = predicted label.

    ``num_labels`` rows and columns; None: up to the largest label that occurs.
    """
    counts = _confusion_counts(predictions, references, at_least=num_labels or 0)
    return {"confusion_matrix": counts.tolist()}


def _confusion_counts(
    predictions: Labels, references: Labels, *, at_least: int
) -> npt.NDArray[np.int64]:
    """Samples of each true (row) and predicted label (column); as many labels as occur, or more."""
    predicted, true = np.asarray(predictions), np.asarray(references)
    labels = max(at_least, 1 + int(max(predicted.max(), true.max())))
    counts = np.bincount(true * labels + predicted, minlength=labels * labels)
    return counts.reshape(labels, labels)


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """0 where the whole is 0."""
    return part / np.maximum(whole, 1)


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


def multi_label_metrics(
    predictions: npt.NDArray[np.bool_], references: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Of which labels apply, (samples, labels) each.

    ``precision``, ``recall`` and ``f1``, each ``_micro`` (over all pairs of sample and label) and
    ``_macro`` (mean over all labels; 0 for a ratio of nothing); ``subset_accuracy``, the share of
    samples of which every label is right; ``hamming_loss``, the share of wrong pairs; and
    ``multilabel_confusion_matrix``, nested lists of [[true negatives, false positives], [false
    negatives, true positives]] for each label.
    """
    right = (predictions & references).sum(axis=0)
    predicted, true = predictions.sum(axis=0), references.sum(axis=0)
    values: dict[str, Any] = {
        "subset_accuracy": float((predictions == references).all(axis=1).mean()),
        "hamming_loss": float((predictions != references).mean()),
    }
    for name, part, whole in (
        ("precision", right, predicted),
        ("recall", right, true),
        ("f1", 2 * right, predicted + true),
    ):
        values[f"{name}_micro"] = float(_share(part.sum(), whole.sum()))
        values[f"{name}_macro"] = float(_share(part, whole).mean())
    wrong, missed = predicted - right, true - right
    matrix = np.stack([len(references) - right - wrong - missed, wrong, missed, right], axis=1)
    return values | {"multilabel_confusion_matrix": matrix.reshape(-1, 2, 2).tolist()}


def regression_metrics(
    predictions: npt.NDArray[np.floating[Any]], references: npt.NDArray[np.floating[Any]]
) -> dict[str, Any]:
    """Of numbers, (samples,) each: ``mse``, ``mae``, ``r2``, ``pearson`` and ``spearman``.

    A correlation with numbers that are all equal, and ``r2`` of such references, is NaN.
    """
    found, true = predictions.astype(np.float64), references.astype(np.float64)
    errors = found - true
    spread = float(np.mean((true - true.mean()) ** 2))
    mse = float(np.mean(errors**2))
    return {
        "mse": mse,
        "mae": float(np.mean(np.abs(errors))),
        "r2": 1 - mse / spread if spread else math.nan,
        "pearson": _correlation(found, true),
        "spearman": _correlation(_ranks(found), _ranks(true)),
    }


def _correlation(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float:
    """Pearson's; NaN where one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return math.nan
    return float(np.corrcoef(one, two)[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From 1 on; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return shared
