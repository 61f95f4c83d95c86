"""``hfbench plan``: what each strategy would cost, from the checkpoint's configuration alone."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hfbench.config import StrategyConfig
from hfbench.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from hfbench.calibration import Calibration
    from hfbench.models.meta import Head
    from hfbench.plan import StrategyPlan, Workload

DEFAULT_STRATEGIES = "full,last_2,first_2,lora,bitfit,head"
_UNITS = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


def add_plan_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the subcommand; the caller sets what it runs. Does not import torch."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "plan",
        help="memory, operations and time of every strategy before anything is trained",
        description="Traces the network without its weights. With --memory or --minutes: which "
        "strategies, batch sizes, accumulation and gradient checkpointing fit, best first.",
    )
    parser.add_argument("checkpoint", help="hub name, folder, config.json or bundled/<name>")
    parser.add_argument("--task", help="default: what the architecture fits")
    parser.add_argument("--num-labels", type=int, metavar="N", help="default: its own, else 2")
    parser.add_argument(
        "--strategies", default=DEFAULT_STRATEGIES, help="separated by commas (default %(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="global")
    parser.add_argument("--gradient-accumulation-steps", type=int, default=1, metavar="N")
    parser.add_argument("--max-length", type=int, default=128, metavar="TOKENS")
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="default: the checkpoint's"
    )
    parser.add_argument("--max-seconds", type=float, default=1.0, help="of audio at 16 kHz")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no")
    parser.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="to train on")
    parser.add_argument("--epochs", type=int, default=3, metavar="N")
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument(
        "--distribution", choices=("ddp", "fsdp", "zero1", "zero2", "zero3"), default="ddp"
    )
    parser.add_argument("--memory", type=parse_bytes, metavar="SIZE", help="of a process: 8GiB")
    parser.add_argument("--minutes", type=float, help="for the whole training; implies --calibrate")
    parser.add_argument(
        "--calibrate", action="store_true", help="measure this machine and predict times"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    return parser


def plan(options: argparse.Namespace, strategies: Sequence[StrategyConfig]) -> str:
    """The report that the options ask for."""
    from hfbench.calibration import calibrate
    from hfbench.plan import Workload, best_first
    from hfbench.report.plans import format_fits, format_plans, plans_as_json

    workload = Workload(
        batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        precision=options.precision,
        optimizer=options.optimizer,
        gradient_checkpointing=options.gradient_checkpointing,
        samples=options.samples,
        epochs=options.epochs,
        processes=options.processes,
        distribution=options.distribution,
    )
    calibration = None
    if options.calibrate or options.minutes is not None:
        calibration = calibrate(options.precision, device_type=_device_type())
    plans = [
        plan
        for strategy in strategies
        for plan in _plans_of_strategy(options, strategy, workload, calibration)
    ]
    limited = options.memory is not None or options.minutes is not None
    if limited:
        plans = best_first(plans)
    notes = _notes(workload, calibration, limited=limited)
    if options.format == "json":
        return plans_as_json(
            plans, checkpoint=options.checkpoint, calibration=calibration, notes=notes
        )
    if limited:
        return format_fits(
            plans, checkpoint=options.checkpoint, limits=_limits(options), notes=notes
        )
    return format_plans(plans, checkpoint=options.checkpoint, notes=notes)


def _plans_of_strategy(
    options: argparse.Namespace,
    strategy: StrategyConfig,
    workload: "Workload",
    calibration: "Calibration | None",
) -> "list[StrategyPlan]":
    """One plan; with limits those that keep them."""
    from hfbench.models.checkpointing import can_checkpoint
    from hfbench.models.inputs import meta_batch
    from hfbench.models.meta import new_parameters
    from hfbench.models.structure import find_structure
    from hfbench.plan import fits, plan_strategy
    from hfbench.strategies import apply_strategy

    network, head = _build_network(options)
    structure = find_structure(network)
    new = new_parameters(network, structure, head)
    model = apply_strategy(network, structure, strategy, new)

    def plan_of(workload: "Workload") -> "StrategyPlan":
        return plan_strategy(
            model,
            structure,
            strategy.label,
            lambda samples: meta_batch(
                network, samples, max_length=options.max_length, max_seconds=options.max_seconds
            ),
            workload,
            calibration=calibration,
            device_type=_device_type(),
        )

    if options.memory is None and options.minutes is None:
        return [plan_of(workload)]
    return fits(
        plan_of,
        workload,
        memory_bytes=options.memory,
        minutes=options.minutes,
        checkpointing=can_checkpoint(model),
    )


def _build_network(options: argparse.Namespace) -> "tuple[nn.Module, Head]":
    """The network of the task on the meta device."""
    from hfbench.models.configuration import find_configuration
    from hfbench.models.meta import build_network, choose_head

    configuration = find_configuration(options.checkpoint)
    if configuration.library == "timm":
        raise UserError(
            f"{options.checkpoint!r} is a timm model, which computes no loss to trace; plan a "
            "checkpoint of transformers, such as google/vit-base-patch16-224"
        )
    head = choose_head(configuration, options.task, options.num_labels)
    if head.num_labels is None:
        raise UserError("hfbench plan knows classification only: leave --task causal_lm out")
    changes: dict[str, Any] = {}
    if options.image_size is not None:
        changes["image_size"] = options.image_size
    if head.task == "text_classification" and configuration.values.get("pad_token_id") is None:
        changes["pad_token_id"] = 0  # GPT-2 gets one from its tokenizer; any will do here
    changed = dataclasses.replace(configuration, values=configuration.values | changes)
    return build_network(changed, head), head


def parse_bytes(text: str) -> int:
    """``8GiB``, ``500MB`` or ``16 GB`` in bytes.

    Raises argparse.ArgumentTypeError for other texts.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text, re.IGNORECASE)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 8GiB or 500MB")
    return int(float(match[1]) * unit)


def _device_type() -> Any:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _limits(options: argparse.Namespace) -> str:
    limits = []
    if options.memory is not None:
        limits.append(f"{options.memory / 2**30:.3g} GiB")
    if options.minutes is not None:
        limits.append(f"{options.minutes:g} minutes")
    return " and ".join(limits)


def _notes(workload: "Workload", calibration: "Calibration | None", *, limited: bool) -> list[str]:
    from hfbench.plan import ASSUMED_WATTS

    place = (
        "one process"
        if workload.processes == 1
        else (f"each of {workload.processes} processes ({workload.distribution})")
    )
    notes = [
        f"Memory and operations of {place}, {workload.samples_per_process} samples a forward pass, "
        f"{workload.optimizer}, precision {workload.precision}"
        f"{', with gradient checkpointing' if workload.gradient_checkpointing else ''}. Saved "
        "activations go while gradients come, so the peak is below the sum of the columns. The "
        "libraries and the GPU's context take more: 0.3 to 1 GiB."
    ]
    if limited:
        notes = [
            "Most trained parameters first: a plan knows costs, not quality. Each row takes "
            f"{workload.batch_size * workload.gradient_accumulation_steps} samples a step "
            f"({workload.optimizer}, precision {workload.precision}) on {place}."
        ]
    if calibration is not None:
        notes.append(
            f"Times: {workload.steps_per_epoch} steps an epoch on {calibration.device} with "
            f"{calibration.threads} threads, {calibration.matmul_flops_per_second / 1e9:,.0f} "
            "GFLOP/s measured in a matrix product; without loading data, evaluation and sending "
            f"between processes. Energy: an assumed {ASSUMED_WATTS:g} W for each process."
        )
    return notes
