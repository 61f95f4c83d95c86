"""What is tried on a model before its training leaves modes and random numbers as they were."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from live_step import make_batch, make_model
from torch import Tensor, nn

import hfbench
from hfbench.errors import UserError
from hfbench.models.structure import find_structure
from hfbench.training.padding import harmless_side
from hfbench.training.standardised import standardise
from hfbench.training.undisturbed import undisturbed


def one_output() -> nn.Module:
    torch.manual_seed(0)
    model = make_model("bert")
    model.classifier = nn.Linear(model.config.hidden_size, 1)
    return model


def inputs() -> dict[str, Tensor]:
    batch = make_batch("bert")
    del batch["labels"]
    return batch


def tried(model: nn.Module) -> None:
    with undisturbed(model):
        assert not any(module.training for module in model.modules())
        torch.rand(3)
        model(**inputs())


def padded(model: nn.Module) -> None:
    def answers(samples: Any, side: str) -> Tensor:
        torch.rand(3)
        logits: Tensor = model(**inputs()).logits
        return logits[: len(samples)]

    harmless_side(model, answers, [0, 1], ["right"])


def put_in_units(model: nn.Module) -> None:
    standardise(
        model,
        find_structure(model),
        lambda logits, labels: logits.sum(),
        inputs(),
        mean=5.0,
        std=2.0,
        new={"classifier.weight"},
    )


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("act", [tried, padded, put_in_units])
def test_modes_and_random_numbers_are_as_before(
    act: Callable[[nn.Module], None], fails: bool
) -> None:
    """The encoder is in eval mode, as a frozen part may be, while the rest trains."""
    model = one_output().train()
    model.bert.encoder.eval()

    def fail(*arguments: Any) -> None:
        raise RuntimeError("the kernel failed")

    if fails:
        model.bert.register_forward_hook(fail)
    state = torch.get_rng_state()
    with pytest.raises((RuntimeError, UserError)) if fails else nullcontext():
        act(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert model.bert.pooler.training
    assert model.classifier.training
    assert not any(module.training for module in model.bert.encoder.modules())


def test_folding_that_fails_leaves_the_head_as_it_was() -> None:
    model = one_output()
    calls: list[Tensor] = []

    def fail(module: nn.Module, arguments: Any, output: Any) -> None:
        calls.append(module.classifier.weight.clone())
        if len(calls) == 2:
            raise RuntimeError("the kernel failed")

    model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="the kernel failed"):
        put_in_units(model)
    assert not torch.equal(calls[0], calls[1])  # folded for the trial
    assert torch.equal(model.classifier.weight, calls[0])


def test_random_numbers_are_kept_for_named_devices_alone() -> None:
    """Without a list torch warns on a machine with several GPUs, and prepares all of them."""
    sources = sorted(Path(hfbench.__file__).parent.rglob("*.py"))
    assert sources
    assert [path.name for path in sources if "fork_rng()" in path.read_text("utf-8")] == []
