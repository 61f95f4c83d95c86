"""Losses, penalties, optimisers and metrics equal their formulas to 1e-6.

Expectations are plain Python: lists, loops and the math module.
"""

import math
import random
from collections.abc import Callable, Sequence

import pytest
import tiny_models
import torch
from torch import Tensor, nn
from torch.nn import functional

from hfbench.config import TrainingConfig
from hfbench.metrics import F1, Precision, Recall
from hfbench.scores import classification_metrics, precision_recall_f1
from hfbench.training.optimizer import LearningRates, build_optimizer

TOLERANCE = 1e-6
DTYPES = [torch.float32, torch.float64]
Row = list[float]


def numbers(count: int, *, seed: int, scale: float = 1.0) -> Row:
    generator = random.Random(seed)
    return [generator.gauss(0, scale) for _ in range(count)]


def table(rows: int, columns: int, *, seed: int, scale: float = 1.0) -> list[Row]:
    return [numbers(columns, seed=1000 * seed + row, scale=scale) for row in range(rows)]


def labels(count: int, num_labels: int, *, seed: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(num_labels) for _ in range(count)]


def close(expected: float | Sequence[float]) -> object:
    return pytest.approx(expected, abs=TOLERANCE, rel=0)


# Losses


def log_probabilities(logits: Row) -> Row:
    total = sum(math.exp(value) for value in logits)
    return [value - math.log(total) for value in logits]


def cross_entropy(logits: list[Row], targets: list[int], smoothing: float = 0.0) -> float:
    """Mean over the samples of (1 - ε) (-log p of the label) + ε (mean of -log p of all)."""
    losses = []
    for row, target in zip(logits, targets, strict=True):
        logs = log_probabilities(row)
        losses.append(-(1 - smoothing) * logs[target] - smoothing * sum(logs) / len(logs))
    return sum(losses) / len(losses)


def mean_squared_error(predictions: Row, targets: Row) -> float:
    squares = [(p - t) ** 2 for p, t in zip(predictions, targets, strict=True)]
    return sum(squares) / len(squares)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_squared_error(dtype: torch.dtype) -> None:
    predictions, targets = numbers(50, seed=0), numbers(50, seed=1)
    loss = functional.mse_loss(
        torch.tensor(predictions, dtype=dtype), torch.tensor(targets, dtype=dtype)
    )
    assert loss.item() == close(mean_squared_error(predictions, targets))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(smoothing: float, dtype: torch.dtype) -> None:
    logits, targets = table(40, 5, seed=2, scale=2.0), labels(40, 5, seed=3)
    loss = functional.cross_entropy(
        torch.tensor(logits, dtype=dtype), torch.tensor(targets), label_smoothing=smoothing
    )
    assert loss.item() == close(cross_entropy(logits, targets, smoothing))


def test_the_gradient_of_cross_entropy_is_probability_minus_label() -> None:
    logits, targets = table(4, 3, seed=4), labels(4, 3, seed=5)
    tensor = torch.tensor(logits, requires_grad=True)
    functional.cross_entropy(tensor, torch.tensor(targets)).backward()
    assert tensor.grad is not None
    for row, target, gradient in zip(logits, targets, tensor.grad.tolist(), strict=True):
        probabilities = [math.exp(value) for value in log_probabilities(row)]
        hits = [float(index == target) for index in range(3)]
        assert gradient == close([(p - h) / 4 for p, h in zip(probabilities, hits, strict=True)])


