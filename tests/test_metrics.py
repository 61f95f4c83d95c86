"""Metrics by hand, through the evaluate classes and through the direct function."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from hfbench.metrics import F1, Accuracy, ConfusionMatrix, Precision, Recall
from hfbench.scores import classification_metrics

# Three labels. Confusion (rows true): 0 -> [2, 1, 0], 1 -> [0, 1, 0], 2 -> [1, 0, 0]
REFERENCES = [0, 0, 0, 1, 2]
PREDICTIONS = [0, 0, 1, 1, 0]
# precision: 2/3, 1/2, 0; recall: 2/3, 1, 0; F1: 2/3, 2/3, 0; true samples: 3, 1, 1
EXPECTED = {
    "accuracy": 3 / 5,
    "precision_macro": (2 / 3 + 1 / 2) / 3,
    "recall_macro": (2 / 3 + 1) / 3,
    "f1_macro": (2 / 3 + 2 / 3) / 3,
    "precision_weighted": (3 * 2 / 3 + 1 / 2) / 5,
    "recall_weighted": (3 * 2 / 3 + 1) / 5,
    "f1_weighted": (3 * 2 / 3 + 2 / 3) / 5,
}


def test_every_metric_by_hand() -> None:
    values = classification_metrics(PREDICTIONS, REFERENCES, 3)
    assert values.pop("confusion_matrix") == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert values == pytest.approx(EXPECTED)


def test_two_labels_add_the_scores_of_label_1() -> None:
    # label 1: one hit, one false alarm, two misses
    values = classification_metrics([1, 1, 0, 0, 0], [1, 0, 1, 1, 0], 2)
    assert values["precision"] == pytest.approx(1 / 2)
    assert values["recall"] == pytest.approx(1 / 3)
    assert values["f1"] == pytest.approx(0.4)
    assert values["confusion_matrix"] == [[1, 1], [2, 1]]


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_evaluate_classes_agree_with_the_function(average: str) -> None:
    values = classification_metrics(PREDICTIONS, REFERENCES, 3)
    inputs: dict[str, Any] = {"predictions": PREDICTIONS, "references": REFERENCES}
    assert Accuracy().compute(**inputs) == {"accuracy": values["accuracy"]}
    for metric, key in ((Precision(), "precision"), (Recall(), "recall"), (F1(), "f1")):
        assert metric.compute(**inputs, average=average) == {key: values[f"{key}_{average}"]}
    matrix = ConfusionMatrix().compute(**inputs, num_labels=3)
    assert matrix == {"confusion_matrix": values["confusion_matrix"]}


@pytest.mark.parametrize("num_labels", [2, 3, 12])
def test_metrics_are_those_of_scikit_learn(num_labels: int) -> None:
    rng = np.random.default_rng(num_labels)
    true = rng.integers(0, num_labels, 200)
    predicted = np.where(rng.random(200) < 0.6, true, rng.integers(0, max(2, num_labels - 2), 200))
    values = classification_metrics(predicted, true, num_labels)
    assert values["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(true, predicted))
    matrix = sklearn_metrics.confusion_matrix(true, predicted, labels=range(num_labels))
    assert values["confusion_matrix"] == matrix.tolist()
    averages = {"macro": "_macro", "weighted": "_weighted"}
    if num_labels == 2:
        averages["binary"] = ""
    for average, ending in averages.items():
        expected = sklearn_metrics.precision_recall_fscore_support(
            true, predicted, average=average, zero_division=0
        )
        for name, score in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert values[name + ending] == pytest.approx(score, abs=1e-12)


def test_evaluate_class_sums_over_batches() -> None:
    metric = Accuracy()
    metric.add_batch(predictions=np.array([0, 1, 1]), references=np.array([0, 1, 0]))
    metric.add_batch(predictions=[1], references=[1])
    assert metric.compute() == {"accuracy": 0.75}


def test_label_without_samples_or_predictions_does_not_change_the_means() -> None:
    values = classification_metrics(PREDICTIONS, REFERENCES, 4)
    assert values["f1_macro"] == pytest.approx(EXPECTED["f1_macro"])
    assert values["confusion_matrix"][3] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        ([], []),
        ([0, 1], [0]),
        ([0, 3], [0, 1]),
        ([0, 1], [0, -100]),
        ([0.0, float("nan")], [0, 1]),
        ([[0, 1]], [[0, 1]]),
    ],
)
def test_labels_that_are_not_indices_are_refused(predictions: Any, references: Any) -> None:
    with pytest.raises(ValueError, match=r"predictions|references"):
        classification_metrics(predictions, references, 3)


def test_metrics_write_nothing_into_the_home_folder(tmp_path: Path) -> None:
    code = (
        "from hfbench.metrics import Accuracy\n"
        "print(Accuracy().compute(predictions=[1, 0], references=[1, 1])['accuracy'])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    environment |= {"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0.5"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
