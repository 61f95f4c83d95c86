"""The parameters of several strategies side by side: for the terminal, Markdown, CSV and JSON.

Pure functions, no large library.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from hfbench.params import ParameterCounts, StrategyCounts
from hfbench.report.csv_text import csv_text
from hfbench.report.tables import (
    Style,
    fold_blocks,
    heading_line,
    layout_table,
    paragraph,
    parameter_cells,
    row_values,
    wrap_label,
)
from hfbench.results import ParameterReport, ParameterRow

HEADING_COLUMNS = 12
CSV_COLUMNS = (
    "checkpoint",
    "num_labels",
    "strategy",
    "group",  # all, depth or layer_type
    "name",
    "total_parameters",
    "trainable_parameters",
    "frozen_parameters",
)


def format_counts(
    counts: ParameterCounts,
    style: Style | Literal["csv", "json"] = "table",
    *,
    excel_safe: bool = False,
) -> str:
    """The counts in one of the styles. CSV has a row for each strategy and each of its parts.

    ``excel_safe``: see :func:`hfbench.report.csv_text.csv_text`.

    In tables the column ``total`` is the network without adapters, and consecutive blocks with
    equal numbers share one row, "block 0-9 (each)".
    """
    if style == "json":
        return _as_json(counts)
    if style == "csv":
        return _as_csv(counts, excel_safe=excel_safe)
    parts = [heading_line(f"Parameters of {counts.checkpoint}", style)]
    notes = [paragraph(note, style) for note in counts.notes]
    parts.append(("\n\n" if style == "markdown" else "\n").join(notes))
    parts.append(
        layout_table(
            ["strategy", "total", "trainable", "frozen", "% trainable"],
            [parameter_cells(_everything(one)) for one in counts.strategies],
            style,
        )
    )
    for heading, rows_of in (
        ("part", lambda report: report.by_depth),
        ("layer type", lambda report: report.by_layer_type),
    ):
        parts.append(_side_by_side(heading, counts.strategies, rows_of, style))
    if any(one.adapters for one in counts.strategies):
        note = "By part and by layer type, total leaves adapters out: each strategy has its own."
        parts.append(paragraph(note, style))
    return "\n\n".join(parts) + "\n"


def _side_by_side(
    heading: str,
    strategies: Sequence[StrategyCounts],
    rows_of: Callable[[ParameterReport], Sequence[ParameterRow]],
    style: Style,
) -> str:
    """One row a part: its total, then how many of its parameters each strategy trains."""
    columns = [{row.name: row for row in rows_of(one.report)} for one in strategies]
    rows = [
        [name, f"{row.total:,}", *(f"{column[name].trainable:,}" for column in columns)]
        for name, row in columns[0].items()
        if name != "adapter"
    ]
    if any(one.adapters for one in strategies):
        added = (f"{one.adapter_total:,}" if one.adapters else "-" for one in strategies)
        rows.append(["adapter", "-", *added])
    network = strategies[0].report.total - strategies[0].adapter_total
    everything = ["sum", f"{network:,}", *(f"{one.report.trainable:,}" for one in strategies)]
    labels = [one.strategy for one in strategies]
    if style == "table":
        labels = [
            wrap_label(label, columns=HEADING_COLUMNS, breaks=":,=", indent="") for label in labels
        ]
    headings = [heading, "total", *labels]
    return layout_table(headings, [*fold_blocks(rows), everything], style, last_is_sum=True)


def _everything(one: StrategyCounts) -> ParameterRow:
    return ParameterRow(one.strategy, one.report.total, one.report.trainable)


def _as_json(counts: ParameterCounts) -> str:
    values = {
        "checkpoint": counts.checkpoint,
        "num_labels": counts.num_labels,
        "strategies": [
            {
                "strategy": one.strategy,
                "total_parameters": one.report.total,
                "trainable_parameters": one.report.trainable,
                "frozen_parameters": one.report.frozen,
                "by_depth": [row_values(row) for row in one.report.by_depth],
                "by_layer_type": [row_values(row) for row in one.report.by_layer_type],
            }
            for one in counts.strategies
        ],
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _as_csv(counts: ParameterCounts, *, excel_safe: bool) -> str:
    labels = "" if counts.num_labels is None else counts.num_labels
    rows = [
        (counts.checkpoint, labels, one.strategy, group, row.name, *_numbers(row))
        for one in counts.strategies
        for group, row in _groups(one)
    ]
    return csv_text([CSV_COLUMNS, *rows], excel_safe=excel_safe)


def _numbers(row: ParameterRow) -> tuple[int, int, int]:
    return row.total, row.trainable, row.frozen


def _groups(one: StrategyCounts) -> Iterator[tuple[str, ParameterRow]]:
    report = one.report
    yield "all", ParameterRow("sum", report.total, report.trainable)
    yield from (("depth", row) for row in report.by_depth)
    yield from (("layer_type", row) for row in report.by_layer_type)
