"""From a configuration to everything that is ready before the first training step."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from hfbench.config import RunConfig, StrategyConfig
from hfbench.data.splits import describe as describe_data
from hfbench.errors import NotMeasuredError, UserError, measuring
from hfbench.first_batch import check_first_batch
from hfbench.models.configuration import DEFAULT_LABELS
from hfbench.models.loading import load_config
from hfbench.models.meta import Head, new_parameters
from hfbench.models.sparse_attention import settle_sparse_attention
from hfbench.models.structure import Structure, find_structure
from hfbench.parameters import count_parameters
from hfbench.quantization import block_linears, quantize, require_bitsandbytes
from hfbench.record import run_folder
from hfbench.report.tables import format_parameters
from hfbench.report.weights import weights_lines
from hfbench.results import ParameterReport, WeightsRecord
from hfbench.status import working
from hfbench.strategies import (
    apply_strategy,
    check_epochs,
    layer_decay,
    learning_rate_factor,
)
from hfbench.tasks import make_task
from hfbench.tasks.base import Task, TaskData
from hfbench.training.batching import epoch_batches, padding_share
from hfbench.training.company import main_first, process_state, told_by_main
from hfbench.training.losses import OwnLoss
from hfbench.training.optimizer import LearningRates
from hfbench.training.precision import (
    Block,
    PrecisionChoice,
    choose_for_block,
    choose_precision,
)
from hfbench.training.rounds import measured_for_all
from hfbench.training.standardised import NotFoldedError, Standardised, standardise
from hfbench.training.threads import choose_threads


@dataclass(frozen=True)
class Prepared:
    """Everything that is ready before the first training step."""

    task: Task
    data: TaskData
    model: nn.Module
    structure: Structure
    parameters: ParameterReport
    new_parameters: frozenset[str]  # that no checkpoint gave
    weights: WeightsRecord | None  # of the checkpoint; None where it gave none
    standardised: Standardised | None = None  # of numbers: what is to be folded before saving


def make_accelerator(config: RunConfig, kept_precision: str | None = None) -> Accelerator:
    """The Accelerator of a run: its precision and tracker are the configuration's.

    A precision that is left to this machine is that of a run that goes on (``kept_precision``), or
    is chosen now, and said: Accelerate keeps one for the whole process.

    Raises UserError for a precision that the device cannot do and a tracker not installed.
    """
    tracked = config.tracker != "none"
    precision: str = config.training.mixed_precision
    if precision == "auto" and kept_precision is not None:
        precision = kept_precision
    elif precision == "auto":
        try:
            with working("measuring which precision is the fastest"):
                choice = measure_precision(config)
        except NotMeasuredError as error:
            precision, said = "no", f"no (float32), {error}"
        else:
            precision, said = choice.precision, str(choice)
        process_state().print(f"precision: {said}")
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


def measure_precision(config: RunConfig) -> PrecisionChoice:
    """Which precision is faster for such a network; the main process measures for all.

    Raises NotMeasuredError where the measurement fails.
    """
    state = process_state()
    measure = _precision_measurement(config, state.device)
    return measured_for_all(measure, is_main=state.is_main_process)


def _precision_measurement(
    config: RunConfig, device: torch.device
) -> Callable[[], PrecisionChoice]:
    """Of a block as wide as the checkpoint's, or of a step of a network from scratch.

    Raises UserError for a checkpoint that cannot be read, on every process alike.
    """
    if config.network is None:
        block = block_of(load_config(config.model))
        return lambda: choose_for_block(device, block)
    sizes = asdict(config.network) | {"batch_size": config.training.batch_size}
    return lambda: choose_precision(
        device, "step", sizes, lambda: _step_probe(make_task(config), device)
    )


def _step_probe(task: Task, device: torch.device) -> Callable[[], object]:
    probe = task.step_probe(device)
    assert probe is not None, f"{task.name} has a network of its own"
    return probe


def block_of(config: Any) -> Block:
    """The sizes of a network's blocks by its configuration, where that tells them."""
    usual = Block()
    hidden, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
    if not isinstance(hidden, int) or not isinstance(heads, int) or hidden % heads:
        return usual
    intermediate = getattr(config, "intermediate_size", None)
    return Block(hidden, intermediate if isinstance(intermediate, int) else 4 * hidden, heads)


