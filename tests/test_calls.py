"""When modules run, whatever they are called and wherever they stand."""

import torch
from torch import Tensor, nn

from hfbench.models.calls import record_calls


class Network(nn.Module):
    """Runs ``inner.late`` before ``early``, ``twice`` around both, and never ``unused``."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.twice, self.unused = nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)
        self.inner = nn.Sequential()
        self.inner.late = nn.Linear(2, 2)

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.twice(self.early(self.inner(self.twice(values))))
        return found


def test_calls_come_in_the_order_of_the_pass() -> None:
    network = Network()
    calls = record_calls(network, lambda: network(torch.zeros(1, 2)))
    assert list(calls.starts) == ["", "twice", "inner", "inner.late", "early"]
    end_of_inner = calls.ends["inner"]
    assert calls.runs_until("inner.late", end_of_inner)
    assert calls.runs_from("early", end_of_inner)
    assert not calls.runs_from("twice", end_of_inner)
    assert not calls.runs_until("twice", end_of_inner)
    assert not calls.runs_until("unused", end_of_inner)
    assert not calls.runs_from("unused", 0)


def test_a_parameter_runs_with_the_innermost_module_that_is_called() -> None:
    network = Network()
    calls = record_calls(network, lambda: network(torch.zeros(1, 2)))
    assert calls.owner("inner.late.weight") == "inner.late"
    assert calls.owner("unused.weight") == ""


def test_a_wrapped_network_has_the_names_of_its_own() -> None:
    network = Network()
    wrapped = nn.Module()
    wrapped.module = network
    calls = record_calls(wrapped, lambda: network(torch.zeros(1, 2)))
    assert "early" in calls.starts
    assert not any(name.startswith("module") for name in calls.starts)
    assert not any(module._forward_hooks for module in wrapped.modules())
