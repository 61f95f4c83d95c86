"""Parameter reports as text for the terminal, as Markdown and as JSON.

Pure functions: nothing is printed here. Standard library only. Terminal tables stay within 100
columns unless names are very long.
"""

import json
import re
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

from hfbench.results import ParameterReport, ParameterRow

MAX_COLUMNS = 100
LABEL_COLUMNS = 18  # wider strategy names continue on the next line
MIB = 2**20

Style = Literal["table", "markdown"]


def format_parameters(
    report: ParameterReport,
    style: Style | Literal["json"] = "table",
    *,
    checkpoint: str,
    strategy: str,
) -> str:
    """The parameters by depth and by kind of layer, and how many of them train.

    Consecutive blocks with equal numbers share one row, "block 0-9 (each)"; JSON keeps every row.
    """
    if style == "json":
        return _parameters_as_json(report, checkpoint=checkpoint, strategy=strategy)
    everything = ParameterRow("sum", report.total, report.trainable)
    tables = [
        layout_table(
            [heading, "total", "trainable", "frozen", "% trainable"],
            [*rows, parameter_cells(everything)],
            style,
            last_is_sum=True,
        )
        for heading, rows in (
            ("part", fold_blocks([parameter_cells(row) for row in report.by_depth])),
            ("layer type", [parameter_cells(row) for row in report.by_layer_type]),
        )
    ]
    title = heading_line(f"Parameters of {checkpoint}, strategy {strategy}", style)
    buffers = f"Buffers (not parameters, in no sum): {report.buffers:,}"
    return "\n\n".join([title, *tables, buffers]) + "\n"


def _parameters_as_json(report: ParameterReport, *, checkpoint: str, strategy: str) -> str:
    values = {
        "checkpoint": checkpoint,
        "strategy": strategy,
        "total": report.total,
        "trainable": report.trainable,
        "frozen": report.frozen,
        "trainable_percent": report.trainable_percent,
        "buffers": report.buffers,
        "by_depth": [row_values(row) for row in report.by_depth],
        "by_layer_type": [row_values(row) for row in report.by_layer_type],
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def row_values(row: ParameterRow) -> dict[str, Any]:
    """One part or kind of layer as JSON."""
    return {
        "name": row.name,
        "total": row.total,
        "trainable": row.trainable,
        "frozen": row.frozen,
    }


def parameter_cells(row: ParameterRow) -> list[str]:
    """Name, total, trainable, frozen and percent of one row of a table."""
    percent = 100 * row.trainable / row.total if row.total else None
    numbers = [f"{row.total:,}", f"{row.trainable:,}", f"{row.frozen:,}"]
    return [row.name, *numbers, percent_text(percent)]


def fold_blocks(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Join neighbouring rows "block i" with equal cells to one row that shows each block's."""
    runs: list[list[Sequence[str]]] = []
    for row in rows:
        previous = runs[-1][-1] if runs else None
        if (
            previous is not None
            and _block_index(previous) is not None
            and _block_index(row) is not None
            and previous[1:] == row[1:]
        ):
            runs[-1].append(row)
        else:
            runs.append([row])
    return [
        list(run[0])
        if len(run) == 1
        else [f"block {_block_index(run[0])}-{_block_index(run[-1])} (each)", *run[0][1:]]
        for run in runs
    ]


def _block_index(row: Sequence[str]) -> int | None:
    match = re.fullmatch(r"block (\d+)", row[0])
    return int(match[1]) if match else None


def percent_text(value: float | None) -> str:
    """Two decimals from 1 on, two digits below: 13.16, 0.27, 0.0014."""
    if value is None:
        return "-"
    if value == 0 or value >= 1:
        return f"{value:.2f}" if value else "0"
    return f"{value:.2g}"


def three_digits(value: float) -> str:
    """At least three significant digits: 0.123, 4.56, 78.9, 1,234."""
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def heading_line(text: str, style: Style) -> str:
    """A title in the style's way."""
    return f"### {text}" if style == "markdown" else f"{text}\n{'=' * len(text)}"


def paragraph(text: str, style: Style, *, indent: str = "") -> str:
    """Wrapped for the terminal; Markdown wraps by itself."""
    if style == "markdown":
        return text
    return textwrap.fill(text, MAX_COLUMNS, subsequent_indent=indent, break_long_words=False)


def wrap_label(
    label: str, *, columns: int = LABEL_COLUMNS, breaks: str = ":, ", indent: str = "  "
) -> str:
    """Break a strategy name that is wider than ``columns`` after one of ``breaks``."""
    lines = [""]
    for piece in re.findall(f"[^{breaks}]+[{breaks}]?", label):
        if lines[-1] and len(lines[-1] + piece) > columns:
            lines.append(indent)
        lines[-1] += piece
    return "\n".join(lines)


def layout_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: Style,
    *,
    last_is_sum: bool = False,
) -> str:
    """Align cells: the first column left, the others right. Cells may have several lines."""
    if style == "markdown":
        heads = [" ".join(heading.split("\n")) for heading in headings]
        rule = ["---", *["---:"] * (len(heads) - 1)]
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in (heads, rule, *rows)]
        return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
    lines = [line for row in (headings, *rows) for line in _cell_lines(row)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    fits = sum(widths) + 2 * (len(widths) - 1) <= MAX_COLUMNS
    gap = "  " if fits else " "
    rule_line = "-" * (sum(widths) + len(gap) * (len(widths) - 1))
    texts = [
        gap.join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    texts.insert(len(_cell_lines(headings)), rule_line)
    if last_is_sum:
        texts.insert(len(texts) - 1, rule_line)
    return "\n".join(texts)


def _cell_lines(row: Sequence[str]) -> list[list[str]]:
    """The terminal lines of one row; shorter cells are padded below."""
    cells = [cell.split("\n") for cell in row]
    height = max(len(cell) for cell in cells)
    return [[cell[i] if i < len(cell) else "" for cell in cells] for i in range(height)]
