"""What one training pass costs, found by running the real model without memory for its numbers.

The model's weights and inputs are replaced by fake tensors (``torch._subclasses.fake_tensor``):
shapes, dtypes and a device, no data. PyTorch then takes every decision that it takes for real
tensors of that device (autocast's casts, the kernel of scaled dot product attention, what autograd
keeps), and a dispatch mode sees every operation. Plain meta tensors would not do: they know no
autocast, and attention always takes its unfused path on them, which keeps the (length × length)
probabilities that the fused kernels never write.

Memory is followed as PyTorch's allocator would see it: a storage counts from the operation that
makes it until nothing refers to it (the method of ``torch.distributed._tools.mem_tracker``). Not
seen are the allocator's rounding, and buffers that a kernel takes for itself while it runs: a
bfloat16 product on a CPU without matrix units copies its weight and keeps a float32 result, and a
convolution keeps its input in another layout. One such buffer lives at a time.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from hfbench.errors import UserError
from hfbench.models.checkpointing import gradient_checkpointing as checkpointing
from hfbench.models.structure import Structure
from hfbench.strategies import set_training_mode

Precision = Literal["no", "bf16", "fp16"]
KernelKind = Literal["matmul", "convolution", "attention", "random", "special", "copy"]

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_aten = torch.ops.aten


# PyTorch's counter knows the fused attention of CUDA only; the CPU's has the same arguments.
_FLOP_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _aten._scaled_dot_product_flash_attention
    ],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
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


@dataclass(frozen=True)
class StepCost:
    """One forward and one backward pass over one batch on one process.

    ``kernels`` has the passes' operations and how often each runs; views cost nothing and are
    left out.
    """

    saved_activation_bytes: int  # what autograd keeps from the forward to the backward pass
    working_peak_bytes: int  # saved activations and temporary tensors together, at most
    peak_bytes: int  # the same with the gradients, as they come while activations go
    input_bytes: int  # the batch
    forward_flops: int
    backward_flops: int
    kernels: Mapping[Kernel, int]

    @property
    def temporary_bytes(self) -> int:
        """What the passes need beyond the saved activations at their worst moment."""
        return self.working_peak_bytes - self.saved_activation_bytes

    @property
    def flops(self) -> int:
        return self.forward_flops + self.backward_flops


def trace_step(
    model: nn.Module,
    structure: Structure,
    inputs: Mapping[str, Tensor],
    *,
    precision: Precision = "no",
    gradient_checkpointing: bool = False,
    accumulating: bool = False,
    device_type: Literal["cpu", "cuda"] = "cpu",
) -> StepCost:
    """Trace a forward and a backward pass in the mode of training; nothing is computed.

    Questions about values that do not exist are answered with no: no layer is dropped at random
    and an attention mask counts as one with padding in it, which is what most batches have. The
    time and feature masks of Wav2Vec2 and its relatives, whose sizes are drawn at random, are off
    while tracing; they cost little.

    Args:
        model: on any device, the meta device included, after ``apply_strategy``. Its mode is that
            of training afterwards; its parameters are untouched.
        structure: of the model before the strategy was applied.
        inputs: arguments of the model, ``labels`` included; only shapes and dtypes are read.
        precision: of autocast; weights and gradients are float32.
        gradient_checkpointing: trained blocks keep only their input and are computed again.
        accumulating: gradients of an earlier batch are there already.
        device_type: whose kernels PyTorch chooses. For ``cuda`` a GPU must be present, else
            attention is traced unfused.

    Raises:
        UserError: the model's computation depends on values, or it has no gradient checkpointing.
    """
    set_training_mode(model, structure)
    device = torch.device(device_type)
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    recorder = _Recorder()
    with (
        _without_random_masks(model),
        checkpointing(model) if gradient_checkpointing else nullcontext(),
        fakes,
        _replaced_tensors(model, device) as parameters,
    ):
        batch = {
            name: torch.empty(value.shape, dtype=value.dtype, device=device)
            for name, value in inputs.items()
        }
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        recorder.ignore([*parameters, *model.buffers(), *batch.values()])
        for parameter in trained:
            if accumulating:
                parameter.grad = torch.empty_like(parameter)
                recorder.add_gradient(parameter)
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                recorder.add_gradient
            )
        with recorder:
            with torch.autocast(
                device_type, AUTOCAST_DTYPES.get(precision), enabled=precision != "no"
            ):
                loss: Tensor = model(**batch).loss
            saved = recorder.working_bytes
            forward_flops = recorder.flops
            loss.backward()  # type: ignore[no-untyped-call]
    return StepCost(
        saved_activation_bytes=saved,
        working_peak_bytes=recorder.working_peak,
        peak_bytes=recorder.peak,
        input_bytes=sum(value.nbytes for value in inputs.values()),
        forward_flops=forward_flops,
        backward_flops=recorder.flops - forward_flops,
        kernels=recorder.kernels,
    )


def count_kernels(action: Callable[[], object]) -> int:
    """How many operations ``action`` runs, views left out."""
    recorder = _Recorder()
    with recorder:
        action()
    return recorder.kernels.total()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
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
        raise UserError(
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
def _replaced_tensors(model: nn.Module, device: torch.device) -> Iterator[list[nn.Parameter]]:
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


@contextmanager
def _without_random_masks(model: nn.Module) -> Iterator[None]:
    config: Any = getattr(model, "config", None)
    if not getattr(config, "apply_spec_augment", False):
        yield
        return
    config.apply_spec_augment = False
    try:
        yield
    finally:
        config.apply_spec_augment = True
