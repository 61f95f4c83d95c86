"""The loop against transformers.Trainer and against itself, resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from hfbench.config import TrainingConfig
from hfbench.training.batching import epoch_batches
from hfbench.training.divergence import DivergedError
from hfbench.training.fit import fit
from hfbench.training.objective import FitResult, Objective
from hfbench.training.optimizer import LearningRates, build_optimizer


def tiny_bert(dropout: float = 0.0) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            num_labels=3,
        )
    )


def samples(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"input_ids": torch.randint(0, 50, (8,), generator=generator), "labels": index % 3}
        for index in range(count)
    ]


def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.stack([item["input_ids"] for item in items]),
        "labels": torch.tensor([item["labels"] for item in items]),
    }


def train(model: nn.Module, data: Any, folder: Path, **options: Any) -> FitResult:
    options.setdefault("batch_size", 4)
    evaluate = options.pop("evaluate", None)
    lengths = options.pop("lengths", None)
    equal_lengths = options.pop("equal_lengths", False)
    objective = Objective(
        collate=collate, loss_units=lambda batch: len(batch["labels"]), evaluate=evaluate
    )
    return fit(
        model,
        data,
        objective,
        config=TrainingConfig(**options),
        rates=LearningRates(rest=1e-3, head=1e-3),
        accelerator=Accelerator(cpu=True),
        folder=folder,
        owner="run",
        seed=7,
        lengths=lengths,
        equal_lengths=equal_lengths,
    )


class _LossRecorder(Trainer):
    """Trainer in dataset order; keeps the mean loss of every optimiser step."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def _mean_over_window(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any) -> torch.Tensor:
    """Trainer divides by the whole window only when told so (without it, it logs their sum)."""
    loss = nn.functional.cross_entropy(outputs.logits, labels, reduction="sum")
    return loss / num_items_in_batch


