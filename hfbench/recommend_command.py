"""``hfbench recommend``: which checkpoint of the catalogue to start from."""

import argparse
import re
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfbench.answers import cached
from hfbench.config import StrategyConfig, parse_strategy
from hfbench.errors import UserError
from hfbench.models.catalogue import CATALOGUE
from hfbench.models.pretraining import TaskName
from hfbench.plan_command import (
    BATCH_DEFAULTS,
    add_batch_arguments,
    device_type,
    parse_bytes,
    planner,
)

if TYPE_CHECKING:
    from hfbench.recommend import TrainingLimit

DEFAULT_STRATEGY = "full"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def add_recommend_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the subcommand; the caller sets what it runs. Does not import torch."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "recommend",
        help="which pretrained checkpoint to start from: task, size, pre-training",
        description="Chooses among well-known checkpoints by three criteria: the task, a limit of "
        "size, and what they were pre-trained on. Says why each stands where it stands.",
    )
    parser.add_argument("--task", required=True, choices=typing.get_args(TaskName))
    parser.add_argument("--num-labels", type=int, metavar="N", help="of the head (default 2)")
    parser.add_argument(
        "--max-parameters", type=parse_parameters, metavar="N", help="with the head: 120M, 1.5B"
    )
    parser.add_argument(
        "--memory", type=parse_bytes, metavar="SIZE", help="in which training must fit: 8GiB"
    )
    parser.add_argument(
        "--pretrained-on",
        metavar="WORDS",
        help="that the pre-training must have, each of them: multilingual, chinese, speech, "
        "imagenet-21k",
    )
    parser.add_argument(
        "--limit", type=int, default=5, metavar="N", help="print the first N (default %(default)s)"
    )
    parser.add_argument("--format", choices=("table", "markdown", "json"), default="table")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    memory = parser.add_argument_group("what must fit into --memory")
    memory.add_argument("--strategy", help=f"as in hfbench plan (default {DEFAULT_STRATEGY})")
    add_batch_arguments(memory)
    return parser


def recommend_text(options: argparse.Namespace) -> str:
    """The recommendation that the options ask for."""
    from hfbench.models.configuration import DEFAULT_LABELS
    from hfbench.recommend import Limits, recommend
    from hfbench.report.recommendations import format_recommendation

    if options.limit < 1:
        raise UserError(f"--limit {options.limit} must be a number >= 1")
    if options.num_labels is None and options.task not in ("causal_lm", "speech_recognition"):
        options.num_labels = DEFAULT_LABELS
    found = recommend(
        options.task,
        options.num_labels,
        Limits(options.pretrained_on, options.max_parameters, _training_limit(options)),
    )
    return format_recommendation(found, options.format, limit=options.limit)


def _training_limit(options: argparse.Namespace) -> "TrainingLimit | None":
    from hfbench.recommend import TrainingLimit

    given = {name: getattr(options, name) for name in ("strategy", *BATCH_DEFAULTS)}
    given = {name: value for name, value in given.items() if value is not None}
    if options.memory is None:
        if given:
            raise UserError(f"--{next(iter(given)).replace('_', '-')} belongs to --memory SIZE")
        return None
    strategy = parse_strategy(given.pop("strategy", DEFAULT_STRATEGY))
    batch = {**BATCH_DEFAULTS, **given}
    return TrainingLimit(
        options.memory,
        f"{strategy.label}, batches of {batch['batch_size']}",
        lambda name: _peak_bytes(name, options.task, options.num_labels, strategy, batch),
    )


def _peak_bytes(
    name: str,
    task: str,
    num_labels: int | None,
    strategy: StrategyConfig,
    batch: Mapping[str, Any],
) -> int | str:
    """What ``hfbench plan`` says of the checkpoint, kept like a count."""
    question = {
        "peak_of": CATALOGUE[name],
        "task": task,
        "num_labels": num_labels,
        "strategy": strategy.full_label,
        "batch": batch,
        "device": device_type(),
    }

    def trace() -> int | str:
        from hfbench.plan import Workload

        workload = Workload(batch_size=batch["batch_size"], precision=batch["precision"])
        options = argparse.Namespace(
            checkpoint=name, task=task, num_labels=num_labels, image_size=None, **batch
        )
        try:
            plan_of, _ = planner(options, strategy)
            peak: int = plan_of(workload).memory.peak
        except UserError as error:  # the strategy or the batch does not suit this network
            return str(error)
        return peak

    answer: int | str = cached(question, trace, to_json=lambda peak: peak, from_json=_int_or_text)
    return answer


def _int_or_text(value: Any) -> int | str:
    if not isinstance(value, int | str):
        raise TypeError(f"{value!r} is neither a size nor a reason")
    return value


def parse_parameters(text: str) -> int:
    """``120M``, ``1.5B``, ``66k`` or ``109,483,778`` as a number.

    Raises argparse.ArgumentTypeError for other texts.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmb]?)\s*", text.replace(",", ""), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of parameters like 120M or 1.5B"
        )
    return round(float(match[1]) * _UNITS[match[2].upper()])
