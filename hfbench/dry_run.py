"""``--dry-run`` of a recipe: everything up to the first training step, then what would follow."""

from hfbench.config import HubConfig, RunConfig
from hfbench.errors import NotMeasuredError
from hfbench.plan import ASSUMED_WATTS, StrategyPlan
from hfbench.prediction import RunPlan, plan_run, training_steps
from hfbench.preparation import describe, make_accelerator, prepare, settle_threads
from hfbench.record import finished_result, run_folder
from hfbench.report.plans import format_entries, mib
from hfbench.report.tables import three_digits
from hfbench.results import RESULT_FILE
from hfbench.saving import MODEL_FOLDER
from hfbench.tasks import make_task
from hfbench.training.state import BEST, KEPT, STATE, has_state


def dry_run(config: RunConfig) -> None:
    """Print the plan of exactly this run, with its data and its checkpoint; nothing is trained.

    Raises UserError for every mistake that the run itself finds before training.
    """
    accelerator = make_accelerator(config)
    task = make_task(config)
    settle_threads(task, accelerator)
    prepared = prepare(config, task, accelerator)
    accelerator.print(describe(config, prepared))
    try:
        plan = plan_run(config, prepared, accelerator)
        rows = [*_cost(config, plan), *_files(config, plan.typical)]
    except NotMeasuredError as error:
        rows = [("cost", f"nothing is predicted: {error}"), *_files(config, None)]
    accelerator.print(format_entries(rows))
    accelerator.print("\nNothing was trained and nothing written.")
    accelerator.end_training()


def _cost(config: RunConfig, plan: RunPlan) -> list[tuple[str, str]]:
    typical, memory = plan.typical, plan.widest.memory
    workload, cost = typical.workload, typical.cost
    assert typical.step_seconds is not None  # there is a calibration
    steps = training_steps(config, workload)
    seconds = steps * typical.step_seconds
    watt_hours = seconds * ASSUMED_WATTS * workload.processes / 3600
    rows = [
        (
            "steps",
            f"{steps:,}, of which {round(steps * config.training.warmup_ratio):,} warm-up; "
            f"{workload.steps_per_epoch:,} an epoch, "
            f"{workload.batch_size * workload.gradient_accumulation_steps:,} of "
            f"{workload.samples:,} samples a step",
        ),
        (
            "memory",
            f"weights {mib(memory.weights)} MiB, gradients {mib(memory.gradients)}, optimiser "
            f"{mib(memory.optimizer)}, saved activations {mib(memory.activations)}; peak "
            f"{mib(memory.peak)} MiB at the longest batch, beside the libraries",
        ),
        (
            "work",
            f"a batch of mean length takes {three_digits(cost.forward_flops / 1e9)} GFLOP "
            f"forward and {three_digits(cost.backward_flops / 1e9)} backward; this machine does "
            f"{plan.calibration.matmul_flops_per_second / 1e9:,.0f} GFLOP/s in a matrix product",
        ),
        (
            "time",
            f"{three_digits(typical.step_seconds)} s a step, {three_digits(seconds)} s of "
            f"training, {three_digits(watt_hours)} Wh at an assumed {ASSUMED_WATTS:g} W for each "
            "process; loading data, evaluation and saving come on top",
        ),
    ]
    if workload.processes > 1:
        sent = mib(typical.sent_bytes_per_step)
        rows.append(("sent", f"{sent} MiB a step by each of {workload.processes} processes"))
    return rows


def _files(config: RunConfig, plan: StrategyPlan | None) -> list[tuple[str, str]]:
    """What would be written where; without sizes where there is no plan."""
    folder = run_folder(config)
    finished = finished_result(folder, config)
    holds = "new"
    if finished is not None:
        holds = "holds this run, finished: nothing would be done"
    elif has_state(folder):
        holds = "holds an interrupted run, which would go on"
    model, training = f"{MODEL_FOLDER}/", f"{STATE}/ and {BEST}/"
    if plan is not None:
        trained = plan.memory.gradients  # as many values
        needed = (KEPT + 1) * (2 * trained + plan.memory.optimizer)  # states and best parameters
        model += f" of {mib(plan.size.saved_bytes)} MiB"
        training += f" of at most {mib(needed)} MiB"
    return [
        ("folder", f"{folder} ({holds})"),
        (
            "files",
            f"{RESULT_FILE}; {model} and the processor; while it trains {training}",
        ),
        ("push", _target(config.hub)),
    ]


def _target(hub: HubConfig) -> str:
    if not hub.push:
        return "none"
    visibility = {None: "visibility as it is", True: "private", False: "public"}[hub.private]
    return f"{hub.repo_id}, {hub.revision or 'main'}, {visibility}"