@pytest.mark.parametrize("make", [tiny_models.bert, tiny_models.vit, tiny_models.wav2vec2])
def test_the_loss_of_a_classifier_is_cross_entropy(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    batch = tiny_models.batch_for(model)
    output = model(**batch)
    expected = cross_entropy(output.logits.tolist(), batch["labels"].tolist())
    assert output.loss.item() == close(expected)


def test_the_loss_of_a_regression_is_the_squared_error() -> None:
    torch.manual_seed(0)
    model = tiny_models.bert(num_labels=1).eval()
    batch = tiny_models.batch_for(model) | {"labels": torch.tensor([0.3, -1.2])}
    output = model(**batch)
    expected = mean_squared_error(output.logits.flatten().tolist(), [0.3, -1.2])
    assert output.loss.item() == close(expected)


# Metrics


def count(predictions: list[int], references: list[int], label: int) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of a label."""
    pairs = list(zip(predictions, references, strict=True))
    hits = sum(p == label and r == label for p, r in pairs)
    false_alarms = sum(p == label and r != label for p, r in pairs)
    misses = sum(p != label and r == label for p, r in pairs)
    return hits, false_alarms, misses


def scores(predictions: list[int], references: list[int], label: int) -> tuple[float, ...]:
    """Precision, recall and F1 of a label; 0 where the divisor is."""
    hits, false_alarms, misses = count(predictions, references, label)
    precision = hits / (hits + false_alarms) if hits + false_alarms else 0.0
    recall = hits / (hits + misses) if hits + misses else 0.0
    f1 = 2 * hits / (2 * hits + false_alarms + misses) if hits else 0.0
    return precision, recall, f1


CASES = {
    "five labels": (labels(200, 5, seed=6), labels(200, 5, seed=7)),
    "a label is never predicted": (labels(60, 3, seed=8), labels(60, 4, seed=9)),
    "a label has no samples": (labels(60, 4, seed=10), labels(60, 3, seed=11)),
    "nothing is right": ([1, 2, 0, 1], [0, 1, 2, 2]),
}


@pytest.mark.parametrize("case", CASES)
def test_accuracy_and_macro_means(case: str) -> None:
    predictions, references = CASES[case]
    values = classification_metrics(predictions, references, 5)
    right = sum(p == r for p, r in zip(predictions, references, strict=True))
    assert values["accuracy"] == close(right / len(references))
    occurring = sorted({*predictions, *references})
    by_label = [scores(predictions, references, label) for label in occurring]
    for index, name in enumerate(("precision", "recall", "f1")):
        mean = sum(one[index] for one in by_label) / len(occurring)
        assert values[f"{name}_macro"] == close(mean)
        weights = [references.count(label) for label in occurring]
        weighted = sum(w * one[index] for w, one in zip(weights, by_label, strict=True))
        assert values[f"{name}_weighted"] == close(weighted / len(references))


@pytest.mark.parametrize("case", CASES)
def test_scores_of_each_label(case: str) -> None:
    """A label against all others, through the function and the evaluate classes."""
    predictions, references = CASES[case]
    for label in {*predictions, *references}:
        one = [int(value == label) for value in predictions]
        true = [int(value == label) for value in references]
        expected = scores(predictions, references, label)
        found = precision_recall_f1(one, true, "binary")
        assert [found["precision"], found["recall"], found["f1"]] == close(expected)
        for metric, value in zip((Precision(), Recall(), F1()), expected, strict=True):
            computed = metric.compute(predictions=one, references=true)
            assert list(computed.values()) == close([value])


# Penalties and optimisers: gradients and weights of three steps on lists of numbers


def sign(value: float) -> float:
    return float(value > 0) - float(value < 0)


def test_gradients_of_penalties() -> None:
    weights = [*numbers(20, seed=12), 0.0]
    for penalty, gradient in (
        (lambda w: 0.3 * w.abs().sum(), [0.3 * sign(value) for value in weights]),
        (lambda w: 0.3 / 2 * w.square().sum(), [0.3 * value for value in weights]),
    ):
        tensor = torch.tensor(weights, requires_grad=True)
        penalty(tensor).backward()
        assert tensor.grad is not None
        assert tensor.grad.tolist() == close(gradient)


RATE, DECAY, MOMENTUM, BETAS, EPSILON, STEPS = 0.1, 0.3, 0.9, (0.9, 0.999), 1e-8, 3
WEIGHTS = numbers(12, seed=13)
GRADIENTS = table(STEPS, 12, seed=14)


def sgd(*, momentum: float) -> Row:
    """Decay is added to the gradient, so it goes into the momentum too."""
    weights, velocity = list(WEIGHTS), [0.0] * 12
    for step in GRADIENTS:
        for i, raw in enumerate(step):
            velocity[i] = momentum * velocity[i] + raw + DECAY * weights[i]
            weights[i] -= RATE * velocity[i]
    return weights


def adam(*, decoupled: bool, decay: float = DECAY) -> Row:
    """Kingma & Ba 2015, algorithm 1; decay in the gradient, or beside it (Loshchilov & Hutter)."""
    weights, first, second = list(WEIGHTS), [0.0] * 12, [0.0] * 12
    for number, step in enumerate(GRADIENTS, start=1):
        for i, raw in enumerate(step):
            gradient = raw if decoupled else raw + decay * weights[i]
            first[i] = BETAS[0] * first[i] + (1 - BETAS[0]) * gradient
            second[i] = BETAS[1] * second[i] + (1 - BETAS[1]) * gradient**2
            mean = first[i] / (1 - BETAS[0] ** number)
            square = second[i] / (1 - BETAS[1] ** number)
            if decoupled:
                weights[i] -= RATE * decay * weights[i]
            weights[i] -= RATE * mean / (math.sqrt(square) + EPSILON)
    return weights


def stepped(
    parameter: nn.Parameter, optimizer: torch.optim.Optimizer, *, penalty: bool = False
) -> Row:
    """The weights after a step with each of GRADIENTS; ``penalty``: L2, in the loss."""
    for step in GRADIENTS:
        optimizer.zero_grad()
        loss = (parameter.flatten() * torch.tensor(step, dtype=parameter.dtype)).sum()
        if penalty:
            loss = loss + DECAY / 2 * parameter.square().sum()
        loss.backward()
        optimizer.step()
    flat: Tensor = parameter.detach().flatten()
    return [float(value) for value in flat]


def weights_of(dtype: torch.dtype, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.tensor(WEIGHTS, dtype=dtype).reshape(shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [0.0, MOMENTUM])
def test_weight_decay_of_sgd_is_the_gradient_of_an_l2_penalty(
    momentum: float, dtype: torch.dtype
) -> None:
    for in_loss in (False, True):
        parameter = weights_of(dtype, 12)
        decay = 0.0 if in_loss else DECAY
        optimizer = torch.optim.SGD([parameter], lr=RATE, momentum=momentum, weight_decay=decay)
        assert stepped(parameter, optimizer, penalty=in_loss) == close(sgd(momentum=momentum))


@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_decay_of_adam_is_the_gradient_of_an_l2_penalty(dtype: torch.dtype) -> None:
    for in_loss in (False, True):
        parameter = weights_of(dtype, 12)
        decay = 0.0 if in_loss else DECAY
        optimizer = torch.optim.Adam([parameter], lr=RATE, weight_decay=decay)
        assert stepped(parameter, optimizer, penalty=in_loss) == close(adam(decoupled=False))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("shape", "decay"), [((3, 4), DECAY), ((12,), 0.0)])
def test_our_optimizer_decays_matrices_beside_the_gradient(
    shape: tuple[int, ...], decay: float, fused: bool
) -> None:
    module = nn.Module()
    module.weight = weights_of(torch.float32, *shape)
    optimizer = build_optimizer(
        module,
        rates=LearningRates(rest=RATE, head=1.0),
        config=TrainingConfig(weight_decay=DECAY),
        is_head=lambda name: False,
        fused=fused,
    )
    assert stepped(module.weight, optimizer) == close(adam(decoupled=True, decay=decay))


def test_coupled_and_decoupled_decay_differ_by_far_more_than_the_tolerance() -> None:
    coupled, decoupled = adam(decoupled=False), adam(decoupled=True)
    assert max(abs(c - d) for c, d in zip(coupled, decoupled, strict=True)) > 0.01
