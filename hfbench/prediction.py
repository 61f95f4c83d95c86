"""What a prepared run is going to need, traced on its own model and batches before it trains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from hfbench.calibration import Calibration, calibrate
from hfbench.config import RunConfig
from hfbench.cost import Precision
from hfbench.errors import measuring
from hfbench.plan import StrategyPlan, Workload, plan_strategy
from hfbench.preparation import Prepared
from hfbench.results import Prediction
from hfbench.training import memory
from hfbench.training.batching import Share, epoch_batches, load_batches, split_batches
from hfbench.training.prefix.samples import without_stored


@dataclass(frozen=True)
class RunPlan:
    """The plan of exactly one run; texts are padded to the longest of their batch.

    Attributes:
        typical: for a batch of mean length, which time and operations go by.
        widest: for the longest batch of the first epoch, which memory goes by.
    """

    typical: StrategyPlan
    widest: StrategyPlan
    calibration: Calibration


def plan_run(config: RunConfig, prepared: Prepared, accelerator: Accelerator) -> RunPlan:
    """Measure the machine for a second, then trace two of the run's own batches.

    The model keeps its parameters; its mode is that of training afterwards.

    Raises NotMeasuredError whatever of it fails; NotTraceableError for a model whose computation
    depends on its data.
    """
    with measuring("the cost of this training cannot be estimated"):
        return _plan_run(config, prepared, accelerator)


def _plan_run(config: RunConfig, prepared: Prepared, accelerator: Accelerator) -> RunPlan:
    workload = workload_of(
        config,
        len(prepared.data.train),
        accelerator.num_processes,
        accelerator.mixed_precision,  # the configuration may leave it to a measurement
    )
    device_type: Literal["cpu", "cuda"] = "cuda" if accelerator.device.type == "cuda" else "cpu"
    calibration = calibrate(workload.precision, device_type=device_type)

    def plan(share: Share) -> StrategyPlan:
        return plan_strategy(
            prepared.model,
            prepared.structure,
            config.strategy.label,
            _inputs(prepared, share),
            workload,
            calibration=calibration,
            device_type=device_type,
        )

    typical, widest = _typical_and_widest(config, prepared, accelerator)
    of_typical = plan(typical)
    return RunPlan(of_typical, of_typical if widest == typical else plan(widest), calibration)


def workload_of(config: RunConfig, samples: int, processes: int, precision: Precision) -> Workload:
    """The training of a configuration, as plans describe it."""
    training = config.training
    return Workload(
        # A process for which nothing is left reads one sample all the same.
        batch_size=max(training.batch_size, processes),
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        precision=precision,
        optimizer=training.optimizer,
        momentum=training.momentum > 0,
        gradient_checkpointing=training.gradient_checkpointing,
        samples=samples,
        epochs=training.epochs,
        processes=processes,
    )


def training_steps(config: RunConfig, workload: Workload) -> int:
    """Optimiser steps of the whole training, unless it stops early."""
    steps = workload.epochs * workload.steps_per_epoch
    most = config.training.max_steps
    return steps if most is None else min(steps, most)


def predict(plan: RunPlan, accelerator: Accelerator) -> Prediction:
    """What goes into the result. Call it right before the training: it reads the memory in use.

    On a CPU the measured peak is the resident size of the process, so the predicted one is what is
    resident now (libraries, data, weights) and what the training adds to it.
    """
    workload, widest = plan.typical.workload, plan.widest.memory
    peak: int | None = widest.peak
    if accelerator.device.type != "cuda":
        resident = memory.present_bytes(accelerator.device)
        peak = None if resident is None else resident + widest.peak - widest.weights
    assert plan.typical.step_seconds is not None  # there is a calibration
    passes = workload.gradient_accumulation_steps * workload.processes
    return Prediction(
        step_flops=plan.typical.cost.flops * passes,
        step_seconds=plan.typical.step_seconds,
        peak_memory_bytes=peak,
        matmul_flops_per_second=plan.calibration.matmul_flops_per_second,
    )


def _typical_and_widest(
    config: RunConfig, prepared: Prepared, accelerator: Accelerator
) -> tuple[Share, Share]:
    """This process's share of a batch of mean and of greatest length in the first epoch."""
    lengths = prepared.task.sample_lengths(without_stored(prepared.data.train))
    batches = epoch_batches(
        len(prepared.data.train),
        config.training.batch_size,
        seed=config.seed,
        epoch=0,
        lengths=lengths if config.training.group_by_length else None,
    )
    shares = split_batches(
        batches, rank=accelerator.process_index, num_processes=accelerator.num_processes
    )
    if lengths is None:
        return shares[0], shares[0]
    if prepared.task.equal_lengths:  # a step is as long as of one batch of its longest sample
        longest = [max(share.indices, key=lengths.__getitem__) for share in shares]
        shares = [
            replace(share, indices=(one,) * len(share.indices))
            for share, one in zip(shares, longest, strict=True)
        ]
    whole = [share for share in shares if len(share.indices) == len(shares[0].indices)]
    widths = [_width(share, lengths) for share in whole]
    mean = sum(widths) / len(widths)  # what a sum over batches goes by; the median may be far off
    typical = min(range(len(whole)), key=lambda index: abs(widths[index] - mean))
    return whole[typical], whole[widths.index(max(widths))]


def _width(share: Share, lengths: Sequence[int]) -> int:
    return max(lengths[index] for index in share.indices)


def _inputs(prepared: Prepared, share: Share) -> Callable[[int], dict[str, Tensor]]:
    batches = load_batches(
        prepared.data.train, [share], prepared.task.collate, device=torch.device("cpu")
    )
    batch = next(batches)
    return lambda samples: batch
