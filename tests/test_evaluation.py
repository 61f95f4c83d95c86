"""Evaluation: every sample once, in its own order, whatever the batches."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hfbench.training.evaluation import predict_split


class Doubler(nn.Module):
    """Logits are twice the tokens; the loss is the mean of the batch's labels."""

    def forward(self, tokens: Tensor, labels: Tensor) -> SimpleNamespace:
        assert not self.training
        return SimpleNamespace(logits=2.0 * tokens, loss=labels.float().mean())


def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    widest = max(len(sample["tokens"]) for sample in samples)
    rows = [sample["tokens"] + [0] * (widest - len(sample["tokens"])) for sample in samples]
    labels = [sample["labels"] for sample in samples]
    return {"tokens": torch.tensor(rows), "labels": torch.tensor(labels)}


@pytest.mark.parametrize("grouped", [True, False])
def test_results_come_back_in_the_order_of_the_split(grouped: bool) -> None:
    data = [{"tokens": list(range(1, 2 + i % 4)), "labels": i} for i in range(11)]
    seen: list[int] = []

    def counting(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        seen.extend(sample["labels"] for sample in samples)
        return collate(samples)

    found = predict_split(
        Doubler().train(),
        data,
        collate=counting,
        loss_units=lambda batch: len(batch["labels"]),
        keep=lambda outputs, batch: outputs.logits,
        batch_size=3,
        accelerator=Accelerator(cpu=True),
        lengths=[len(sample["tokens"]) for sample in data] if grouped else None,
    )
    assert sorted(seen) == list(range(11))
    np.testing.assert_array_equal(found.references, np.arange(11))
    for index, row in enumerate(found.predictions):
        width = 1 + index % 4
        np.testing.assert_array_equal(row[:width], 2 * np.arange(1, width + 1))
        assert set(row[width:]) <= {0, -100}  # padding of its own batch, and up to the widest
    assert found.loss == pytest.approx(np.mean(np.arange(11)))  # not a mean of batch means
