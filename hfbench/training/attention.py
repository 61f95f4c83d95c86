"""Whether a CPU computes attention faster by PyTorch's own function or written out.

Without dropout PyTorch has a fused kernel, which keeps no (positions, positions) weights and wins
where there are many positions. Its backward pass in bfloat16 is slow on CPUs (PyTorch 2.14), so
that for few positions two batched products and a softmax take a third of its time; with dropout it
is not used, and bfloat16 is computed in float32. So it is measured, for the sizes of the run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from hfbench import provenance
from hfbench.answers import cached
from hfbench.errors import NotMeasuredError
from hfbench.models.attention import can_write_out, written_out
from hfbench.training.probe import Probe
from hfbench.training.rounds import measured_for_all, medians

AS_LOADED, WRITTEN_OUT = "as loaded", "written out"
MIN_GAIN = 1.1  # so many times as fast must the other way be
DROPOUT_NAMES = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
SAMPLES = 4  # of a measured pass: enough to tell, because samples are computed one by one


@dataclass(frozen=True)
class AttentionSizes:
    """Of one layer in a run."""

    heads: int
    head_size: int
    positions: int
    bf16: bool
    dropout: float = 0.0

    def __str__(self) -> str:
        """``bfloat16, 64 positions``."""
        return f"{'bfloat16' if self.bf16 else 'float32'}, {self.positions} positions"


@dataclass(frozen=True)
class AttentionChoice:
    """Median seconds of one forward and backward pass of some samples, by either way."""

    own_seconds: float
    written_out_seconds: float

    @property
    def gain(self) -> float:
        """How many times as fast as PyTorch's own function the other way is."""
        return self.own_seconds / self.written_out_seconds

    @property
    def as_loaded(self) -> bool:
        return self.gain < MIN_GAIN

    def __str__(self) -> str:
        """``written out (1.2 ms; by PyTorch's own function 3.5 ms)``."""
        own, other = (f"{1e3 * s:.3g}" for s in (self.own_seconds, self.written_out_seconds))
        if self.as_loaded:
            return f"as loaded ({own} ms; written out {other} ms)"
        return f"written out ({other} ms; by PyTorch's own function {own} ms)"


@contextmanager
def fastest_attention(
    model: nn.Module, probe: Probe, accelerator: Accelerator, kept: str | None = None
) -> Iterator[str]:
    """Within, the model computes its attention by the way that was measured to be faster here.

    GPUs keep what the model has, as do models without PyTorch's function or without another way.
    ``kept``: the way of a run that goes on.

    Yields ``as loaded`` or ``written out``.
    """
    if kept is None:
        kept = _fastest(model, probe, accelerator)
    if kept == AS_LOADED:
        yield kept
        return
    with written_out(model):
        yield kept


def _fastest(model: nn.Module, probe: Probe, accelerator: Accelerator) -> str:
    def measure() -> tuple[AttentionSizes | None, AttentionChoice | None]:
        sizes = _sizes(model, probe, bf16=accelerator.mixed_precision == "bf16")
        return sizes, None if sizes is None else choose_attention(sizes)

    choice = None
    if accelerator.device.type == "cpu" and can_write_out(model):
        try:
            sizes, choice = measured_for_all(measure, is_main=accelerator.is_main_process)
        except NotMeasuredError as error:
            accelerator.print(f"attention: as loaded, {error}")
        if choice is not None:
            accelerator.print(f"attention, {sizes}: {choice}")
    return AS_LOADED if choice is None or choice.as_loaded else WRITTEN_OUT


def choose_attention(sizes: AttentionSizes) -> AttentionChoice:
    """Measured once on this machine, so that all its runs decide alike."""
    return cached(
        {"attention of": asdict(sizes), "cpu": provenance.cpu_model()},
        lambda: _measure(sizes),
        to_json=asdict,
        from_json=lambda kept: AttentionChoice(
            float(kept["own_seconds"]), float(kept["written_out_seconds"])
        ),
    )


def attend(query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float = 0.0) -> Tensor:
    """Written out; all are (samples, heads, positions, head size)."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    weights = dropout(scores.float().softmax(-1).to(query.dtype), dropout_p)
    return weights @ value


def _measure(sizes: AttentionSizes) -> AttentionChoice:
    def passes(attention: Callable[..., Tensor]) -> Callable[[], None]:
        return lambda: torch.autograd.backward(
            attention(*inputs.unbind(), dropout_p=sizes.dropout).sum()
        )

    dtype = torch.bfloat16 if sizes.bf16 else torch.float32
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(
        (3, SAMPLES, sizes.heads, sizes.positions, sizes.head_size),
        generator=generator,
        dtype=dtype,
        requires_grad=True,
    )
    ways = {"own": scaled_dot_product_attention, "written out": attend}
    with torch.random.fork_rng(devices=[]):
        seconds = medians({name: passes(way) for name, way in ways.items()}, inputs.device)
    return AttentionChoice(seconds["own"], seconds["written out"])


def _sizes(model: nn.Module, probe: Probe, *, bf16: bool) -> AttentionSizes | None:
    """Of a call of PyTorch's own function for a sample of middle length; None without one."""
    seen = OwnCalls()
    batch = probe.batch_of([probe.indices[len(probe.indices) // 2]])
    with torch.no_grad(), seen:
        model(**batch)
    if not seen.queries or len(seen.queries[0]) != 4:  # timm's Hiera attends within windows
        return None
    _, heads, positions, head_size = seen.queries[0]
    return AttentionSizes(heads, head_size, positions, bf16, _dropout_of(model))


def _dropout_of(model: nn.Module) -> float:
    """Of attention weights in training, by the names that configurations have for it."""
    config = getattr(model, "config", None)
    found = (getattr(config, name, None) for name in DROPOUT_NAMES)
    return next((value for value in found if isinstance(value, float)), 0.0)


class OwnCalls(TorchFunctionMode):
    """Sees the queries for which PyTorch's own function is called."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[torch.Size] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is scaled_dot_product_attention:
            self.queries.append((args or list(kwargs.values()))[0].shape)
        return func(*args, **(kwargs or {}))
