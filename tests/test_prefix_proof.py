"""What the proof of a stored prefix takes for rounding, and what not."""

from typing import Any

import pytest
import torch
import transformers
from live_step import make_batch, make_model
from probed_models import probe_of

from hfbench.models.structure import find_structure
from hfbench.training.prefix.cut import Cut, Place
from hfbench.training.prefix.proof import disagreement, whole_model


class Noisy(transformers.BertForSequenceClassification):
    """As on a GPU that adds in any order, each pass has gradients that are a little other."""

    noise, passes = 0.0, 0

    def forward(self, **batch: Any) -> Any:  # type: ignore[override]
        outputs = super().forward(**batch)
        self.passes += 1
        outputs.loss = outputs.loss + self.noise * self.passes * self.classifier.bias.sum()
        return outputs


@pytest.mark.parametrize(("noise", "agrees"), [(0.0, True), (1e-6, True), (1e-2, False)])
def test_what_a_repeated_pass_changes_too_is_rounding_while_it_is_small(
    noise: float, agrees: bool
) -> None:
    torch.manual_seed(0)
    model = Noisy(make_model("bert").config)
    probe = probe_of(model, make_batch("bert"))
    model.noise = noise
    cut = Cut(model, find_structure(model), Place(2))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("classifier", "bert.encoder.layer.3"))
    whole = whole_model(probe)
    problem = disagreement(cut, probe, whole, None)
    assert (problem is None) == agrees, problem
    assert agrees or "other gradients of classifier.bias" in str(problem)


def test_a_backward_pass_that_fails_leaves_no_gradients() -> None:
    model = make_model("bert")

    def fail(gradient: Any) -> None:
        raise RuntimeError("the kernel failed")

    model.bert.encoder.layer[0].attention.self.query.weight.register_hook(fail)
    with pytest.raises(RuntimeError, match="the kernel failed"):
        whole_model(probe_of(model, make_batch("bert")))
    assert all(parameter.grad is None for parameter in model.parameters())
