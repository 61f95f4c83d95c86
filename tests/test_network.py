"""The scratch networks: sizes, losses and shifts by hand; optimisers and penalties."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from hfbench.config import NetworkConfig, TrainingConfig, load_config
from hfbench.errors import UserError
from hfbench.models.network import ScratchNetwork, shifted
from hfbench.models.structure import find_structure
from hfbench.parameters import count_parameters
from hfbench.training.fit import fit
from hfbench.training.objective import FitResult, Objective
from hfbench.training.optimizer import LearningRates, Penalty, build_optimizer

DIGITS = tuple("0123456789")


def network(*, size: int = 28, labels: tuple[str, ...] = DIGITS, **options: Any) -> ScratchNetwork:
    torch.manual_seed(0)
    return ScratchNetwork(NetworkConfig(**options), height=size, width=size, label_names=labels)


def test_the_tutorials_network_has_four_layers_and_242_762_parameters() -> None:
    model = network()
    structure = find_structure(model)
    report = count_parameters(model, structure)
    assert structure.depth == 4
    assert [(row.name, row.total) for row in report.by_depth] == [
        ("block 0", 784 * 256 + 256),
        ("block 1", 256 * 128 + 128),
        ("block 2", 128 * 64 + 64),
        ("block 3", 64 * 10 + 10),
    ]
    assert report.total == report.trainable == 242_762
    assert {row.name: row.total for row in report.by_layer_type}["linear"] == 242_762


def test_a_cnn_counts_its_convolutions_as_blocks_too() -> None:
    model = network(kind="cnn", channels=(4, 8), widths=(16,))
    report = count_parameters(model, find_structure(model))
    assert [row.total for row in report.by_depth] == [
        1 * 4 * 9 + 4,
        4 * 8 * 9 + 8,
        8 * 7 * 7 * 16 + 16,  # 28 pixels, halved twice
        16 * 10 + 10,
    ]
    kinds = {row.name: row.total for row in report.by_layer_type}
    assert kinds["convolution"] == 40 + 296
    assert model(torch.zeros(2, 1, 28, 28)).logits.shape == (2, 10)


def test_without_hidden_layers_it_is_a_linear_classifier() -> None:
    model = network(widths=())
    images = torch.rand(3, 1, 28, 28)
    linear = model.layers[0][0]
    expected = images.flatten(1) @ linear.weight.T + linear.bias
    torch.testing.assert_close(model(images).logits, expected)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda x: max(x, 0.0)),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("tanh", math.tanh),
        ("gelu", lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
    ],
)
def test_activations_are_what_they_are_called(activation: Any, function: Any) -> None:
    model = network(size=1, widths=(1,), labels=("a", "b"), activation=activation)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    logits = model(torch.full((1, 1, 1, 1), -1.7)).logits
    assert logits[0].tolist() == pytest.approx([1 + function(1 - 1.7)] * 2, abs=1e-6)


def test_losses_are_their_formulas() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), torch.tensor([0, 1])
    rows = [[math.log(sum(map(math.exp, row))) - value for value in row] for row in logits.tolist()]
    chosen = (rows[0][0] + rows[1][1]) / 2
    everything = sum(map(sum, rows)) / 6

    def loss(**options: Any) -> float:
        return float(network(labels=("a", "b", "c"), **options).loss(logits, labels))

    assert loss() == pytest.approx(chosen, abs=1e-6)
    assert loss(label_smoothing=0.3) == pytest.approx(0.7 * chosen + 0.3 * everything, abs=1e-6)
    squares = (2 - 1) ** 2 + 0 + 1**2 + 0 + (0 - 1) ** 2 + 3**2
    assert loss(loss="mse") == pytest.approx(squares / 6, abs=1e-6)


def test_shifts_move_every_image_on_its_own_and_repeat_its_edge() -> None:
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    torch.manual_seed(0)
    moved = shifted(image.expand(200, 1, 3, 4), 1)
    expected = set()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            rows = [min(max(row + down, 0), 2) for row in range(3)]
            columns = [min(max(column + right, 0), 3) for column in range(4)]
            expected.add(tuple(float(4 * row + column) for row in rows for column in columns))
    assert {tuple(one.flatten().tolist()) for one in moved} == expected


def test_shifts_and_dropout_are_for_training_only() -> None:
    model = network(shift=2, dropout=0.5)
    images = torch.rand(4, 1, 28, 28)
    assert not torch.equal(model(images).logits, model(images).logits)
    model.eval()
    assert torch.equal(model(images).logits, model(images).logits)


def test_a_saved_network_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = network(kind="cnn", channels=(3,), widths=(5,), activation="tanh", dropout=0.2).eval()
    model.save_pretrained(tmp_path)
    loaded = ScratchNetwork.from_pretrained(tmp_path)
    images = torch.rand(4, 1, 28, 28)
    assert torch.equal(model(images).logits, loaded(images).logits)
    assert (loaded.network, loaded.label_names) == (model.network, DIGITS)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


# ---- configuration


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, "mlp-256-128-64-relu"),
        ({"widths": ()}, "mlp-relu"),
        (
            {"kind": "cnn", "channels": (8,), "widths": (32,), "activation": "gelu"},
            "cnn-8-mlp-32-gelu",
        ),
    ],
)
def test_the_label_names_the_layers(options: dict[str, Any], label: str) -> None:
    assert NetworkConfig(**options).label == label


def test_a_task_with_a_network_needs_neither_section_nor_strategy() -> None:
    config = load_config(None, ["data.source=x"], task="mnist_mlp")
    assert (config.network, config.strategy.name) == (NetworkConfig(), "scratch")
    assert config.start == "mlp-256-128-64-relu"
    changed = load_config(
        None, ["network.widths=[8, 4]", "strategy.freeze=[a.*]"], task="mnist_mlp"
    )
    assert changed.network is not None
    assert changed.network.widths == (8, 4)
    assert changed.strategy.name == "scratch"


@pytest.mark.parametrize(
    ("task", "override", "message"),
    [
        ("mnist_mlp", "strategy=full", "strategy='full': mnist_mlp starts from random weights"),
        ("mnist_mlp", "model.checkpoint=a/b", "'a/b': mnist_mlp starts from random weights"),
        ("mnist_mlp", "network.widths=[8, 0]", r"network.widths=\[8, 0\] must be numbers >= 1"),
        ("mnist_mlp", "network.activation=selu", "'selu' is not one of relu, sigmoid"),
        ("mnist_mlp", "network.dropout=1", "network.dropout=1.0 must be in"),
        ("mnist_mlp", "network.width=[8]", "did you mean 'widths'"),
        ("mnist_mlp", "training.momentum=0.9", "momentum=0.9 belongs to sgd, not to adamw"),
        ("mnist_mlp", "training.l1=-1", "training.l1=-1.0 must be >= 0"),
        ("image_classification", "network.kind=cnn", "section network belongs to mnist_mlp, not"),
    ],
)
def test_a_wrong_setting_is_named(task: str, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, [override], task=task)


def test_label_smoothing_of_mse_is_an_error() -> None:
    with pytest.raises(UserError, match="belongs to cross_entropy"):
        NetworkConfig(loss="mse", label_smoothing=0.1)


def test_too_many_halvings_are_an_error() -> None:
    with pytest.raises(UserError, match="halves images of 8 × 8 pixels 4 times"):
        network(size=8, kind="cnn", channels=(2, 2, 2, 2))


# ---- optimisers and penalties


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # gradients 1 then 1 on a weight of 2; learning rate 0.1
        ({"optimizer": "sgd"}, 2 - 0.1 - 0.1),
        ({"optimizer": "sgd", "momentum": 0.5}, 2 - 0.1 - 0.1 * 1.5),
        ({"optimizer": "adam"}, 2 - 0.1 - 0.1),  # m / sqrt(v) is 1 for a constant gradient
        ({"optimizer": "adamw", "weight_decay": 0.5}, ((2 * 0.95) - 0.1) * 0.95 - 0.1),
    ],
)
def test_two_steps_of_each_optimiser_by_hand(options: dict[str, Any], expected: float) -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    config = TrainingConfig(**{"weight_decay": 0.0, **options})
    optimizer = build_optimizer(
        model, rates=LearningRates(0.1, 0.1), config=config, is_head=lambda name: False
    )
    for _ in range(2):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
    assert model.weight.item() == pytest.approx(expected, abs=1e-6)


def test_penalties_add_their_gradients_to_matrices_only() -> None:
    weight, bias = nn.Parameter(torch.tensor([[2.0, -3.0, 0.0]])), nn.Parameter(torch.ones(3))
    unused = nn.Parameter(torch.ones(2, 2))
    weight.grad, bias.grad = torch.full((1, 3), 10.0), torch.full((3,), 10.0)
    Penalty([weight, bias, unused], l1=0.5, l2=0.1).add_gradients()
    expected = torch.tensor([[10 + 0.5 + 0.2, 10 - 0.5 - 0.3, 10.0]])
    torch.testing.assert_close(weight.grad, expected)
    assert bias.grad.tolist() == [10.0] * 3
    assert unused.grad is None


def test_a_training_with_penalties_is_that_of_the_penalised_loss(tmp_path: Path) -> None:
    """Against a plain loop that adds the penalty to the loss; the reported loss is without it."""
    l1, l2 = 1e-3, 1e-2
    data = [
        {
            "pixel_values": torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i)),
            "y": i % 3,
        }
        for i in range(24)
    ]

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": torch.stack([item["pixel_values"] for item in items]),
            "labels": torch.tensor([item["y"] for item in items]),
        }

    options: dict[str, Any] = {"size": 8, "widths": (6,), "labels": ("a", "b", "c")}
    ours: FitResult = fit(
        network(**options),
        data,
        Objective(collate=collate, loss_units=lambda batch: len(batch["labels"])),
        config=TrainingConfig(
            epochs=2,
            batch_size=24,
            optimizer="sgd",
            weight_decay=0.0,
            l1=l1,
            l2=l2,
            lr_scheduler_type="constant",
            warmup_ratio=0.0,
            max_grad_norm=0.05,
        ),
        rates=LearningRates(0.5, 0.5),
        accelerator=Accelerator(cpu=True),
        folder=tmp_path,
        owner="run",
        seed=0,
    )
    model, expected = network(**options), []
    for _ in range(2):
        loss = model(**collate(data)).loss
        matrices = [p for p in model.parameters() if p.ndim == 2]
        penalty = sum(l1 * w.abs().sum() + l2 / 2 * w.square().sum() for w in matrices)
        model.zero_grad()
        (loss + penalty).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.5 * parameter.grad
        expected.append(loss.item())
    assert ours.step_losses == pytest.approx(expected, abs=1e-6)