def settle_threads(task: Task, accelerator: Accelerator, kept: int | None = None) -> int | None:
    """Choose the processor's threads for one CPU process; None where others have that say.

    ``kept``: those of a run that goes on.
    """
    if accelerator.device.type != "cpu" or accelerator.num_processes > 1:
        return None
    if kept is not None:
        torch.set_num_threads(kept)
        return kept
    before = torch.get_num_threads()
    try:
        with (
            working("measuring how many threads are the fastest"),
            measuring("it cannot be measured whether another number is faster"),
        ):
            return choose_threads(task.step_probe()).threads
    except NotMeasuredError as error:
        torch.set_num_threads(before)
        accelerator.print(f"threads: {before}, {error}")
        return before


def prepare(config: RunConfig, task: Task, accelerator: Accelerator) -> Prepared:
    """Data, model, structure, strategy and exact counts, in this order; then 4 bits for QLoRA.

    Raises UserError for what does not fit together, also for a batch that the network cannot take.
    """
    if config.strategy.name == "qlora":
        require_bitsandbytes()
    with main_first():
        with working("reading the data and preparing every sample"):
            data = task.prepare_data()
        set_seed(config.seed)  # the new head's values
        with working("loading the checkpoint"):
            built = task.build_model(data)
    with working("running the first two samples through the network"):
        computes_loss = task.own_loss(data) is None
        check_first_batch(task, built.model, data.train, config.start, labels=computes_loss)
    with working("measuring where samples may be padded"):
        splits = (data.train, data.validation, data.test)
        note = task.settle_padding(built.model, splits, told_by_main)
    lengths = [task.sample_lengths(split) for split in splits]
    shortest = min((min(known) for known in lengths if known), default=None)
    for said in (note, settle_sparse_attention(built.model, shortest)):
        if said is not None:
            data.summary["notes"].append(said)
    structure = find_structure(built.model)
    training = config.training
    batches = math.ceil(len(data.train) / training.batch_size)
    check_epochs(
        structure,
        config.strategy,
        training.epochs,
        max_steps=training.max_steps,
        steps_per_epoch=math.ceil(batches / training.gradient_accumulation_steps),
    )
    packed = block_linears(built.model, structure) if config.strategy.name == "qlora" else []
    model = apply_strategy(built.model, structure, config.strategy, built.new_parameters)
    own_loss = task.own_loss(data)
    standardised = None
    if own_loss is not None:
        standardised = _in_standard_units(task, data, model, structure, built.new_parameters)
        if standardised is None:
            OwnLoss(own_loss).attach(model)
    counts = count_parameters(model, structure)
    if packed:
        quantize(model, packed)
    new, weights = built.new_parameters, built.weights
    return Prepared(task, data, model, structure, counts, new, weights, standardised)


def _in_standard_units(
    task: Task, data: TaskData, model: nn.Module, structure: Structure, new: frozenset[str]
) -> Standardised | None:
    """How the model learns numbers; None where it learns none, or the data's own, with a note."""
    units, loss = task.target_units(data), task.own_loss(data)
    if units is None or loss is None:
        return None
    batch, notes = task.check_batch(data.test), data.summary["notes"]
    try:
        found = standardise(model, structure, loss, batch, mean=units[0], std=units[1], new=new)
    except NotFoldedError as error:
        notes.append(f"numbers are learnt as they are: {error}")
        return None
    notes.append(
        f"numbers are learnt as (number - {found.scale.centre:.6g}) / {found.scale.scale:.6g}, "
        "also in the losses; metrics, predictions and the saved model have the data's units"
    )
    return found


