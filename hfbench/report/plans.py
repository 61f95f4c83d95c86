"""Plans as text for the terminal and as JSON. Pure functions; nothing is printed here."""

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hfbench.report.tables import (
    MIB,
    heading_line,
    layout_table,
    paragraph,
    text_columns,
    three_digits,
    wrap_label,
)

if TYPE_CHECKING:
    from hfbench.calibration import Calibration
    from hfbench.plan import StrategyPlan

_GIGA = 1e9
_JOULES_PER_WATT_HOUR = 3600


def format_plans(
    plans: "Sequence[StrategyPlan]", *, checkpoint: str, notes: Sequence[str] = ()
) -> str:
    """One row a strategy: memory in MiB, GFLOP of one pass, and what is known of time."""
    headings = [
        "strategy",
        "trainable",
        "weights\nMiB",
        "grad.\nMiB",
        "optim.\nMiB",
        "saved\nact.",
        "temp.\nMiB",
        "peak\nMiB",
        "fwd\nGFLOP",
        "bwd\nGFLOP",
        "disk\nMiB",
    ]
    distributed = plans[0].workload.processes > 1
    timed = plans[0].step_seconds is not None
    headings += ["sent\nMiB"] if distributed else []
    headings += ["epoch\ns", "epoch\nWh"] if timed else []
    rows = []
    for plan in plans:
        memory, cost = plan.memory, plan.cost
        parts = (
            memory.weights,
            memory.gradients,
            memory.optimizer,
            memory.activations,
            memory.temporary,
            memory.peak,
        )
        row = [wrap_label(plan.strategy), f"{plan.size.trained:,}", *map(mib, parts)]
        row += [three_digits(f / _GIGA) for f in (cost.forward_flops, cost.backward_flops)]
        row.append(mib(plan.size.saved_bytes))
        row += [mib(plan.sent_bytes_per_step)] if distributed else []
        row += [_number(plan.epoch_seconds), _watt_hours(plan)] if timed else []
        rows.append(row)
    return _section(f"Plan for {checkpoint}", headings, rows, notes)


def format_fits(
    plans: "Sequence[StrategyPlan]", *, checkpoint: str, limits: str, notes: Sequence[str] = ()
) -> str:
    """What fits, in the order given."""
    title = f"What fits in {limits}: {checkpoint}"
    if not plans:
        return _section(title, ["nothing fits"], [], notes)
    headings = [
        "strategy",
        "trainable",
        "batch",
        "accumu-\nlation",
        "gradient\ncheckpointing",
        "peak\nMiB",
        "training\nmin",
    ]
    rows = [
        [
            wrap_label(plan.strategy),
            f"{plan.size.trained:,}",
            str(plan.workload.batch_size),
            str(plan.workload.gradient_accumulation_steps),
            "yes" if plan.workload.gradient_checkpointing else "no",
            mib(plan.memory.peak),
            _number(None if plan.training_seconds is None else plan.training_seconds / 60),
        ]
        for plan in plans
    ]
    return _section(title, headings, rows, notes)


def format_entries(rows: Sequence[Sequence[str]]) -> str:
    """Name and text, the texts below each other and wrapped."""
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(
        textwrap.fill(
            text,
            text_columns(),
            initial_indent=name.ljust(width),
            subsequent_indent=" " * width,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, text in rows
    )


def plans_as_json(
    plans: "Sequence[StrategyPlan]",
    *,
    checkpoint: str,
    calibration: "Calibration | None",
    notes: Sequence[str] = (),
) -> str:
    """Every number in bytes, operations, seconds and joules."""
    values = {
        "checkpoint": checkpoint,
        "calibration": None if calibration is None else dataclasses.asdict(calibration),
        "notes": list(notes),
        "strategies": [_plan_values(plan) for plan in plans],
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _plan_values(plan: "StrategyPlan") -> dict[str, Any]:
    return {
        "strategy": plan.strategy,
        "workload": dataclasses.asdict(plan.workload),
        "total_parameters": plan.size.total,
        "trainable_parameters": plan.size.trained,
        "memory_bytes": dataclasses.asdict(plan.memory),
        "forward_flops": plan.cost.forward_flops,
        "backward_flops": plan.cost.backward_flops,
        "saved_bytes": plan.size.saved_bytes,
        "sent_bytes_per_step": plan.sent_bytes_per_step,
        "steps_per_epoch": plan.workload.steps_per_epoch,
        "step_seconds": plan.step_seconds,
        "epoch_seconds": plan.epoch_seconds,
        "training_seconds": plan.training_seconds,
        "epoch_joules": plan.epoch_joules,
    }


def _section(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    texts = [heading_line(title, "table"), layout_table(headings, rows, "table")]
    return "\n\n".join([*texts, *(paragraph(note, "table") for note in notes)]) + "\n"


def mib(size_bytes: int) -> str:
    """Bytes as a number of MiB."""
    return three_digits(size_bytes / MIB) if size_bytes else "0"


def _number(value: float | None) -> str:
    return "-" if value is None else three_digits(value)


def _watt_hours(plan: "StrategyPlan") -> str:
    joules = plan.epoch_joules
    return _number(None if joules is None else joules / _JOULES_PER_WATT_HOUR)
