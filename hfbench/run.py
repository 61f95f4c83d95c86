"""One run from a configuration to a saved, checked model and its result."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from hfbench.choices import Choices, keep_choices, kept_choices
from hfbench.claim import claimed
from hfbench.config import RunConfig, TrainingConfig, flatten
from hfbench.data.bad_rows import write_bad_rows
from hfbench.errors import NotMeasuredError, TrainingFailedError, UserError
from hfbench.expectation import duration
from hfbench.keeping import remove_files
from hfbench.manifest import files_below, listed
from hfbench.models.checkpointing import gradient_checkpointing
from hfbench.models.loading import hub_commit
from hfbench.models.structure import canonical_name, is_scale
from hfbench.prediction import plan_run, predict, training_steps, workload_of
from hfbench.preparation import (
    Prepared,
    describe,
    learning_rates,
    make_accelerator,
    prepare,
    settle_threads,
)
from hfbench.record import STARTED, Record, damage, finished_result, removed, run_folder, run_id
from hfbench.reported import Reported, check_reported
from hfbench.results import BAD_ROWS_FILE, BASELINE_MSE, UNTRAINED, RunResult
from hfbench.saving import MODEL_FOLDER, save_model
from hfbench.scoring import predictions, score_untrained, scores
from hfbench.smaller_batches import batch_parts, check_divided, divide_further, with_parts
from hfbench.smaller_batches import note as note_of
from hfbench.status import working
from hfbench.stopping import ends_recorded, failing_together
from hfbench.strategies import layer_decay, set_training_mode, unfreezing
from hfbench.tasks import make_task
from hfbench.tasks.base import Task
from hfbench.training.attention import fastest_attention
from hfbench.training.company import meet, process_state, told_by_main
from hfbench.training.evaluation import Predictions
from hfbench.training.fit import fit
from hfbench.training.narrowing import narrowed
from hfbench.training.objective import FitResult, Objective
from hfbench.training.prefix.cache import stored_prefix
from hfbench.training.prefix.cut import trains_blocks
from hfbench.training.prefix.samples import without_stored
from hfbench.training.probe import Probe, Reading
from hfbench.training.state import clear, has_state
from hfbench.verification import CHECK_FILE, store_check


def run(config: RunConfig, *, brief: bool = False) -> RunResult:
    """Train, evaluate, save and record one run; a finished identical run is only read.

    ``brief``: the parameters are told in one line, because a run of this strategy listed them.
    A run that fails, runs out of memory or is ended by a signal leaves a result with its reason,
    and the exception goes on to the caller. A mistake found before training leaves none. Nobody
    else works in the run's folder meanwhile.
    """
    with failing_together(), _claimed(config):
        return _run(config, run_folder(config), brief=brief)


@contextmanager
def _claimed(config: RunConfig) -> Iterator[None]:
    """The main process claims the run's folder for all; its refusal is every process's."""
    refusal = None
    with ExitStack() as stack:
        if process_state().is_main_process:
            try:
                _refuse_inside_data(config)
                stack.enter_context(claimed(run_folder(config), run_id(config)))
            except UserError as error:
                refusal = str(error)
        refusal = told_by_main(refusal)
        if refusal is not None:
            raise UserError(refusal)
        yield


def _refuse_inside_data(config: RunConfig) -> None:
    """A run whose own files were among its data would be another run with each file it writes."""
    source, folder = Path(config.data.source).expanduser(), run_folder(config)
    if config.data.source and source.is_dir() and source.resolve() in folder.resolve().parents:
        raise UserError(
            f"output_dir={str(folder)!r} lies inside data.source={config.data.source!r}: choose "
            "one outside"
        )


def _run(config: RunConfig, folder: Path, *, brief: bool) -> RunResult:
    finished = finished_result(folder, config)
    goes_on = config.training.resume == "auto" and has_state(folder)
    kept = kept_choices(folder) if goes_on else Choices()
    parts = batch_parts(config)
    accelerator = make_accelerator(config, kept.precision)
    if finished is not None:
        clear(folder, accelerator)  # of a process that was killed before it could
        accelerator.print(f"{folder} holds this run already: {finished.status}")
        return finished
    if (problem := damage(folder) or removed(folder)) is not None:
        accelerator.print(f"this run is done again: {problem}")
    started = time.perf_counter()
    task = make_task(config)
    record = Record(
        config,
        folder,
        primary_metric=task.primary_metric,
        greater_is_better=task.greater_is_better,
        num_processes=accelerator.num_processes,
    )
    record.update(batch_parts=parts)
    record.fields["hardware"] |= {
        "threads": settle_threads(task, accelerator, kept.threads),
        "precision": accelerator.mixed_precision,
    }

    def divide() -> None:
        divide_further(config, record, accelerator.num_processes)

    try:
        with ends_recorded(record, accelerator, divide):
            result = _recorded(config, task, accelerator, record, kept, started, brief=brief)
    except TrainingFailedError:
        check_divided(config, record)
        raise
    clear(folder, accelerator)
    accelerator.print(_summary(result, folder))
    accelerator.end_training()
    return result


def _recorded(
    config: RunConfig,
    task: Task,
    accelerator: Accelerator,
    record: Record,
    kept: Choices,
    started: float,
    *,
    brief: bool,
) -> RunResult:
    """From the data to the saved model; what fails within is the reason in the record."""
    folder, parts = record.folder, record.fields["batch_parts"]
    smaller = with_parts(config, parts)
    prepared = prepare(config, task, accelerator)
    if parts > 1:
        prepared.data.summary["notes"].append(note_of(prepared.model, config, parts))
    accelerator.print(describe(config, prepared, brief=brief))
    record.update(
        checkpoint_commit=hub_commit(config.model),
        parameters=prepared.parameters,
        weights=prepared.weights,
        data=dict(prepared.data.summary),
        primary_metric=task.primary_metric,  # of what the data turned out to be
        greater_is_better=task.greater_is_better,
    )
    record.begun = True
    if accelerator.is_main_process:
        write_bad_rows(folder / BAD_ROWS_FILE, prepared.data.bad_rows)
        record.write("failed", STARTED)
    start_tracker(config, accelerator)
    with computing_less(smaller, prepared, accelerator, record, kept) as shortened:
        record.update(**foretell(config, shortened, accelerator, parts))
        if accelerator.is_main_process:  # for whoever finds this run killed
            record.write("failed", STARTED)
        test = score_untrained(smaller, shortened, accelerator)
        with working(f"training {config.strategy.label}, seed {config.seed}"):
            fitted = train(config, shortened, accelerator, folder, parts)
        record.update(**_training_fields(fitted))
        if (note := budget_note(config.training, fitted)) is not None:
            accelerator.print(note)
        with working("testing"):
            split = shortened.data.test
            found = predictions(smaller, task, prepared.model, split, accelerator, "test")
        test |= scores(task, found)
    bare = accelerator.unwrap_model(prepared.model)
    with working("computing the other test metrics"):
        test |= task.further_test_metrics(bare, prepared.data.test, accelerator)
    record.update(test_metrics=test, **save(config, prepared, found, accelerator, folder))
    record.update(total_seconds=time.perf_counter() - started)
    result = record.build("succeeded", note)
    if accelerator.is_main_process:
        record.write("succeeded", note)
    return result


@contextmanager
def computing_less(
    config: RunConfig,
    prepared: Prepared,
    accelerator: Accelerator,
    record: Record,
    kept: Choices,
) -> Iterator[Prepared]:
    """Within, the model leaves out what is stored of its frozen prefix, and what nobody reads.

    ``kept``: the choices of a run that goes on. Those of this one are kept in its folder.
    """
    data, task, training = prepared.data, prepared.task, config.training
    model, structure = prepared.model, prepared.structure
    reading = Reading(
        task.collate,
        task.sample_lengths,
        task.comparable,
        training.eval_batch_size,
        task.equal_lengths,
    )
    probe = Probe(model, data.train, reading, accelerator.device)
    steps = training.max_steps or math.inf
    visits = min(
        training.epochs * len(data.train),
        steps * training.batch_size * training.gradient_accumulation_steps,
    )
    hardware = record.fields["hardware"]
    with ExitStack() as stack:
        if trains_blocks(model, structure):
            with working("measuring which way through attention is the fastest"):
                way = fastest_attention(model, probe, accelerator, kept.attention)
                hardware["attention"] = stack.enter_context(way)
            with working("trying which positions of the last block are read"):
                stack.enter_context(narrowed(model, structure, probe, accelerator))
        if config.cache != "off" and kept.prefix is not False:
            with working("computing what the frozen prefix gives, or reading it"):
                splits, prefix = stack.enter_context(
                    stored_prefix(
                        model,
                        structure,
                        {"train": data.train, "validation": data.validation, "test": data.test},
                        probe,
                        visits=int(visits),
                        accelerator=accelerator,
                        always=config.cache == "always" or kept.prefix is True,
                    )
                )
            record.update(prefix=prefix)
            stored: Any = dict(splits)
            prepared = replace(prepared, data=replace(data, **stored))
        if accelerator.is_main_process:
            choices = Choices(
                precision=accelerator.mixed_precision,
                threads=hardware["threads"],
                attention=hardware.get("attention"),
                prefix=record.fields["prefix"] is not None,
                parts=batch_parts(config),  # or more, where another process failed meanwhile
            )
            keep_choices(record.folder, record.fields["run_id"], choices)
        yield prepared


def start_tracker(config: RunConfig, accelerator: Accelerator) -> None:
    """Open the tracker with the run's settings; without one nothing happens."""
    if accelerator.log_with:
        values = {key: str(value) for key, value in flatten(config.to_dict())}
        accelerator.init_trackers("hfbench", config=values)


