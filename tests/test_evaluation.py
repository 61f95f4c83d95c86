"""Evaluation: every sample once, in its own order, whatever the batches."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hfbench.training.evaluation import predict_split


class Shifted(nn.Module):
    """Logits are a statistic of this process's training batches, as of a batch norm."""

    def __init__(self, statistic: float) -> None:
        super().__init__()
        self.register_buffer("statistic", torch.tensor([statistic]))

    def forward(self, tokens: Tensor, labels: Tensor) -> SimpleNamespace:
        logits = self.statistic.expand(len(tokens), 1)
        return SimpleNamespace(logits=logits, loss=logits.mean())


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


def test_every_process_evaluates_with_the_statistics_of_the_main_one() -> None:
    """They are those that are saved. This file is also the program of the two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed == [["2", "10.0", "10.0", "10.0", "10.0", "10.0"]] * 2


def _evaluate_in_one_of_two_processes() -> None:
    accelerator = Accelerator(cpu=True)
    found = predict_split(
        Shifted(10.0 if accelerator.is_main_process else 20.0),
        [{"tokens": [1], "labels": 0}] * 5,
        collate=collate,
        loss_units=lambda batch: len(batch["labels"]),
        keep=lambda outputs, batch: outputs.logits,
        batch_size=1,
        accelerator=accelerator,
    )
    print(accelerator.num_processes, *found.predictions[:, 0].tolist())


if __name__ == "__main__":
    _evaluate_in_one_of_two_processes()
