"""Clocks that the benchmarks share."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch

PEAK_SIZES = (1024, 2048)  # rows and columns of square products


def timed(action: Callable[[], Any]) -> float:
    """Seconds until ``action`` returns."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def matrix_peak(dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> float:
    """Operations a second of the fastest of some square products, on the CPU where None."""
    best = 0.0
    for size in PEAK_SIZES:
        left, right = (torch.rand(size, size, dtype=dtype, device=device) for _ in range(2))
        for _ in range(5):
            best = max(best, 2 * size**3 / timed(lambda a=left, b=right: finished(a @ b)))
    return best


def finished(value: Any = None) -> Any:
    """``value``, once the device has computed everything that was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return value


@dataclass(frozen=True)
class Span:
    """One call of a watched function, in seconds of one clock."""

    name: str
    started: float
    ended: float

    def holds(self, other: "Span") -> bool:
        return self.started <= other.started and other.ended <= self.ended


@dataclass
class Spans:
    """When watched functions ran; one may call another."""

    seen: list[Span] = field(default_factory=list)

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            value = finished(function(*arguments, **options))
            self.seen.append(Span(name, started, time.perf_counter()))
            return value

        return watched

    def only(self, name: str) -> Span:
        """The call of a function that must have run once."""
        (span,) = (span for span in self.seen if span.name == name)
        return span

    def seconds(self, started: float, ended: float, *, without: Collection[str]) -> float:
        """From ``started`` to ``ended``, less what ``without`` took, nested calls once."""
        whole = Span("whole", started, ended)
        left_out = [span for span in self.seen if span.name in without and whole.holds(span)]
        outermost = [
            span
            for span in left_out
            if not any(other is not span and other.holds(span) for other in left_out)
        ]
        return ended - started - sum(span.ended - span.started for span in outermost)
