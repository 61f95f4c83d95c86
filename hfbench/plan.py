"""What a training with a strategy needs: memory, traffic, time and energy, before it runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from hfbench.calibration import ADAMW_TRAFFIC, Calibration
from hfbench.config import OptimizerName, parse_strategy
from hfbench.cost import Precision, StepCost, trace_step
from hfbench.errors import NotTraceableError, UserError
from hfbench.models.structure import Structure, is_duplicate

Distribution = Literal["ddp", "fsdp", "zero1", "zero2", "zero3"]

# Reads and writes of one optimiser step in multiples of the trained parameters. Clipping reads
# the gradients for their norm, then reads and writes them.
_OPTIMIZER_TRAFFIC = {"adamw": ADAMW_TRAFFIC, "adam": ADAMW_TRAFFIC, "sgd": 3}
_CLIPPING_TRAFFIC = 3
_FLOAT32 = 4  # bytes
_HALF = 2
ASSUMED_WATTS = 100.0  # one process with its device, at work; a GPU of a data centre draws 300-700


@dataclass(frozen=True)
class Workload:
    """The training that is planned. Batches are global, as in ``TrainingConfig``."""

    batch_size: int = 32  # samples of one forward pass over all processes together
    gradient_accumulation_steps: int = 1
    precision: Precision = "no"
    optimizer: OptimizerName = "adamw"
    momentum: bool = False  # of sgd
    gradient_checkpointing: bool = False
    samples: int = 1000  # of the training set
    epochs: int = 3
    processes: int = 1
    distribution: Distribution = "ddp"  # of several processes

    def __post_init__(self) -> None:
        for key in ("batch_size", "gradient_accumulation_steps", "samples", "epochs", "processes"):
            if getattr(self, key) < 1:
                raise UserError(f"{key}={getattr(self, key)} must be a number >= 1")
        if self.batch_size < self.processes:
            raise UserError(
                f"batch_size={self.batch_size} is global and leaves nothing to some of "
                f"{self.processes} processes; raise it"
            )

    @property
    def samples_per_process(self) -> int:
        """Samples in one forward pass of the process that has most."""
        return math.ceil(self.batch_size / self.processes)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps, the last short one included."""
        return math.ceil(
            math.ceil(self.samples / self.batch_size) / self.gradient_accumulation_steps
        )


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters of a model under a strategy, as they lie in memory."""

    total: int  # each once
    parameters: int  # the same and PEFT's unused copies, which take memory too
    trained: int
    trained_tensors: int
    backward: int  # parameters from the first trained part on: where gradients pass
    largest_block: int
    outside_blocks: int
    buffer_bytes: int
    saved_bytes: int  # of the weights on disk

    @classmethod
    def of(cls, model: nn.Module, structure: Structure) -> "ModelSize":
        """Count a model on any device after ``apply_strategy``."""
        sizes = [0] * (structure.depth + 2)  # before the blocks, each block, after them
        trained = [p for p in model.parameters() if p.requires_grad]
        first = len(sizes) - 1
        total = saved = 0
        adapted = False
        for name, parameter in model.named_parameters():
            place = _place(structure, name)
            sizes[place] += parameter.numel()
            adapted |= structure.part_of(name) == "adapter"
            if parameter.requires_grad:
                first = min(first, place)
            if not is_duplicate(name):
                total += parameter.numel()
                saved += parameter.nbytes
        if adapted:
            saved = sum(parameter.nbytes for parameter in trained)
        return cls(
            total=total,
            parameters=sum(sizes),
            trained=sum(parameter.numel() for parameter in trained),
            trained_tensors=len(trained),
            backward=sum(sizes[first:]),
            largest_block=max(sizes[1:-1]),
            outside_blocks=sizes[0] + sizes[-1],
            buffer_bytes=sum(buffer.nbytes for buffer in model.buffers()),
            saved_bytes=saved,
        )


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one process. The parts do not all exist at once, so the peak is below their sum."""

    weights: int  # and buffers
    gradients: int
    optimizer: int
    activations: int  # saved by the forward pass for the backward pass
    temporary: int  # beyond them, at the worst moment
    communication: int  # gradient buckets of DDP; gathered weights of FSDP and ZeRO-3
    inputs: int
    peak: int


@dataclass(frozen=True)
class StrategyPlan:
    """One strategy's cost. Seconds and joules are None without a calibration."""

    strategy: str
    workload: Workload
    size: ModelSize
    cost: StepCost  # of one forward and backward pass on one process
    memory: MemoryPlan
    sent_bytes_per_step: int  # by each process in one optimiser step
    step_seconds: float | None
    epoch_seconds: float | None

    @property
    def training_seconds(self) -> float | None:
        """All epochs, without loading data, evaluation and saving."""
        return None if self.epoch_seconds is None else self.epoch_seconds * self.workload.epochs

    @property
    def epoch_joules(self) -> float | None:
        """At ``ASSUMED_WATTS`` for each process."""
        if self.epoch_seconds is None:
            return None
        return self.epoch_seconds * ASSUMED_WATTS * self.workload.processes