def check_strategy(config: RunConfig) -> None:
    """Raise UserError for a strategy that does not suit the network, before data and weights.

    What only these tell is left out: ``strategy.freeze`` may name a head that the checkpoint has.
    """
    task, strategy = make_task(config), replace(config.strategy, freeze=())
    head = Head(config.task, None if config.task == "causal_lm" else DEFAULT_LABELS, ())
    network = task.build_on_meta(num_labels=DEFAULT_LABELS)
    structure = find_structure(network)
    check_epochs(structure, strategy, config.training.epochs)
    with torch.device("meta"):  # where adapters are made
        apply_strategy(network, structure, strategy, new_parameters(network, structure, head))


def describe(config: RunConfig, prepared: Prepared, *, brief: bool = False) -> str:
    """The data, the learning rates and the parameter report, printed before training.

    ``brief``: one line instead of the report.
    """
    rates = learning_rates(config)
    factor = learning_rate_factor(config.strategy)
    lines = [
        f"\n{config.task}: {config.start} on {config.data.label}, "
        f"strategy {config.strategy.label}, seed {config.seed}",
        describe_data(prepared.data.summary),
        f"learning rate {rates.rest:g} = {config.training.learning_rate:g} × {factor:g}, "
        f"head {rates.head:g}",
        *_layer_rates(config, prepared.structure),
        *_unfreezing(config.strategy, prepared.structure),
        *_padding(config, prepared),
        *weights_lines(prepared.weights),
    ]
    counts = prepared.parameters
    if brief:
        trained = f"{counts.trainable:,} of {counts.total:,} train"
        return "\n".join([*lines, f"parameters: {trained}, as listed for this strategy above"])
    report = format_parameters(counts, checkpoint=config.start, strategy=config.strategy.label)
    return "\n".join([*lines, "", report])


def _layer_rates(config: RunConfig, structure: Structure) -> list[str]:
    """The rates of embeddings and blocks under layer-wise decay; nothing without it."""
    decay = config.training.layerwise_lr_decay
    if decay is None:
        return []
    factor, rest = layer_decay(structure, decay), learning_rates(config).rest
    named = {"embeddings": structure.embeddings[:1]}
    named |= {f"block {index}": (block,) for index, block in enumerate(structure.blocks)}
    rates = [f"{part} {rest * factor(name):.3g}" for part, names in named.items() for name in names]
    return [f"layer-wise decay {decay:g}: {', '.join(rates)}"]


def _unfreezing(strategy: StrategyConfig, structure: Structure) -> list[str]:
    """In which epochs gradual unfreezing reaches which part; nothing for other strategies."""
    if strategy.name != "gradual":
        return []
    first, last = strategy.every + 1, strategy.every * structure.depth + 1
    return [
        f"unfreezing: the head from epoch 1, block {structure.depth - 1} from epoch {first}, "
        f"block 0 from epoch {last}, the embeddings from epoch {last + strategy.every}"
    ]


def _padding(config: RunConfig, prepared: Prepared) -> list[str]:
    """How much of the first epoch's batches is padding; nothing where nothing is padded."""
    task, samples = prepared.task, prepared.data.train
    lengths = task.sample_lengths(samples)
    if lengths is None or min(lengths) == max(lengths) or task.equal_lengths:
        return []
    training = config.training

    def percent(used: list[int] | None) -> str:
        size = training.batch_size
        batches = epoch_batches(len(samples), size, seed=config.seed, epoch=0, lengths=used)
        return f"{100 * padding_share(batches, lengths):.1f} %"

    grouped, plain = percent(lengths), percent(None)
    shares = f"{grouped} of the {task.length_unit} in training batches, {plain} without grouping"
    if not training.group_by_length:
        shares = f"{plain} of the {task.length_unit} in training batches, {grouped} when grouped"
    return [f"padding: {shares}"]


def learning_rates(config: RunConfig) -> LearningRates:
    """The configured rate of full fine-tuning times the strategy's factor.

    The head has its own rate only beside pretrained parameters: from scratch everything is new.
    """
    rest = config.training.learning_rate * learning_rate_factor(config.strategy)
    own = None if config.strategy.name == "scratch" else config.training.head_learning_rate
    return LearningRates(rest=rest, head=own or rest)
