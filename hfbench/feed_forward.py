"""Which linear layers of a block lead out of a feed-forward, whose inner values (IA)³ scales.

A feed-forward widens and then narrows again. Which layer reads what another one gives is seen from
the order in which they run: MobileBERT's blocks also narrow at their beginning and widen at their
end, and its module tree lists these layers the other way round.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hfbench.errors import NotMeasuredError, UserError, measuring
from hfbench.models.calls import record_calls
from hfbench.models.inputs import meta_batch
from hfbench.models.structure import Structure, linear_layers
from hfbench.recorder import failing_quietly, replaced_tensors
from hfbench.training.undisturbed import undisturbed

TOKENS, SECONDS = 8, 1.0  # of the sample whose shapes are passed through the network


def feed_forward_outputs(
    model: nn.Module, structure: Structure, blocks: Sequence[str]
) -> list[str]:
    """Names of the layers inside ``blocks`` that narrow what an earlier layer there has widened.

    Both lie outside the attention, and one layer narrows what one widened; gated feed-forwards
    widen twice at once. Works on meta tensors: only shapes are passed through the network.

    Raises UserError for blocks without such a layer. Where the order cannot be had a block must
    have one feed-forward and nothing else that widens or narrows.
    """
    attention = set(linear_layers(model, structure, "attention", blocks))
    ran, problem = _order(model, structure)
    found = []
    for block in blocks:
        layers = [
            name
            for name in linear_layers(model, structure, "all_linear", [block])
            if name not in attention
        ]
        if ran is not None:
            layers = sorted((n for n in layers if n in ran), key=ran.__getitem__)
        outputs, left = _paired([(name, *_widths(model.get_submodule(name))) for name in layers])
        if ran is None and (left or len(outputs) > 1):
            raise UserError(
                f"which layers of {block} are its feed-forward cannot be told: "
                f"{', '.join(outputs + left)} may be, and {problem}. Choose lora"
            )
        found += outputs
    if not found:
        raise UserError(
            f"the blocks of {type(model).__name__} have no feed-forward of two linear layers, the "
            "first of which widens, whose inner values ia3 scales. Choose lora"
        )
    return found


def _paired(layers: Sequence[tuple[str, int, int]]) -> tuple[list[str], list[str]]:
    """The narrowing layers of (name, inputs, outputs) in order, and those without a partner."""
    widened: dict[int, str] = {}
    found, left = [], []
    for name, inputs, outputs in layers:
        if outputs > inputs:
            widened[outputs] = name
        elif outputs < inputs and widened.pop(inputs, None) is not None:
            found.append(name)
        elif outputs < inputs:
            left.append(name)
    return found, [*left, *widened.values()]


def _order(model: nn.Module, structure: Structure) -> tuple[dict[str, int] | None, str]:
    """When each module of the backbone first runs; None and why where it cannot be traced."""
    backbone = model.get_submodule(structure.backbone)
    cpu = torch.device("cpu")
    try:
        message = "the order of its layers cannot be traced"
        with failing_quietly(), measuring(message), undisturbed(model), ExitStack() as stack:
            sample = meta_batch(backbone, 1, max_length=TOKENS, max_seconds=SECONDS)
            del sample["labels"]  # of the head, which is not run
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            stack.enter_context(replaced_tensors(model, cpu))
            batch = {n: torch.empty(v.shape, dtype=v.dtype, device=cpu) for n, v in sample.items()}
            calls = record_calls(model, lambda: backbone(**batch))
    except (NotMeasuredError, UserError) as error:  # of a kind of input that meta_batch lacks
        return None, str(error)
    return calls.starts, ""


def _widths(linear: Any) -> tuple[int, int]:
    """How many values a linear layer reads and gives."""
    if isinstance(linear, nn.Linear):
        return linear.in_features, linear.out_features
    inputs, outputs = linear.weight.shape  # GPT-2's Conv1D
    return inputs, outputs
