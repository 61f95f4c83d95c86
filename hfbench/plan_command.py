"""``hfbench plan``: what each strategy would cost, from the checkpoint's configuration alone."""

import argparse
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from hfbench.config import OptimizerName, StrategyConfig
from hfbench.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from hfbench.calibration import Calibration
    from hfbench.models.meta import Head
    from hfbench.plan import StrategyPlan, Workload

# What decides the memory of a batch beside the network: options and their defaults.
BATCH_DEFAULTS: Mapping[str, Any] = {
    "batch_size": 32,
    "max_length": 128,
    "max_seconds": 1.0,
    "precision": "no",
}
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
        "--strategies",
        metavar="LIST",
        help="separated by commas, such as full,last_2,first_2,lora:r=8,bitfit,head (default: what "
        "suits the network)",
    )
    add_batch_arguments(parser)
    parser.set_defaults(**BATCH_DEFAULTS)
    parser.add_argument("--gradient-accumulation-steps", type=int, default=1, metavar="N")
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="default: the checkpoint's"
    )
    parser.add_argument("--optimizer", choices=get_args(OptimizerName), default="adamw")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument(
        "--samples", type=int, metavar="N", help="to train on, for times (default 1000)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="for times (default 3)")
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


def add_batch_arguments(parser: argparse._ActionsContainer) -> None:
    """Options for ``BATCH_DEFAULTS``; the caller sets the defaults."""
    parser.add_argument("--batch-size", type=int, metavar="N", help="global")
    parser.add_argument("--max-length", type=int, metavar="TOKENS")
    parser.add_argument("--max-seconds", type=float, help="of audio at 16 kHz")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"))


def plan(options: argparse.Namespace, strategies: Sequence[StrategyConfig] | None) -> str:
    """The report that the options ask for; of the strategies that suit the network, if None.

    Raises UserError for options that nothing would come of.
    """
    _settle_times(options)
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
        calibration = calibrate(options.precision, device_type=device_type())
    plans = [
        plan
        for strategy in strategies or _default_strategies(options)
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


def _settle_times(options: argparse.Namespace) -> None:
    """Defaults of what times go by, and a UserError where it is given and no time is asked for."""
    timed = options.calibrate or options.minutes is not None or options.format == "json"
    for name, default in (("samples", 1000), ("epochs", 3)):
        given = getattr(options, name)
        if given is not None and not timed:
            raise UserError(f"--{name} {given} is for times: add --calibrate or --minutes")
        setattr(options, name, default if given is None else given)


def _default_strategies(options: argparse.Namespace) -> list[StrategyConfig]:
    """What suits the network, and the first blocks beside the last: they cost more."""
    from hfbench.models.meta import new_parameters
    from hfbench.models.structure import find_structure
    from hfbench.params import suitable_strategies

    network, head = _build_network(options)
    structure = find_structure(network)
    new = new_parameters(network, structure, head)
    suitable = {s.name: s for s in suitable_strategies(network, structure, new)}
    if suitable["last_n"].n != structure.depth:
        suitable["first_n"] = StrategyConfig("first_n", n=suitable["last_n"].n)
    names = ("full", "last_n", "first_n", "lora", "bitfit", "head")
    return [suitable[name] for name in names if name in suitable]


def _plans_of_strategy(
    options: argparse.Namespace,
    strategy: StrategyConfig,
    workload: "Workload",
    calibration: "Calibration | None",
) -> "list[StrategyPlan]":
    """One plan; with limits those that keep them."""
    from hfbench.models.checkpointing import can_checkpoint
    from hfbench.plan import fits

    plan_of, model = planner(options, strategy, calibration)
    if options.memory is None and options.minutes is None:
        return [plan_of(workload)]
    return fits(
        plan_of,
        workload,
        memory_bytes=options.memory,
        minutes=options.minutes,
        checkpointing=can_checkpoint(model),
    )


def planner(
    options: argparse.Namespace,
    strategy: StrategyConfig,
    calibration: "Calibration | None" = None,
) -> "tuple[Callable[[Workload], StrategyPlan], nn.Module]":
    """How one strategy is planned, and the model under it.

    Of ``options`` it reads checkpoint, task, num_labels, image_size, max_length and max_seconds.
    Raises UserError for an unknown checkpoint or task and for a strategy that does not suit it;
    the function that it returns raises it for a batch that the model cannot take.
    """
    from hfbench.models.inputs import meta_batch
    from hfbench.models.meta import new_parameters
    from hfbench.models.structure import find_structure
    from hfbench.plan import plan_strategy
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
                network,
                samples,
                max_length=options.max_length,
                max_seconds=options.max_seconds,
                token_labels=head.num_labels is None,
            ),
            workload,
            calibration=calibration,
            device_type=device_type(),
        )

    return plan_of, model


def _build_network(options: argparse.Namespace) -> "tuple[nn.Module, Head]":
    """The network of the task on the meta device."""
    from hfbench.models.configuration import find_configuration
    from hfbench.models.meta import build_network, choose_head, with_image_size, with_loss

    configuration = with_loss(find_configuration(options.checkpoint))
    head = choose_head(configuration, options.task, options.num_labels)
    changes: dict[str, Any] = {}
    if head.num_labels is not None:
        # As in training; DeBERTa would otherwise ask which labels are negative, and none exist.
        changes["problem_type"] = "single_label_classification"
    if options.image_size is not None:
        configuration = with_image_size(configuration, options.image_size)
    if head.task == "text_classification" and configuration.values.get("pad_token_id") is None:
        changes["pad_token_id"] = 0  # GPT-2 gets one from its tokenizer; any will do here
    changed = dataclasses.replace(configuration, values=configuration.values | changes)
    network: Any = build_network(changed, head)
    if head.num_labels is None:
        network.loss_type = "ForCausalLM"  # GPT-2's class has another name; it would warn
    return network, head


def parse_bytes(text: str) -> int:
    """``8GiB``, ``500MB`` or ``16 GB`` in bytes.

    Raises argparse.ArgumentTypeError for other texts.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text, re.IGNORECASE)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 8GiB or 500MB")
    return int(float(match[1]) * unit)


def device_type() -> Any:
    """``cuda`` where a GPU is present, else ``cpu``: whose kernels a plan is made of."""
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
