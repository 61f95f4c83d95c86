"""Several labels, numbers and class weights: scores, losses and weighted steps by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from scipy import stats  # type: ignore[import-untyped]
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from hfbench.config import TrainingConfig
from hfbench.scores import multi_label_metrics, regression_metrics
from hfbench.tasks.problems import PROBLEMS, WeightedLoss, balanced_weights
from hfbench.training.fit import fit
from hfbench.training.losses import OwnLoss
from hfbench.training.objective import Objective
from hfbench.training.optimizer import LearningRates


def test_scores_of_several_labels_by_hand() -> None:
    true = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=bool)
    said = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=bool)
    scores = multi_label_metrics(said, true)
    assert scores["subset_accuracy"] == 2 / 4
    assert scores["hamming_loss"] == pytest.approx(2 / 12)
    # 3 right of 4 said and of 4 true; by label F1 1, 1/2 and, of nothing, 0
    assert (scores["precision_micro"], scores["recall_micro"]) == (3 / 4, 3 / 4)
    assert scores["f1_micro"] == 3 / 4
    assert scores["f1_macro"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores["multilabel_confusion_matrix"] == [
        [[2, 0], [0, 2]],
        [[1, 1], [1, 1]],
        [[4, 0], [0, 0]],
    ]


def test_scores_of_numbers_by_hand() -> None:
    scores = regression_metrics(np.array([1.0, 2, 4]), np.array([1.0, 3, 2]))
    assert scores["mse"] == pytest.approx((0 + 1 + 4) / 3)
    assert scores["mae"] == pytest.approx((0 + 1 + 2) / 3)
    assert scores["r2"] == pytest.approx(1 - 5 / 2)
    # deviations (-4/3, -1/3, 5/3) and (-1, 1, 0): covariance 1, variances 14/3 and 2
    assert scores["pearson"] == pytest.approx(1 / math.sqrt(14 / 3 * 2))
    assert scores["spearman"] == pytest.approx(1 - 6 * (0 + 1 + 1) / (3 * 8))
    assert math.isnan(regression_metrics(np.array([1.0, 1]), np.array([1.0, 2]))["pearson"])
    constant = regression_metrics(np.array([1.0, 2]), np.array([3.0, 3]))
    assert math.isnan(constant["r2"])
    assert constant["mse"] == (4 + 1) / 2


def test_scores_are_those_of_scikit_learn_and_scipy() -> None:
    rng = np.random.default_rng(0)
    true, said = rng.random((30, 4)) < 0.3, rng.random((30, 4)) < 0.4
    scores = multi_label_metrics(said, true)
    for average in ("micro", "macro"):
        expected = metrics.precision_recall_fscore_support(true, said, average=average)
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert scores[f"{name}_{average}"] == pytest.approx(value)
    matrix = metrics.multilabel_confusion_matrix(true, said)
    assert scores["multilabel_confusion_matrix"] == matrix.tolist()
    values, guesses = rng.integers(0, 6, 40), rng.integers(0, 6, 40)  # with ties
    numbers = regression_metrics(guesses.astype(np.float32), values.astype(np.float32))
    assert numbers["r2"] == pytest.approx(metrics.r2_score(values, guesses))
    assert numbers["pearson"] == pytest.approx(stats.pearsonr(guesses, values).statistic)
    assert numbers["spearman"] == pytest.approx(stats.spearmanr(guesses, values).statistic)


def test_losses_by_hand() -> None:
    logits, labels = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])
    expected = (math.log(2) + math.log(4)) / 2  # -log of 1/2 and of 1 - 3/4
    assert PROBLEMS["multi_label_classification"].loss(logits, labels).item() == pytest.approx(
        expected
    )
    found = PROBLEMS["regression"].loss(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 2.5]))
    assert found.item() == (4 + 0.25) / 2


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = [0] * 6 + [2] * 3 + [1]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(labels, 3) == pytest.approx(expected.tolist())
    assert balanced_weights(labels, 3) == pytest.approx([10 / 18, 10 / 3, 10 / 9])
    assert balanced_weights([0, 0, 2], 3) == pytest.approx([3 / 4, 1.0, 3 / 2])
    assert np.mean([balanced_weights(labels, 3)[label] for label in labels]) == pytest.approx(1)


def test_a_weighted_loss_is_a_mean_over_samples_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    found = WeightedLoss([0.5, 4.0])(logits, torch.tensor([0, 1]))
    assert found.item() == pytest.approx((0.5 * math.log(2) + 4 * math.log(4 / 3)) / 2)


class Linear(nn.Module):
    """Three features to three labels; without ``labels`` no loss, as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.asked_for_loss = False

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        from transformers.modeling_outputs import SequenceClassifierOutput

        self.asked_for_loss |= labels is not None
        return SequenceClassifierOutput(logits=self.layer(x))


@pytest.mark.parametrize("accumulation", [1, 5])
def test_weighted_steps_are_the_same_in_one_batch_and_in_many(
    tmp_path: Path, accumulation: int
) -> None:
    """Two steps of 9 samples by hand; in batches of 2 the last one has a single sample."""
    torch.manual_seed(0)
    x, y = torch.randn(9, 3), torch.tensor([0] * 6 + [1, 1, 2])
    weights = torch.tensor(balanced_weights(y.tolist(), 3))
    model, expected = Linear(), nn.Linear(3, 3)
    expected.load_state_dict(model.layer.state_dict())
    for _ in range(2):
        each = F.cross_entropy(expected(x), y, reduction="none") * weights[y].float()
        expected.zero_grad()
        each.mean().backward()
        with torch.no_grad():
            for parameter in expected.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
    OwnLoss(WeightedLoss(weights.tolist())).attach(model)
    result = fit(
        model,
        [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)],  # type: ignore[arg-type]
        Objective(
            collate=lambda samples: {
                "x": torch.stack([s["x"] for s in samples]),
                "labels": torch.stack([s["labels"] for s in samples]),
            },
            loss_units=lambda batch: len(batch["labels"]),
        ),
        config=TrainingConfig(
            epochs=2,
            batch_size=9 if accumulation == 1 else 2,
            gradient_accumulation_steps=accumulation,
            optimizer="sgd",
            weight_decay=0.0,
            lr_scheduler_type="constant",
            warmup_ratio=0.0,
            max_grad_norm=None,
        ),
        rates=LearningRates(rest=0.1, head=0.1),
        accelerator=Accelerator(cpu=True),
        folder=tmp_path,
        owner="run",
        seed=0,
    )
    assert not model.asked_for_loss
    assert result.step_losses[1] == pytest.approx(each.mean().item(), abs=1e-6)
    for found, wanted in zip(model.layer.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