def foretell(
    config: RunConfig, prepared: Prepared, accelerator: Accelerator, parts: int = 1
) -> dict[str, Any]:
    """What the training is going to need or, said aloud, why only running it can tell.

    ``parts``: in how many each batch is computed; the steps are those of whole batches.
    """
    try:
        with working("tracing what a step needs"):
            plan = plan_run(with_parts(config, parts), prepared, accelerator)
    except NotMeasuredError as error:
        accelerator.print(f"nothing is predicted: {error}")
        return {"not_predicted": str(error)}
    found = predict(plan, accelerator)
    precision = plan.typical.workload.precision
    whole = workload_of(config, len(prepared.data.train), accelerator.num_processes, precision)
    steps = training_steps(config, whole)
    accelerator.print(
        f"expected: {steps:,} steps of {1e3 * found.step_seconds:.3g} ms, about "
        f"{duration(steps * found.step_seconds)} of training"
    )
    return {"predicted": found}


def train(
    config: RunConfig, prepared: Prepared, accelerator: Accelerator, folder: Path, parts: int = 1
) -> FitResult:
    """Fit the prepared model and leave the best epoch's parameters in it.

    ``parts``: in how many each batch is computed.
    """
    task, structure = prepared.task, prepared.structure

    def validate(model: nn.Module) -> dict[str, Any]:
        validation = prepared.data.validation
        smaller = with_parts(config, parts)
        found = predictions(smaller, task, model, validation, accelerator, "validate")
        return scores(task, found)

    objective = Objective(
        collate=task.collate,
        loss_units=task.loss_units,
        evaluate=validate,
        metric=task.primary_metric,
        greater_is_better=task.greater_is_better,
        train_mode=lambda model: set_training_mode(model, structure),
        is_head=lambda name: structure.part_of(canonical_name(name)) == "head",
        rate_factor=layer_decay(structure, config.training.layerwise_lr_decay),
        decays=lambda name: not is_scale(name),
        trains=unfreezing(structure, config.strategy, prepared.new_parameters),
    )
    checkpointed = config.training.gradient_checkpointing
    set_seed(config.seed, device_specific=True)  # dropout differs between processes
    with gradient_checkpointing(prepared.model) if checkpointed else nullcontext():
        return fit(
            prepared.model,
            prepared.data.train,
            objective,
            config=config.training,
            rates=learning_rates(config),
            accelerator=accelerator,
            folder=folder,
            owner=run_id(config),
            seed=config.seed,
            lengths=task.sample_lengths(without_stored(prepared.data.train)),
            equal_lengths=task.equal_lengths,
            parts=parts,
            title=f"{config.strategy.label} seed {config.seed}",
        )