def plan_strategy(
    model: nn.Module,
    structure: Structure,
    strategy: str,
    make_inputs: Callable[[int], Mapping[str, Tensor]],
    workload: Workload,
    *,
    calibration: Calibration | None = None,
    device_type: Literal["cpu", "cuda"] = "cpu",
) -> StrategyPlan:
    """Trace one training pass and add up what the training needs.

    Args:
        model: after ``apply_strategy``, on any device (meta: no memory).
        structure: of the model before.
        strategy: the label to report.
        make_inputs: number of samples -> batch, of which only shapes and dtypes are read.
        calibration: of this machine at the workload's precision; gives the times.

    Raises NotTraceableError for qlora, and for a model whose computation depends on its data or
    fails without them.
    """
    if parse_strategy(strategy).name == "qlora":
        raise NotTraceableError(
            f"what 4-bit weights need is measured, not predicted: run {strategy}, or plan lora"
        )
    size = ModelSize.of(model, structure)
    cost = trace_step(
        model,
        structure,
        make_inputs(workload.samples_per_process),
        precision=workload.precision,
        gradient_checkpointing=workload.gradient_checkpointing,
        accumulating=workload.gradient_accumulation_steps > 1,
        device_type=device_type,
    )
    step = None if calibration is None else step_seconds(size, cost, workload, calibration)
    return StrategyPlan(
        strategy=strategy,
        workload=workload,
        size=size,
        cost=cost,
        memory=memory_plan(size, cost, workload),
        sent_bytes_per_step=sent_bytes(size, workload),
        step_seconds=step,
        epoch_seconds=None if step is None else step * workload.steps_per_epoch,
    )


def memory_plan(size: ModelSize, cost: StepCost, workload: Workload) -> MemoryPlan:
    """The memory of a process in a step after the first, when the optimiser has its state.

    Weights, gradients and AdamW's two moments are float32, also under autocast; the casts of
    autocast are among the activations. SGD has one value a parameter with
    momentum, else no state. n processes share (Rajbhandari et al. 2020, "ZeRO", section 5):

    - ddp: nothing. PyTorch's DistributedDataParallel keeps a second copy of the gradients in its
      buckets (its documentation, ``gradient_as_bucket_view``).
    - zero1: the optimiser state; zero2: gradients too; zero3: weights too. With bf16 and fp16
      DeepSpeed keeps weights and gradients in 2 bytes and a float32 copy of what trains beside
      the moments (section 3.1: 2 + 2 + 12 bytes a parameter for Adam).
    - fsdp: as zero3, with float32 shards; while gradients accumulate without being sent they are
      whole. The unit in use and the one fetched ahead, and all that lies outside the blocks, are
      gathered in 2 bytes with bf16 and fp16, else in 4; zero3 likewise.

    DeepSpeed's own communication buffers, which its configuration sets, are not included. For the
    sharded kinds the peak counts whole activations and whole gradient shares together.
    """
    count = workload.processes
    kind = workload.distribution if count > 1 else "ddp"
    half = kind.startswith("zero") and workload.precision != "no"
    element = _HALF if half else _FLOAT32
    weights = size.parameters * element
    gradients = size.trained * element
    optimizer = _optimizer_bytes(size, workload)
    if half:
        optimizer += size.trained * _FLOAT32
    communication = 0
    if kind in ("zero3", "fsdp"):
        gathered = _HALF if workload.precision != "no" else _FLOAT32
        communication = gathered * (size.outside_blocks + 2 * size.largest_block)
        weights = _share(weights, count)
    if kind != "ddp":
        optimizer = _share(optimizer, count)
    if kind in ("zero2", "zero3") or (kind == "fsdp" and workload.gradient_accumulation_steps == 1):
        gradients = _share(gradients, count)
    if kind == "ddp" and count > 1:
        communication = gradients
    weights += size.buffer_bytes
    standing = weights + optimizer + communication + cost.input_bytes
    passes = cost.peak_bytes if kind == "ddp" else gradients + cost.working_peak_bytes
    return MemoryPlan(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=cost.saved_activation_bytes,
        temporary=cost.temporary_bytes,
        communication=communication,
        inputs=cost.input_bytes,
        peak=standing + max(passes, gradients),
    )


