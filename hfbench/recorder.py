"""Sees what PyTorch does below autograd: operations with FLOPs and bytes, and the live memory."""

import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from hfbench.errors import NotTraceableError

KernelKind = Literal["matmul", "convolution", "attention", "random", "special", "copy"]

_aten = torch.ops.aten


def _grouped_shape(left: torch.Size, right: torch.Size, groups: int) -> tuple[int, ...]:
    """Of a product of matrices in groups, as ``torch.nn.functional.grouped_mm`` documents it.

    Where a matrix has two dimensions, the groups lie behind each other in one of them: in the rows
    of the left and the columns of the right one, or, if both have two, where they are summed.
    """
    if len(left) == len(right) == 2:
        return groups, left[0], right[1]
    if len(left) == len(right) == 3:
        return left[0], left[1], right[2]
    return left[-2], right[-1]


def _grouped_product(
    left: Tensor,
    right: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """What the kernel gives, for fake tensors of any dtype: PyTorch's own shape function of it
    knows 16 bits only, while the kernels take float32 too."""
    groups = 1 if offs is None else offs.shape[0]
    shape = _grouped_shape(left.shape, right.shape, groups)
    return left.new_empty(shape, dtype=out_dtype or left.dtype)


def _grouped_flops(left: Tensor, right: Tensor, *rest: Any, **named: Any) -> int:
    """Of all groups together, however their rows are divided among them."""
    groups = left.shape[0] if left.ndim == right.ndim == 3 else 1
    return 2 * groups * math.prod(left.shape[-2:]) * right.shape[-1]


# PyTorch's counter knows the fused attention of CUDA only; the CPU's has the same arguments.
_FLOP_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _aten._scaled_dot_product_flash_attention
    ],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
    _aten._grouped_mm: _grouped_flops,
}
_CONVOLUTIONS = {
    _aten.convolution,
    _aten._convolution,
    _aten.cudnn_convolution,
    _aten.convolution_overrideable,
    _aten._slow_conv2d_forward,
    _aten.convolution_backward,
}
# These read some rows of their first input, not all of it.
_LOOKUPS = {_aten.embedding, _aten.index, _aten.gather, _aten.index_select, _aten.slice_backward}
_RANDOM = {_aten.bernoulli_, _aten.bernoulli, _aten.native_dropout, _aten.rand_like, _aten.rand}
# Exponentials, error functions and reductions by row: slower than memory on a CPU.
_SPECIAL = {
    _aten.gelu,
    _aten.gelu_backward,
    _aten.tanh,
    _aten.tanh_backward,
    _aten.sigmoid,
    _aten.silu,
    _aten.silu_backward,
    _aten.exp,
    _aten.erf,
    _aten.pow,
    _aten._softmax,
    _aten._softmax_backward_data,
    _aten._safe_softmax,
    _aten._log_softmax,
    _aten._log_softmax_backward_data,
    _aten.native_layer_norm,
    _aten.native_layer_norm_backward,
    _aten.native_group_norm,
    _aten.native_group_norm_backward,
}


@dataclass(frozen=True)
class Kernel:
    """One operation: what it computes and how many bytes it reads and writes."""

    kind: KernelKind
    flops: int
    bytes_moved: int