@pytest.mark.parametrize("accumulation", [1, 4])
def test_losses_equal_those_of_trainer(tmp_path: Path, accumulation: int) -> None:
    data = samples(40)  # 10 batches: windows of 4, 4 and 2 when accumulated
    (order,) = epoch_batches(40, 40, seed=7, epoch=0)
    ours = train(
        tiny_bert(), data, tmp_path / "ours", epochs=1, gradient_accumulation_steps=accumulation
    )

    trainer = _LossRecorder(
        model=tiny_bert(),
        args=TrainingArguments(
            output_dir=str(tmp_path / "trainer"),
            num_train_epochs=1,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=accumulation,
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=round(0.1 * len(ours.step_losses)),
            max_grad_norm=1.0,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=[data[index] for index in order],
        data_collator=collate,
        compute_loss_func=_mean_over_window,
    )
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(theirs) == len(ours.step_losses) == {1: 10, 4: 3}[accumulation]
    np.testing.assert_allclose(ours.step_losses, theirs, atol=1e-5, rtol=0)


def test_a_short_last_batch_weighs_what_it_holds(tmp_path: Path) -> None:
    """Batches of 4, 4, 2 accumulated are one step on the mean over the 10 samples."""
    data = samples(10)
    accumulated, whole = tiny_bert(), tiny_bert()
    split = train(accumulated, data, tmp_path / "a", epochs=1, gradient_accumulation_steps=3)
    at_once = train(whole, data, tmp_path / "b", epochs=1, batch_size=10)
    np.testing.assert_allclose(split.step_losses, at_once.step_losses, atol=1e-6)
    for a, b in zip(accumulated.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("grouped", [True, False])
def test_batches_in_parts_of_one_length_are_the_same_steps(
    tmp_path: Path, accumulation: int, grouped: bool
) -> None:
    lengths = [index % 5 for index in range(30)]
    options: dict[str, Any] = {
        "epochs": 2,
        "gradient_accumulation_steps": accumulation,
        "lengths": lengths,
        "group_by_length": grouped,
    }
    whole, parts = tiny_bert(), tiny_bert()
    expected = train(whole, samples(30), tmp_path / "whole", **options)
    seen = _Recording(samples(30))
    found = train(parts, seen, tmp_path / "parts", equal_lengths=True, **options)
    assert len(found.step_losses) == 2 * {1: 8, 3: 3}[accumulation]
    assert found.samples_seen == expected.samples_seen == 60
    assert sorted(seen.read) == sorted([*range(30), *range(30)])
    np.testing.assert_allclose(found.step_losses, expected.step_losses, atol=1e-5)
    for a, b in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


class _Recording(list[dict[str, Any]]):
    """Data that remember which samples were read, in order."""

    def __init__(self, values: list[dict[str, Any]]) -> None:
        super().__init__(values)
        self.read: list[int] = []

    def __getitem__(self, index: Any) -> Any:
        self.read.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize("grouped", [True, False])
def test_samples_of_like_length_share_a_batch_only_where_that_is_wanted(
    tmp_path: Path, grouped: bool
) -> None:
    lengths = [index % 7 for index in range(30)]
    data = _Recording(samples(30))
    train(tiny_bert(), data, tmp_path, epochs=2, lengths=lengths, group_by_length=grouped)
    expected = [
        index
        for epoch in range(2)
        for batch in epoch_batches(30, 4, seed=7, epoch=epoch, lengths=lengths if grouped else None)
        for index in batch
    ]
    assert data.read == expected


class _Interrupted(RuntimeError):
    pass


class _StopsAfter(list[dict[str, Any]]):
    """Data that fail after a number of reads, as a machine that goes down would."""

    reads = 0
    limit = 10**9

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        if self.reads > self.limit:
            raise _Interrupted
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("lengths", "equal_lengths"),
    [(None, False), ([i % 7 for i in range(30)], False), ([i % 7 for i in range(30)], True)],
)
def test_resumed_training_is_bit_equal(
    tmp_path: Path, lengths: list[int] | None, equal_lengths: bool
) -> None:
    """Interrupted in the middle of the second epoch, with dropout on."""
    options: dict[str, Any] = {"epochs": 3, "save_steps": 2, "gradient_accumulation_steps": 2}
    options |= {"lengths": lengths, "equal_lengths": equal_lengths}
    through = tiny_bert(dropout=0.1)
    torch.manual_seed(3)
    expected = train(through, samples(30), tmp_path / "through", **options)

    broken = tiny_bert(dropout=0.1)
    torch.manual_seed(3)
    data = _StopsAfter(samples(30))
    data.limit = 30 + 21  # epoch 2 has steps of 8 samples: 2 are done, the state is of step 6
    with pytest.raises(_Interrupted):
        train(broken, data, tmp_path / "broken", **options)

    torch.manual_seed(99)
    resumed = tiny_bert(dropout=0.1)
    actual = train(resumed, samples(30), tmp_path / "broken", **options)
    assert actual.step_losses == expected.step_losses
    assert actual.samples_seen == expected.samples_seen == 90
    for a, b in zip(resumed.parameters(), through.parameters(), strict=True):
        assert torch.equal(a, b)


def test_resuming_after_the_last_step_trains_no_further(tmp_path: Path) -> None:
    """Interrupted in the validation that follows max_steps, which stops within an epoch."""

    def interrupted(model: nn.Module) -> dict[str, float]:
        raise _Interrupted

    options = {"epochs": 3, "max_steps": 6, "save_steps": 3}
    with pytest.raises(_Interrupted):
        train(tiny_bert(), samples(32), tmp_path, evaluate=interrupted, **options)
    result = train(tiny_bert(), samples(32), tmp_path, evaluate=lambda m: {"loss": 1.0}, **options)
    assert len(result.step_losses) == 6
    assert result.samples_seen == 24


def test_best_epoch_is_kept_and_early_stopping_stops(tmp_path: Path) -> None:
    values = iter([0.5, 0.4, 0.6, 0.7, 0.1])
    kept: list[torch.Tensor] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        kept.append(next(model.parameters()).detach().clone())
        return {"loss": next(values)}

    model = tiny_bert()
    result = train(
        model,
        samples(8),
        tmp_path,
        epochs=5,
        early_stopping_patience=2,
        evaluate=evaluate,
    )
    assert result.best_metric == 0.4
    assert len(result.history) == 4  # two evaluations without gain after the second
    assert torch.equal(next(model.parameters()), kept[1])


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    model = tiny_bert()
    with torch.no_grad():
        model.classifier.bias[0] = float("inf")
    with pytest.raises(DivergedError, match="nan at step 1"):
        train(model, samples(8), tmp_path, epochs=1)


def test_weights_that_the_last_step_spoils_are_never_kept(tmp_path: Path) -> None:
    """Their loss would be read in the step that never comes."""
    model = tiny_bert()

    def spoil(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.fill_(float("nan"))

    model.classifier.bias.register_post_accumulate_grad_hook(spoil)
    with pytest.raises(DivergedError, match=r"after step 1 .* not finite"):
        train(model, samples(4), tmp_path, epochs=1, max_grad_norm=None, evaluate=lambda _: {})
    assert not list(tmp_path.glob("*/step-*"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_first_validation_that_is_not_finite_ends_the_run(tmp_path: Path, value: float) -> None:
    with pytest.raises(DivergedError, match="the first validation gives loss="):
        train(tiny_bert(), samples(8), tmp_path, epochs=2, evaluate=lambda _: {"loss": value})
    assert not list(tmp_path.glob("best/*"))


def test_a_later_validation_that_is_not_finite_is_one_without_gain(tmp_path: Path) -> None:
    values = iter([2.0, float("nan"), 1.0, float("nan")])
    result = train(
        tiny_bert(), samples(8), tmp_path, epochs=4, evaluate=lambda _: {"loss": next(values)}
    )
    assert result.best_metric == 1.0


def test_decay_and_learning_rates_go_where_they_belong() -> None:
    model = tiny_bert()
    optimizer = build_optimizer(
        model,
        rates=LearningRates(rest=1e-5, head=1e-3),
        config=TrainingConfig(weight_decay=0.1),
        is_head=lambda name: name.startswith("classifier"),
    )
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    expected = {
        "classifier.weight": (1e-3, 0.1),
        "classifier.bias": (1e-3, 0.0),
        "bert.encoder.layer.0.output.dense.weight": (1e-5, 0.1),
        "bert.encoder.layer.0.output.LayerNorm.weight": (1e-5, 0.0),
    }
    named = dict(model.named_parameters())
    assert len(found) == len(named)
    assert {name: found[id(named[name])] for name in expected} == expected
