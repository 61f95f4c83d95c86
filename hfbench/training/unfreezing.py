"""Parameters that start to train in a later epoch."""

from collections.abc import Callable

from torch import nn


class Unfreezing:
    """Which of the parameters that train at some time need gradients now.

    They all do outside an epoch, so that a state always holds the same parameters. Within one,
    those that wait get no gradient, and optimisers leave out what has none.
    """

    def __init__(self, model: nn.Module, trains: Callable[[str, int], bool] | None) -> None:
        self.trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.trains = trains

    def enter(self, epoch: int) -> None:
        """Only what trains in ``epoch`` needs gradients."""
        if self.trains is not None:
            for name, parameter in self.trainable.items():
                parameter.requires_grad = self.trains(name, epoch)

    def leave(self) -> None:
        """Everything needs them again."""
        if self.trains is not None:
            for parameter in self.trainable.values():
                parameter.requires_grad = True