def save(
    config: RunConfig,
    prepared: Prepared,
    found: Predictions,
    accelerator: Accelerator,
    folder: Path,
) -> dict[str, Any]:
    """Save on the main process and check the saved model; its fields of the record.

    ``found``: what is reported of the test split. The saved model must give it too.
    """
    fields: dict[str, Any] = {}
    if accelerator.is_main_process:
        # Without Accelerate's mixed precision around forward: as whoever loads it will run it.
        model = accelerator.unwrap_model(prepared.model, keep_fp32_wrapper=False)
        scale = None
        if prepared.standardised is not None:
            prepared.standardised.fold()
            scale = prepared.standardised.scale
        limit = config.training.check_samples
        reported = Reported(prepared.task, prepared.data, found, scale, limit)

        def check_numbers(loaded: nn.Module) -> None:
            if prepared.standardised is not None:  # so that half precision rounds as in the run
                prepared.standardised.unfold(model, loaded)
            fields["saved_check"] = check_reported(loaded, reported, accelerator)

        check = prepared.task.check_batch(prepared.data.test)
        check.pop("labels", None)  # those of several labels or a number not every model takes
        with working("saving the model, and comparing it when loaded again"):
            saved_bytes = save_model(
                model,
                prepared.task.save_processor,
                folder / MODEL_FOLDER,
                base=config.model,
                check=check_numbers,
            )
            store_check(model, check, folder / CHECK_FILE)
        files = [*files_below(folder / MODEL_FOLDER), folder / CHECK_FILE]
        fields |= {"saved_bytes": saved_bytes, "saved_files": listed(folder, files)}
        if config.output.keep == "none":
            remove_files(folder, fields["saved_files"])
            fields["model_removed"] = "output.keep=none"
    meet()
    return fields


