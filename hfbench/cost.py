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

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from hfbench.errors import NotTraceableError, measuring
from hfbench.models.checkpointing import gradient_checkpointing as checkpointing
from hfbench.models.structure import Structure
from hfbench.recorder import Kernel, Recorder, failing_quietly, replaced_tensors
from hfbench.strategies import set_training_mode

Precision = Literal["no", "bf16", "fp16"]

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    while tracing; they cost little. CTC's loss reads lengths, which are values: its log-softmax is
    traced and its sums over alignments, a few numbers a frame and token, are not.

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
        NotTraceableError: the model's computation depends on values, or fails without them.
        UserError: it has no gradient checkpointing.
    """
    set_training_mode(model, structure)
    device = torch.device(device_type)
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    recorder = Recorder()
    with (
        _traced(model),
        _without_random_masks(model),
        _without_alignments(model),
        checkpointing(model) if gradient_checkpointing else nullcontext(),
        fakes,
        replaced_tensors(model, device) as parameters,
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


@dataclass(frozen=True)
class ModuleCall:
    """One run of one module in a forward pass."""

    name: str
    own_flops: int  # without those of watched modules inside it
    output_shape: tuple[int, ...]  # of its first output


def trace_modules(
    model: nn.Module, inputs: Mapping[str, Tensor], watched: Mapping[str, nn.Module]
) -> list[ModuleCall]:
    """Trace a forward pass in eval mode; the runs of ``watched`` modules as they finish.

    Otherwise as :func:`trace_step`, on the CPU. ``watched`` has any names for modules of the model.

    Raises NotTraceableError if the model's computation depends on values, or fails without them.
    """
    model.eval()
    device = torch.device("cpu")
    recorder = Recorder()
    calls: list[ModuleCall] = []
    open_calls: list[tuple[int, int]] = []  # FLOPs at the start; those of finished inner calls

    def start(module: nn.Module, args: Any) -> None:
        open_calls.append((recorder.flops, 0))

    def finish(name: str, module: nn.Module, args: Any, output: Any) -> None:
        before, inner = open_calls.pop()
        flops = recorder.flops - before
        if open_calls:
            outer_before, outer_inner = open_calls[-1]
            open_calls[-1] = (outer_before, outer_inner + flops)
        tensor = next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        calls.append(ModuleCall(name, flops - inner, tuple(tensor.shape)))

    with ExitStack() as stack:
        stack.enter_context(_traced(model))
        for name, module in watched.items():
            for handle in (
                module.register_forward_pre_hook(start),
                module.register_forward_hook(partial(finish, name)),
            ):
                stack.callback(handle.remove)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(replaced_tensors(model, device))
        batch = {n: torch.empty(v.shape, dtype=v.dtype, device=device) for n, v in inputs.items()}
        stack.enter_context(recorder)
        model(**batch)
    return calls


@contextmanager
def _traced(model: nn.Module) -> Iterator[None]:
    """Within, whatever ends a trace becomes a NotTraceableError: no code of a model foresaw one."""
    message = f"the cost of {type(model).__name__} cannot be traced without its data"
    with failing_quietly(), measuring(message, NotTraceableError):
        yield


@contextmanager
def _without_alignments(model: nn.Module) -> Iterator[None]:
    # By the module's own attribute: PEFT's wrappers hand on those of the model inside.
    losses: list[Any] = [m for m in model.modules() if vars(m).get("loss_type") == "ForCTC"]
    for module in losses:
        module.loss_function = _ctc_like_loss
    try:
        yield
    finally:
        for module in losses:
            del module._loss_function


def _ctc_like_loss(logits: Tensor, **rest: Any) -> Tensor:
    return -nn.functional.log_softmax(logits, dim=-1, dtype=torch.float32).mean()


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
