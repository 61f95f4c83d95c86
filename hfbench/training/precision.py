"""Which precision trains faster here: float32 or bfloat16 autocast, measured on a few passes."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hfbench import provenance
from hfbench.answers import cached
from hfbench.training.rounds import medians

MIN_GAIN = 1.1  # so many times as fast as float32 must bfloat16 be
MAX_HIDDEN = 768  # wider products take longer and say the same
# Samples × positions: enough to fill a GPU, where fewer would measure only the launching of kernels
CPU_SHAPE, GPU_SHAPE = (4, 64), (32, 128)


@dataclass(frozen=True)
class Block:
    """The sizes of a transformer block; what is not known of a network is as in these."""

    hidden: int = 256
    intermediate: int = 1024
    heads: int = 4

    def shrunk(self) -> "Block":
        """A block of the same proportions that is at most ``MAX_HIDDEN`` wide."""
        if self.hidden <= MAX_HIDDEN:
            return self
        head_size = min(self.hidden // self.heads, MAX_HIDDEN)
        heads = MAX_HIDDEN // head_size
        hidden = heads * head_size
        return Block(hidden, self.intermediate * hidden // self.hidden, heads)


@dataclass(frozen=True)
class PrecisionChoice:
    """Medians of one forward and backward pass, and the precision that follows from them."""

    float32_seconds: float
    bf16_seconds: float
    unit: str  # what was passed through, and by what: "block", "block on one thread"

    @property
    def gain(self) -> float:
        """How many times as fast as float32 bfloat16 is."""
        return self.float32_seconds / self.bf16_seconds

    @property
    def precision(self) -> Literal["no", "bf16"]:
        return "bf16" if self.gain >= MIN_GAIN else "no"

    def __str__(self) -> str:
        """``bf16, 1.6 times as fast as float32 here (12.1 against 19.4 ms a block)``."""
        name = "bf16," if self.precision == "bf16" else "no (float32), bf16 is"
        return (
            f"{name} {self.gain:.2g} times as fast as float32 here "
            f"({1e3 * self.bf16_seconds:.3g} against {1e3 * self.float32_seconds:.3g} ms a "
            f"{self.unit})"
        )


def choose_precision(
    device: torch.device,
    unit: str,
    sizes: Mapping[str, Any],
    make_work: Callable[[], Callable[[], object]],
) -> PrecisionChoice:
    """Measure once on this machine and keep the answer, so that all its runs decide alike.

    Args:
        unit: what one call of the work is, for people.
        sizes: plain JSON values that, with the device, tell this work from any other.
        make_work: makes the forward and backward pass that is measured.
    """
    on_cpu = device.type == "cpu"
    unit = f"{unit} on one thread" if on_cpu else unit
    question = {
        "precision of": dict(sizes),
        "unit": unit,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": provenance.cpu_model(),
    }
    return cached(
        question,
        lambda: _measure(device, unit, make_work()),
        to_json=asdict,
        from_json=lambda kept: PrecisionChoice(
            float(kept["float32_seconds"]), float(kept["bf16_seconds"]), str(kept["unit"])
        ),
    )


def choose_for_block(device: torch.device, block: Block) -> PrecisionChoice:
    """The choice for a network of such blocks."""
    small = block.shrunk()
    return choose_precision(device, "block", asdict(small), lambda: _block_passes(device, small))


def _block_passes(device: torch.device, block: Block) -> Callable[[], object]:
    with torch.random.fork_rng(devices=[]):  # made on the CPU: the run's numbers stay as they are
        layer = nn.TransformerEncoderLayer(
            block.hidden,
            block.heads,
            block.intermediate,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
        ).to(device)
    shape = CPU_SHAPE if device.type == "cpu" else GPU_SHAPE
    inputs = torch.ones(*shape, block.hidden, device=device, requires_grad=True)
    # Not all alike: the gradient of the sum of a layer norm's output is zero.
    weights = torch.linspace(-1, 1, block.hidden, device=device)

    # The fused attention of a CPU is slow in bfloat16, and no run uses it then.
    on_cpu = device.type == "cpu"

    def passes() -> None:
        with sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext():
            (layer(inputs) * weights).sum().backward()

    return passes


def _measure(device: torch.device, unit: str, work: Callable[[], object]) -> PrecisionChoice:
    def under(*, bf16: bool) -> Callable[[], None]:
        def passes() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                work()

        return passes

    seconds = medians({"no": under(bf16=False), "bf16": under(bf16=True)}, device)
    return PrecisionChoice(seconds["no"], seconds["bf16"], unit)
