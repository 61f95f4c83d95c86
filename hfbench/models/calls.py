"""When the modules of a network run: the order of calls in one forward pass.

Names tell what a module is for, not when it is used: DeBERTa-v2's convolution stands beside the
blocks and runs behind the first one.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import nn

from hfbench.models.structure import canonical_name


@dataclass(frozen=True)
class Calls:
    """The calls of one pass, by canonical module names, on one clock that counts from 0.

    A module that was never called is in neither mapping: others read what it holds.
    """

    starts: dict[str, int]  # of each module's first call, in the order of these calls
    ends: dict[str, int]  # of each module's last call

    def runs_from(self, name: str, tick: int) -> bool:
        """Whether a module runs, and only from ``tick`` on."""
        return self.starts.get(name, -1) >= tick

    def runs_until(self, name: str, tick: int) -> bool:
        """Whether a module runs, and never later than ``tick``."""
        return name in self.ends and self.ends[name] <= tick

    def owner(self, parameter: str) -> str:
        """The innermost module around a parameter that is called; "" is the whole network."""
        name = parameter.rpartition(".")[0]
        while name and name not in self.starts:
            name = name.rpartition(".")[0]
        return name


@torch.no_grad()
def record_calls(model: nn.Module, run: Callable[[], object]) -> Calls:
    """The calls of ``run()``, a forward pass of ``model``; what it raises is passed on."""
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    clock = count()

    def start(name: str, *_: Any) -> None:
        starts.setdefault(name, next(clock))

    def end(name: str, *_: Any) -> None:
        ends[name] = next(clock)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            own = canonical_name(name)
            stack.callback(module.register_forward_pre_hook(partial(start, own)).remove)
            stack.callback(module.register_forward_hook(partial(end, own)).remove)
        run()
    return Calls(starts, ends)
