"""How fast this machine computes: a few seconds of measurement, then times follow from a trace."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hfbench.cost import AUTOCAST_DTYPES, Precision
from hfbench.recorder import Kernel, count_kernels

ADAMW_TRAFFIC = 7  # times its parameters: reads value, gradient, two moments, writes three of them
_ROUNDS = 7


@dataclass(frozen=True)
class Calibration:
    """Measured speeds of one device at one precision, with the threads that PyTorch has."""

    device: str
    threads: int
    precision: Precision
    matmul_flops_per_second: float
    convolution_flops_per_second: float
    attention_flops_per_second: float  # by the fused kernel, forward and backward
    copy_bytes_per_second: float  # read and written, by additions
    special_bytes_per_second: float  # by GELU, softmax and layer norm, forward
    random_bytes_per_second: float  # written, by dropout's mask
    kernel_seconds: float  # of one operation on almost nothing, autograd and modules included
    optimizer_bytes_per_second: float  # by PyTorch's fused AdamW

    def seconds(self, kernels: Mapping[Kernel, int]) -> float:
        """The time of a trace's operations, one after the other.

        Each takes the longer of its arithmetic and its memory traffic (the roofline model,
        Williams et al. 2009) and a constant for being called.
        """
        return sum(count * self._kernel_seconds(kernel) for kernel, count in kernels.items())

    def _kernel_seconds(self, kernel: Kernel) -> float:
        arithmetic = {
            "matmul": self.matmul_flops_per_second,
            "convolution": self.convolution_flops_per_second,
            "attention": self.attention_flops_per_second,
        }
        traffic = {
            "special": self.special_bytes_per_second,
            "random": self.random_bytes_per_second,
        }
        memory = kernel.bytes_moved / traffic.get(kernel.kind, self.copy_bytes_per_second)
        if kernel.kind in arithmetic:
            return self.kernel_seconds + max(kernel.flops / arithmetic[kernel.kind], memory)
        return self.kernel_seconds + memory


def calibrate(
    precision: Precision = "no", *, device_type: Literal["cpu", "cuda"] = "cpu"
) -> Calibration:
    """Measure what this machine does when it is free, in half a second on an idle CPU."""
    device = torch.device(device_type)
    dtype = AUTOCAST_DTYPES.get(precision, torch.float32)

    def values(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

    rows, columns = values(512, 768), values(768, 768)
    signal, filters = values(4, 64, 2000), values(64, 64, 3)
    convolution_flops = 2 * 4 * 1998 * 64 * (64 * 3)  # samples, positions, channels, products
    query = values(4, 8, 128, 64).requires_grad_()
    attention_flops = (4 + 10) * 4 * 8 * 128**2 * 64  # 2 products forward, 5 backward
    table, other = values(1024, 1024), values(1024, 1024)
    weight = nn.Parameter(torch.zeros(2**20, device=device))
    weight.grad = torch.ones_like(weight)
    small_passes = _small_passes(device)
    actions: dict[str, Callable[[], object]] = {
        "matmul": lambda: rows @ columns,
        "convolution": lambda: functional.conv1d(signal, filters),
        "attention": lambda: torch.autograd.grad(
            functional.scaled_dot_product_attention(query, query, query).sum(), query
        ),
        "copy": lambda: table + other,
        "gelu": lambda: functional.gelu(table),
        "softmax": lambda: functional.softmax(table, dim=-1),
        "norm": lambda: functional.layer_norm(table, (1024,)),
        "random": lambda: torch.empty_like(table).bernoulli_(0.9),
        "small": small_passes,
        "optimizer": torch.optim.AdamW([weight], fused=True).step,
    }
    seconds = _fastest_seconds(actions, device)
    special_seconds = seconds["gelu"] + seconds["softmax"] + seconds["norm"]
    return Calibration(
        device=torch.cuda.get_device_name() if device_type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        precision=precision,
        matmul_flops_per_second=2 * 512 * 768 * 768 / seconds["matmul"],
        convolution_flops_per_second=convolution_flops / seconds["convolution"],
        attention_flops_per_second=attention_flops / seconds["attention"],
        copy_bytes_per_second=3 * table.nbytes / seconds["copy"],
        special_bytes_per_second=3 * 2 * table.nbytes / special_seconds,
        random_bytes_per_second=table.nbytes / seconds["random"],
        kernel_seconds=seconds["small"] / count_kernels(small_passes),
        optimizer_bytes_per_second=ADAMW_TRAFFIC * weight.nbytes / seconds["optimizer"],
    )


def _small_passes(device: torch.device) -> Callable[[], None]:
    """A forward and backward pass of a network so small that only calling its layers counts."""
    layers = [layer for _ in range(10) for layer in (nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU())]
    network = nn.Sequential(*layers).to(device)
    inputs = torch.ones(2, 4, device=device)

    def passes() -> None:
        network(inputs).sum().backward()

    return passes


def _fastest_seconds(
    actions: dict[str, Callable[[], object]], device: torch.device
) -> dict[str, float]:
    """The fastest of several rounds, which other work on the machine disturbs least."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():  # makes caches and optimiser state
        action()
    for _ in range(_ROUNDS):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    return {name: min(measured) for name, measured in times.items()}