def sent_bytes(size: ModelSize, workload: Workload) -> int:
    """What each process sends in one optimiser step.

    In a ring, reducing or gathering M bytes over n processes sends (n-1)/n M from each, and an
    all-reduce is both (Patarasu & Yuan 2009); ZeRO, section 7:

    - ddp: one all-reduce of the gradients: 2 G.
    - zero1: reduces the gradients once, gathers the new values of what trains: G + T.
    - zero2: the same, but reduces after every forward pass of an accumulation window.
    - zero3: in every forward pass gathers all weights, in the backward pass those that gradients
      pass, and reduces the gradients: with everything trained 3 times the weights.
    - fsdp: the same, but reduces the gradients once a window.
    """
    count, passes = workload.processes, workload.gradient_accumulation_steps
    kind, element = workload.distribution, _FLOAT32
    if workload.precision != "no" and kind != "ddp":
        element = _HALF
    gathers = passes * (size.parameters + size.backward)
    elements = {
        "ddp": 2 * size.trained,
        "zero1": 2 * size.trained,
        "zero2": (passes + 1) * size.trained,
        "zero3": gathers + passes * size.trained,
        "fsdp": gathers + size.trained,
    }[kind]
    return elements * element * (count - 1) // count


def step_seconds(
    size: ModelSize, cost: StepCost, workload: Workload, calibration: Calibration
) -> float:
    """One optimiser step where every process has the calibrated machine for itself.

    Sending between processes is left out: it depends on the network and overlaps in part.
    """
    assert calibration.precision == workload.precision, (calibration.precision, workload)
    trained_bytes = size.trained * _FLOAT32
    update = _OPTIMIZER_TRAFFIC[workload.optimizer] * trained_bytes
    clipping = _CLIPPING_TRAFFIC * trained_bytes
    return (
        workload.gradient_accumulation_steps * calibration.seconds(cost.kernels)
        + update / calibration.optimizer_bytes_per_second
        + clipping / calibration.copy_bytes_per_second
    )


def fits(
    plan: Callable[[Workload], StrategyPlan],
    workload: Workload,
    *,
    memory_bytes: int | None = None,
    minutes: float | None = None,
    checkpointing: bool = True,
) -> list[StrategyPlan]:
    """The ways in which one strategy trains within memory and time, the fastest first.

    A step always has the workload's ``batch_size × gradient_accumulation_steps`` samples. Tried
    are halves of it as the batch of one forward pass, with and without gradient checkpointing;
    the largest batch that fits is kept of each, since smaller ones are only slower. Checkpointing
    is kept only where it allows a larger batch, because it computes the blocks twice. None sets no
    limit. ``checkpointing`` says whether the model can.
    """
    found: list[StrategyPlan] = []
    for checkpointed in (False, True) if checkpointing else (False,):
        for batch_size in _batch_sizes(workload):
            if found and batch_size <= found[0].workload.batch_size:
                break
            candidate = plan(
                replace(
                    workload,
                    batch_size=batch_size,
                    gradient_accumulation_steps=_step_samples(workload) // batch_size,
                    gradient_checkpointing=checkpointed,
                )
            )
            if memory_bytes is None or candidate.memory.peak <= memory_bytes:
                found.append(candidate)
                break
    return [
        candidate
        for candidate in found
        if minutes is None
        or candidate.training_seconds is None
        or candidate.training_seconds <= 60 * minutes
    ]


def best_first(plans: Sequence[StrategyPlan]) -> list[StrategyPlan]:
    """Most trained parameters first, then the fewest seconds or operations.

    A plan knows costs, not quality. Among what fits, training more is the better guess; which is
    really better only runs tell.
    """

    def rank(plan: StrategyPlan) -> tuple[int, float]:
        work = plan.workload.gradient_accumulation_steps * plan.cost.flops
        return -plan.size.trained, work if plan.step_seconds is None else plan.step_seconds

    return sorted(plans, key=rank)


def _step_samples(workload: Workload) -> int:
    return workload.batch_size * workload.gradient_accumulation_steps


def _batch_sizes(workload: Workload) -> list[int]:
    """The step's samples, a half, a quarter ... as long as they divide evenly."""
    size = _step_samples(workload)
    sizes = [size]
    while size % 2 == 0 and size // 2 >= workload.processes:
        size //= 2
        sizes.append(size)
    return sizes


def _optimizer_bytes(size: ModelSize, workload: Workload) -> int:
    if workload.optimizer == "sgd":
        return size.trained * _FLOAT32 if workload.momentum else 0
    return 2 * size.trained * _FLOAT32 + size.trained_tensors * _FLOAT32  # moments, step counts


def _share(size_bytes: int, count: int) -> int:
    return math.ceil(size_bytes / count)


def _place(structure: Structure, name: str) -> int:
    """0 before the blocks, 1 to depth in them, depth + 1 after them."""
    part = structure.place_of(name)
    if part.startswith("block "):
        return int(part.split()[1]) + 1
    return 0 if part == "embeddings" else structure.depth + 1
