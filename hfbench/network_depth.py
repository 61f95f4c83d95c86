"""What depth does to a multi-layer perceptron: networks to compare, and what their runs say.

Depth is the number of linear layers. No large library.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from hfbench.compare import Spread, pooled_std, spread

Widths = tuple[int, ...]  # of the hidden layers; a network of depth d has d - 1

Verdict = Literal["best", "unclear", "overfits", "underfits"]
EQUAL_WIDTH, EQUAL_PARAMETERS = "equal width", "equal parameters"  # ways of growing deeper
CLEAR_STDS = 2.0  # pooled sample standard deviations that a clear difference exceeds


def layer_parameters(widths: Widths, *, inputs: int, outputs: int) -> tuple[int, ...]:
    """Weights and biases of each linear layer: (inputs + 1) · outputs of that layer."""
    sizes = (inputs, *widths, outputs)
    return tuple((before + 1) * after for before, after in itertools.pairwise(sizes))


def widths_for_parameters(depth: int, target: int, *, inputs: int, outputs: int) -> Widths:
    """The hidden widths with which a network of ``depth`` has nearest to ``target`` parameters.

    Widths differ by at most one, the wider ones first; of two equally near counts the smaller is
    taken. Depth 1 has no hidden layer, so its count is what it is.
    """
    hidden = depth - 1
    if not hidden:
        return ()

    def distance(neurons: int) -> int:
        widths = _spread_out(neurons, hidden)
        return abs(sum(layer_parameters(widths, inputs=inputs, outputs=outputs)) - target)

    neurons = hidden
    while distance(neurons + 1) < distance(neurons):  # every neuron adds parameters
        neurons += 1
    return _spread_out(neurons, hidden)


def _spread_out(neurons: int, layers: int) -> Widths:
    width, wider = divmod(neurons, layers)
    return (width + 1,) * wider + (width,) * (layers - wider)


@dataclass(frozen=True)
class NetworkRun:
    """One network, trained once and measured after its last epoch."""

    widths: Widths
    regularised: bool
    seed: int
    layer_parameters: tuple[int, ...]
    train_loss: float  # means over the samples of the split, in eval mode
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    train_seconds: float  # without evaluation and saving


@dataclass(frozen=True)
class DepthPoint:
    """The runs of one network over the seeds."""

    widths: Widths
    layer_parameters: tuple[int, ...]
    train_loss: Spread
    train_accuracy: Spread
    test_loss: Spread
    test_accuracy: Spread
    gap: Spread  # test loss minus train loss, run by run
    train_seconds: Spread

    @property
    def depth(self) -> int:
        return len(self.layer_parameters)

    @property
    def parameters(self) -> int:
        return sum(self.layer_parameters)

    @classmethod
    def of(cls, runs: Sequence[NetworkRun]) -> Self:
        return cls(
            widths=runs[0].widths,
            layer_parameters=runs[0].layer_parameters,
            train_loss=_known(run.train_loss for run in runs),
            train_accuracy=_known(run.train_accuracy for run in runs),
            test_loss=_known(run.test_loss for run in runs),
            test_accuracy=_known(run.test_accuracy for run in runs),
            gap=_known(run.test_loss - run.train_loss for run in runs),
            train_seconds=_known(run.train_seconds for run in runs),
        )


@dataclass(frozen=True)
class DepthCurve:
    """Networks of growing depth, trained alike."""

    points: tuple[DepthPoint, ...]

    @classmethod
    def of(cls, networks: Iterable[Widths], runs: Sequence[NetworkRun]) -> Self:
        """``runs`` may hold other networks too."""
        return cls(
            tuple(DepthPoint.of([run for run in runs if run.widths == one]) for one in networks)
        )

    @property
    def best(self) -> DepthPoint:
        """The highest mean test accuracy; the shallowest of equal ones."""
        return max(self.points, key=lambda point: point.test_accuracy.mean)

    def verdict(self, point: DepthPoint) -> Verdict | None:
        """How a network stands against the best one; None for single runs.

        A network that is clearly worse on the test split (lower accuracy or higher loss) underfits
        if its training loss is clearly higher too; else it overfits.
        """
        best = self.best
        if point is best:
            return "best"
        less_accurate = is_clear(point.test_accuracy, best.test_accuracy)
        if less_accurate is None:
            return None
        if not less_accurate and not is_clear(best.test_loss, point.test_loss):
            return "unclear"
        return "underfits" if is_clear(best.train_loss, point.train_loss) else "overfits"


@dataclass(frozen=True)
class NetworkStudy:
    """Both ways of growing deeper, without and with regularisation."""

    dataset: str
    samples: dict[str, int]  # split -> number
    target_parameters: int  # what the networks of EQUAL_PARAMETERS should have
    regularisation: str  # settings, as key=value
    seeds: tuple[int, ...]
    curves: dict[tuple[str, bool], DepthCurve]  # (way, regularised)


def is_clear(lower: Spread, higher: Spread) -> bool | None:
    """Whether ``higher`` exceeds ``lower`` by more than CLEAR_STDS; None for single values."""
    pooled = pooled_std([lower, higher])
    return None if pooled is None else higher.mean - lower.mean > CLEAR_STDS * pooled


def _known(values: Iterable[float]) -> Spread:
    found = spread(values)
    assert found is not None  # a run whose training diverges leaves none
    return found