def count_kernels(action: Callable[[], object]) -> int:
    """How many operations ``action`` runs, views left out."""
    recorder = Recorder()
    with recorder:
        action()
    return recorder.kernels.total()


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation below autograd: its FLOPs and bytes, and the storages it makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.kernels: Counter[Kernel] = Counter()
        self.working_bytes = self.gradient_bytes = 0  # alive now
        self.working_peak = self.peak = 0
        self._alive: dict[int, int] = {}  # storage -> bytes; 0: outside the accounts
        self._gradients: set[int] = set()

    def ignore(self, tensors: list[Tensor]) -> None:
        """Leave out what exists before the pass."""
        for tensor in tensors:
            self._alive[_key(tensor)] = 0

    def add_gradient(self, parameter: Tensor) -> None:
        """Move a parameter's gradient from the working memory to the gradients."""
        assert parameter.grad is not None
        gradient = parameter.grad
        key = _key(gradient)
        if key in self._gradients:
            return
        self._follow(gradient)
        self._gradients.add(key)
        self.working_bytes -= self._alive[key]
        self.gradient_bytes += self._alive[key]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is _aten._local_scalar_dense.default:
            return _answer(args[0])
        kwargs = kwargs or {}
        if func is _aten._grouped_mm.default and isinstance(args[0], FakeTensor):
            out = _grouped_product(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._follow(tensor)
        self.working_peak = max(self.working_peak, self.working_bytes)
        self.peak = max(self.peak, self.working_bytes + self.gradient_bytes)
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self._count(func, args, kwargs, out, read, made)
        return out

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _key(tensor)
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            self.working_bytes += storage.nbytes()
            weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        size = self._alive.pop(key)
        if key in self._gradients:
            self._gradients.remove(key)
            self.gradient_bytes -= size
        else:
            self.working_bytes -= size

    def _count(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: Any,
        read: list[Tensor],
        made: list[Tensor],
    ) -> None:
        packet = func._overloadpacket
        formula = _FLOP_FORMULAS.get(packet)
        flops = int(formula(*args, **kwargs, out_val=out)) if formula else 0
        self.flops += flops
        sources = {_key(tensor) for tensor in read}
        is_view = not func._schema.is_mutable and all(_key(t) in sources for t in made)
        if not made or is_view or packet in (_aten.empty, _aten.empty_like, _aten.new_empty):
            return
        written = sum(map(_extent, made))
        if packet in _LOOKUPS:
            moved = 2 * written
        elif packet in (_aten.zero_, _aten.fill_, *_RANDOM):
            moved = written
        else:
            moved = written + sum(map(_extent, read))
        self.kernels[Kernel(_kind(packet, flops), flops, moved)] += 1


def _kind(packet: Any, flops: int) -> KernelKind:
    if packet in _CONVOLUTIONS:
        return "convolution"
    if flops:
        return "attention" if "attention" in packet.__name__ else "matmul"
    if packet in _RANDOM:
        return "random"
    return "special" if packet in _SPECIAL else "copy"


def _answer(tensor: Tensor) -> bool:
    if tensor.dtype != torch.bool:
        raise NotTraceableError(
            "this model asks for the value of a tensor while it computes, so its cost depends on "
            "the data and cannot be planned"
        )
    return False


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _extent(tensor: Tensor) -> int:
    """Bytes behind a tensor; an expanded one has fewer than its shape says."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


@contextmanager
def failing_quietly() -> Iterator[None]:
    """Within, PyTorch does not log the traceback of a failing shape function beside its error."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


@contextmanager
def replaced_tensors(model: nn.Module, device: torch.device) -> Iterator[list[nn.Parameter]]:
    """Put tensors of the active mode in the place of all parameters and buffers.

    Tied parameters stay tied. Yields the parameters, each once.
    """
    originals: list[tuple[dict[str, Any], str, Tensor]] = []
    tables: list[dict[str, Any]] = []
    replacements: dict[int, Tensor] = {}
    for module in model.modules():
        tables += [module._parameters, module._buffers]
    for table in tables:
        originals += [(table, name, tensor) for name, tensor in table.items() if tensor is not None]
    for table, name, tensor in originals:
        if id(tensor) not in replacements:
            fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            if isinstance(tensor, nn.Parameter):
                fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
            replacements[id(tensor)] = fake
        table[name] = replacements[id(tensor)]
    try:
        yield [tensor for tensor in replacements.values() if isinstance(tensor, nn.Parameter)]
    finally:
        for table, name, tensor in originals:
            table[name] = tensor
