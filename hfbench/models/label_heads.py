"""Which outputs of a network belong to labels, and whose they are: the checkpoint's or nobody's.

What an output means is its label's name. Its position says nothing: other data have as many labels,
or the same ones in another order.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from hfbench.config import ModelConfig
from hfbench.errors import UserError
from hfbench.models.heads import shown_labels
from hfbench.models.loading import Loaded, build_on_meta
from hfbench.results import NEW_HEAD, REORDERED_HEAD


@dataclass(frozen=True)
class HeadChoice:
    """Whether the checkpoint's own outputs are used, and which row each label of the data has."""

    rows: tuple[int, ...] | None  # None: a new head
    required: bool = False  # model.head=reuse


def choose_head(
    checkpoint: ModelConfig, own: Sequence[str] | None, names: Sequence[str]
) -> HeadChoice:
    """The checkpoint's head where its labels ``own`` are those of the data, whatever the order.

    ``model.head`` decides otherwise; ``own`` is None for labels without names, and for outputs
    that mean something else.

    Raises UserError for ``model.head=reuse`` and other labels.
    """
    same = own is not None and sorted(own) == sorted(names) and len(set(names)) == len(names)
    if checkpoint.head == "reuse" and not same:
        has = "no names of labels" if own is None else f"the labels {shown_labels(own)}"
        raise UserError(
            f"model.head=reuse: the data have the labels {shown_labels(names)}, and checkpoint "
            f"{checkpoint.label!r} has {has} for this kind of answer. Leave model.head out for a "
            "new head, or name the checkpoint's labels as the data do: id2label in its config.json"
        )
    if not same or checkpoint.head == "new":
        return HeadChoice(None)
    assert own is not None
    rows = tuple(list(own).index(name) for name in names)
    return HeadChoice(rows, required=checkpoint.head == "reuse")


def settle_head(
    loaded: Loaded,
    choice: HeadChoice,
    model_class: Any,
    *,
    checkpoint: ModelConfig,
    outputs: Literal["num_labels", "vocab_size"] = "num_labels",
) -> Loaded:
    """The network with the head that was chosen, before anything else is done with it.

    ``outputs``: what the configuration calls their number. A new head has the values that the
    architecture gives one: those of the file are drawn anew where they would have fitted. So are
    those of a file with a part of a head.

    Raises UserError for ``model.head=reuse`` and a file without a head.
    """
    dimensions = output_dimensions(loaded.model, model_class, outputs)
    lacking = sorted(loaded.new_parameters & dimensions.keys())
    if lacking and choice.required:
        raise UserError(
            f"model.head=reuse: the weights of checkpoint {checkpoint.label!r} hold no head "
            f"for these labels ({', '.join(lacking)}), though its config.json names them. "
            "Leave model.head out for a new one"
        )
    if choice.rows is None or lacking:
        _draw(loaded.model, sorted(dimensions.keys() - loaded.new_parameters))
        return _with_new_head(loaded, sorted(dimensions))
    if choice.rows == tuple(range(len(choice.rows))):
        return loaded
    rows = torch.tensor(choice.rows)
    with torch.no_grad():
        for name, dimension in dimensions.items():
            parameter = loaded.model.get_parameter(name)
            parameter.copy_(parameter.index_select(dimension, rows))
    return replace(loaded, weights=replace(loaded.weights, head=REORDERED_HEAD))


def output_dimensions(model: Any, model_class: Any, outputs: str) -> Mapping[str, int]:
    """Parameters with a row for each output -> the dimension of these rows.

    They are those that have another shape in the same network with one output more.
    """
    config = copy.deepcopy(model.config)
    setattr(config, outputs, getattr(config, outputs) + 1)
    larger = dict(build_on_meta(config, model_class).named_parameters())
    return {
        name: next(d for d, size in enumerate(parameter.shape) if size != larger[name].shape[d])
        for name, parameter in model.named_parameters()
        if parameter.shape != larger[name].shape
    }


def _draw(model: Any, names: Sequence[str]) -> None:
    """Give parameters new random values, as the architecture initialises them."""
    modules = {name.rpartition(".")[0] for name in names}
    with torch.no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            parameter.fill_(torch.nan)
            parameter._is_hf_initialized = False  # transformers' mark of what a file gave
        for module in sorted(modules):
            model._init_weights(model.get_submodule(module))
    left = [name for name in names if model.get_parameter(name).isnan().any()]
    assert not left, f"{type(model).__name__} does not initialise {', '.join(left)}"


def _with_new_head(loaded: Loaded, names: Sequence[str]) -> Loaded:
    new = {part: list(of) for part, of in loaded.weights.new.items()}
    new["head"] = sorted({*new.get("head", ()), *names})
    return replace(
        loaded,
        new_parameters=loaded.new_parameters | set(names),
        weights=replace(loaded.weights, head=NEW_HEAD, new=new),
    )