def budget_note(training: TrainingConfig, fitted: FitResult) -> str | None:
    """Where ``max_minutes`` ended the training; None where it did not."""
    if fitted.total_steps is None:
        return None
    return (
        f"training.max_minutes={training.max_minutes:g} ended the training after step "
        f"{len(fitted.step_losses)} of {fitted.total_steps}"
    )


def _training_fields(fitted: FitResult) -> dict[str, Any]:
    return {
        "history": fitted.history,
        "best_validation": fitted.best_metric,
        "train_seconds": fitted.train_seconds,
        "samples_per_second": fitted.samples_seen / fitted.train_seconds,
        "steps": len(fitted.step_losses),
        "peak_memory_bytes": fitted.peak_memory_bytes,
    }


def _summary(result: RunResult, folder: Path) -> str:
    value = result.test_metrics[result.primary_metric]
    before = result.test_metrics.get(f"{result.primary_metric}{UNTRAINED}")
    untrained = "" if before is None else f" ({before:.4f} before training)"
    baseline = result.test_metrics.get(BASELINE_MSE)
    mean = "" if baseline is None else f" ({baseline:.4f} by the mean of train)"
    what = "result and model" if result.model_removed is None else "result without model"
    return (
        f"{result.strategy}: test {result.primary_metric} {value:.4f}{untrained}{mean}, trained "
        f"{result.train_seconds:.1f} s, {what} in {folder}"
    )
