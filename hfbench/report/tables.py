"""Parameter reports as text for the terminal, as Markdown and as JSON; how tables are laid out.

Nothing is printed here. No large library. What is for the terminal is no wider than that, or
than 80 columns where nothing is known of it.
"""

import json
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from hfbench.report.markup import escaped, escaped_line
from hfbench.results import ParameterReport, ParameterRow
from hfbench.terminal_text import visible

LEAST_COLUMNS = 80
TEXT_COLUMNS = 100  # longer lines of text are hard to read, however wide the terminal is
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


def terminal_columns() -> int:
    """How wide tables may be: as the terminal, at least 80; 80 in files and pipes."""
    return max(LEAST_COLUMNS, shutil.get_terminal_size((LEAST_COLUMNS, 24)).columns)


def text_columns() -> int:
    """How wide running text may be."""
    return min(TEXT_COLUMNS, terminal_columns())


def heading_line(text: str, style: Style) -> str:
    """A title in the style's way."""
    if style == "markdown":
        return f"### {escaped(text)}"
    lines = textwrap.wrap(text, terminal_columns(), break_on_hyphens=False)
    return "\n".join([*lines, "=" * max(map(len, lines))])


def paragraph(text: str, style: Style, *, indent: str = "") -> str:
    """Wrapped for the terminal; Markdown wraps by itself."""
    if style == "markdown":
        return escaped_line(text)
    return textwrap.fill(text, text_columns(), subsequent_indent=indent, break_long_words=False)


def bullet(text: str, style: Style) -> str:
    """One item of a list."""
    if style == "markdown":
        return f"- {escaped_line(text)}"
    return paragraph(f"- {text}", style, indent="  ")


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
    """Align cells: the first column left, the others right. Cells may have several lines.

    In the terminal columns that do not fit follow in tables of their own, each with the first
    column; a cell that would not even fit beside that is broken.
    """
    if style == "markdown":
        rule = ["---", *["---:"] * (len(headings) - 1)]
        lines = [[escaped(cell) for cell in row] for row in (headings, rule, *rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    headings = [visible(heading) for heading in headings]
    rows = [[visible(cell) for cell in row] for row in rows]
    room = terminal_columns()
    head, body = _lines([headings]), _lines(rows)
    widths = _widths([*head, *body])
    for gap in (2, 1):
        if sum(widths) + gap * (len(widths) - 1) <= room:
            return _drawn(head, body, range(len(widths)), gap, last_is_sum=last_is_sum)
    first = min(widths[0], room // 2)
    limits = [first, *(room - first - 2 for _ in widths[1:])]
    head, body = _broken(head, limits), _broken(body, limits)
    return "\n\n".join(
        _drawn(head, body, columns, 2, last_is_sum=last_is_sum)
        for columns in _fitting(_widths([*head, *body]), room)
    )


def _drawn(
    head: Sequence[Sequence[str]],
    body: Sequence[Sequence[str]],
    columns: Sequence[int],
    gap: int,
    *,
    last_is_sum: bool,
) -> str:
    """One table of some of the columns."""
    widths = _widths([*head, *body])
    rule = "-" * (sum(widths[column] for column in columns) + gap * (len(columns) - 1))

    def text(line: Sequence[str]) -> str:
        cells = (
            line[column].rjust(widths[column]) if column else line[column].ljust(widths[column])
            for column in columns
        )
        return (" " * gap).join(cells).rstrip()

    # A line that only another table's columns need is blank here.
    texts = [*filter(None, map(text, head)), rule, *filter(None, map(text, body))]
    if last_is_sum:
        texts.insert(len(texts) - 1, rule)
    return "\n".join(texts)


def _fitting(widths: Sequence[int], room: int) -> list[list[int]]:
    """The first column with as many of the others as fit, again and again."""
    tables = [[0]]
    used = widths[0]
    for column, width in enumerate(widths[1:], 1):
        if used + 2 + width > room and len(tables[-1]) > 1:
            tables.append([0])
            used = widths[0]
        tables[-1].append(column)
        used += 2 + width
    return tables


def _broken(lines: Sequence[Sequence[str]], limits: Sequence[int]) -> list[list[str]]:
    """Cells wider than their column's limit on several lines, side by side with the others."""
    return _lines(
        [
            cell if len(cell) <= limit else "\n".join(textwrap.wrap(cell, limit))
            for cell, limit in zip(line, limits, strict=True)
        ]
        for line in lines
    )


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _lines(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """The terminal lines of the rows, each with one line of every cell."""
    return [line for row in rows for line in _cell_lines(row)]


def _cell_lines(row: Sequence[str]) -> list[list[str]]:
    """The terminal lines of one row; shorter cells are padded below."""
    cells = [cell.split("\n") for cell in row]
    height = max(len(cell) for cell in cells)
    return [[cell[i] if i < len(cell) else "" for cell in cells] for i in range(height)]
