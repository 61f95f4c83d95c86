"""A network that learns a number in standard units and gives it in the data's own.

A new head gives numbers near 0 and moves by small steps, so that 800,000 ± 1,000 is never reached.
During the training its output z is therefore turned into z × scale + centre behind the network, and
the loss compares z. Before saving, this is folded into the head's last linear layer: its weight
times the scale, its bias times the scale plus the centre. So the saved model needs nothing else.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hfbench.models.structure import Structure, canonical_name, is_duplicate
from hfbench.training.undisturbed import undisturbed

TOLERANCE = 1e-4  # of the largest number, of folding on some samples


class NotFoldedError(Exception):
    """The saved model could not give the data's units; says why."""


@dataclass(frozen=True)
class Scale:
    """Numbers are ``z * scale + centre``."""

    centre: float
    scale: float

    @classmethod
    def of(cls, mean: float, std: float, *, centred: bool) -> "Scale":
        """With z of mean 0 and variance 1, or, where nothing can be added, of mean square 1."""
        return cls(mean, std) if centred else cls(0.0, (mean**2 + std**2) ** 0.5)

    def of_numbers(self, z: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        return z * self.scale + self.centre

    @property
    def inverse(self) -> "Scale":
        return Scale(-self.centre / self.scale, 1 / self.scale)


class Standardised:
    """``model(**batch)``: ``.logits`` in the data's units, ``.standardised`` z, ``.loss`` of z."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[nn.Linear],
        scale: Scale,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """``layers``: the head's last ones, in which ``scale`` can be folded."""
        self.layers, self.scale, self.loss = layers, scale, loss
        self.labels: Tensor | None = None
        self.handles = [
            model.register_forward_pre_hook(self._take_labels, with_kwargs=True),
            model.register_forward_hook(self._put_units),
        ]

    def fold(self) -> None:
        """Give the units by the head itself. The loss is then the model's own."""
        for handle in self.handles:
            handle.remove()
        fold(self.layers, self.scale)

    def unfold(self, model: nn.Module, loaded: nn.Module) -> None:
        """Let ``loaded``, a copy of the folded ``model``, give z again."""
        names = [name for name, module in model.named_modules() if module in self.layers]
        layers = [loaded.get_submodule(name) for name in names]
        fold([layer for layer in layers if isinstance(layer, nn.Linear)], self.scale.inverse)

    def _take_labels(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.labels = kwargs.pop("labels", None)
        return args, kwargs

    def _put_units(self, module: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        z = outputs.logits
        z = z if z.dtype == torch.float64 else z.float()
        if self.labels is not None:
            labels = (self.labels.to(z.dtype) - self.scale.centre) / self.scale.scale
            outputs["loss"] = self.loss(z, labels)
        outputs["logits"] = z * self.scale.scale + self.scale.centre
        outputs["standardised"] = z
        self.labels = None


def standardise(
    model: nn.Module,
    structure: Structure,
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: Mapping[str, Tensor],
    *,
    mean: float,
    std: float,
    new: Collection[str],
) -> Standardised:
    """Let the model learn numbers of this mean and deviation in standard units.

    Args:
        batch: some samples, to prove that the units can be folded into the head.
        new: names of parameters that no checkpoint gave. A head that one gave speaks in units
            already; it still does.

    Raises NotFoldedError where the head does not train, or no linear layer decides its output, or
    all numbers are alike.
    """
    layers = _output_layers(model, structure)
    names = {canonical_name(name) for name, _ in layers}
    centred = {layer.bias is not None for _, layer in layers}
    if not std:
        raise NotFoldedError("those of train are all alike")
    if not layers:
        raise NotFoldedError("the head has no linear layer with one output")
    if not all(p.requires_grad for _, layer in layers for p in layer.parameters()):
        raise NotFoldedError("the head does not train")
    if len(centred) > 1:
        raise NotFoldedError("only some output layers of the head have a bias")
    linear = [layer for _, layer in layers]
    _prove(model, linear, batch)
    scale = Scale.of(mean, std, centred=centred.pop())
    if not any(f"{name}.weight" in new for name in names):
        fold(linear, scale.inverse)
    return Standardised(model, linear, scale, loss)


def fold(layers: Sequence[nn.Linear], scale: Scale) -> None:
    """Let the layers give ``scale`` of what they give."""
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(layer.weight.double() * scale.scale)
            if layer.bias is not None:
                layer.bias.copy_(layer.bias.double() * scale.scale + scale.centre)


def _output_layers(model: nn.Module, structure: Structure) -> list[tuple[str, nn.Linear]]:
    """The head's linear layers with one output; of PEFT's copies those that are used."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == 1
        and not is_duplicate(name)
        and structure.part_of(name) == "head"
    ]


@torch.no_grad()
def _prove(model: nn.Module, layers: Sequence[nn.Linear], batch: Mapping[str, Tensor]) -> None:
    """Raise NotFoldedError unless the output follows what is folded into ``layers``."""
    scale = Scale(0.0 if layers[0].bias is None else 1.0, 2.0)
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    before = [parameter.clone() for parameter in parameters]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with undisturbed(model):
        expected = model(**inputs).logits * scale.scale + scale.centre
        try:
            fold(layers, scale)
            found = model(**inputs).logits
        finally:
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
    if not (found - expected).abs().max() <= TOLERANCE * expected.abs().max():
        raise NotFoldedError("its output does not follow its last linear layers")
