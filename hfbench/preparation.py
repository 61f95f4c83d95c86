"""From a configuration to everything that is ready before the first training step."""

from dataclasses import dataclass

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from hfbench.config import RunConfig
from hfbench.data.splits import describe as describe_data
from hfbench.errors import UserError
from hfbench.models.structure import Structure, find_structure
from hfbench.parameters import count_parameters
from hfbench.record import run_folder
from hfbench.report.tables import format_parameters
from hfbench.results import ParameterReport
from hfbench.strategies import apply_strategy, learning_rate_factor
from hfbench.tasks.base import Task, TaskData
from hfbench.training.optimizer import LearningRates
from hfbench.training.threads import choose_threads


@dataclass(frozen=True)
class Prepared:
    """Everything that is ready before the first training step."""

    task: Task
    data: TaskData
    model: nn.Module
    structure: Structure
    parameters: ParameterReport


def make_accelerator(config: RunConfig) -> Accelerator:
    """The Accelerator of a run: its precision and tracker are the configuration's.

    Raises UserError for a precision that the device cannot do and a tracker not installed.
    """
    tracked = config.tracker != "none"
    precision = config.training.mixed_precision
    accelerator = Accelerator(
        mixed_precision=precision,
        log_with=config.tracker if tracked else None,
        project_dir=str(run_folder(config)) if tracked else None,
    )
    if precision != "no" and not accelerator.native_amp:
        raise UserError(
            f"training.mixed_precision={precision} does not work on {accelerator.device.type}: "
            "choose bf16 or no"
        )
    if tracked and not accelerator.log_with:  # Accelerate leaves out what is not installed
        raise UserError(
            f"tracker={config.tracker} is not installed: pip install {config.tracker}, or choose "
            "tracker=none"
        )
    return accelerator


def settle_threads(task: Task, accelerator: Accelerator) -> int | None:
    """Choose the processor's threads for one CPU process; None where others have that say."""
    if accelerator.device.type != "cpu" or accelerator.num_processes > 1:
        return None
    return choose_threads(task.thread_probe())


def prepare(config: RunConfig, task: Task, accelerator: Accelerator) -> Prepared:
    """Data, model, structure, strategy and exact counts, in this order."""
    with accelerator.main_process_first():
        data = task.prepare_data()
        set_seed(config.seed)  # the new head's values
        built = task.build_model(data)
    structure = find_structure(built.model)
    model = apply_strategy(built.model, structure, config.strategy, built.new_parameters)
    return Prepared(task, data, model, structure, count_parameters(model, structure))


def describe(config: RunConfig, prepared: Prepared) -> str:
    """The data, the learning rates and the parameter report, printed before training."""
    rates = learning_rates(config)
    factor = learning_rate_factor(config.strategy)
    lines = [
        f"\n{config.task}: {config.start} on {config.data.label}, "
        f"strategy {config.strategy.label}, seed {config.seed}",
        describe_data(prepared.data.summary),
        f"learning rate {rates.rest:g} = {config.training.learning_rate:g} × {factor:g}, "
        f"head {rates.head:g}",
        "",
        format_parameters(
            prepared.parameters,
            checkpoint=config.start,
            strategy=config.strategy.label,
        ),
    ]
    return "\n".join(lines)


def learning_rates(config: RunConfig) -> LearningRates:
    """The configured rate of full fine-tuning times the strategy's factor.

    The head has its own rate only beside pretrained parameters: from scratch everything is new.
    """
    rest = config.training.learning_rate * learning_rate_factor(config.strategy)
    own = None if config.strategy.name == "scratch" else config.training.head_learning_rate
    return LearningRates(rest=rest, head=own or rest)
