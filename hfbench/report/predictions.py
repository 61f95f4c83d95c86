"""Predictions as a table for the terminal, as CSV and as JSON. Pure functions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hfbench.report.csv_text import csv_text
from hfbench.report.tables import layout_table, terminal_columns

if TYPE_CHECKING:
    from hfbench.tasks.base import Answer, Candidate

# Longer inputs are cut in the table, never in CSV and JSON.
INPUT_COLUMNS = 56
LEAST_INPUT_COLUMNS = 24  # also where the answers need the room

Format = Literal["table", "csv", "json"]


def format_predictions(
    names: Sequence[str],
    answers: "Sequence[Answer]",
    style: Format,
    *,
    answer_name: str,
    about: Mapping[str, Any],
    excel_safe: bool = False,
) -> str:
    """One row an input: its name and its candidates, the best first.

    ``about`` (the model, its revision, notes) goes into the JSON. Table and CSV leave the
    probabilities out where the model gives none; the table shows four decimals. ``excel_safe``:
    see :func:`hfbench.report.csv_text.csv_text`.
    """
    if style == "json":
        rows = zip(names, answers, strict=True)
        listed = [_values(name, answer, answer_name) for name, answer in rows]
        text = json.dumps({**about, "predictions": listed}, indent=2, ensure_ascii=False)
        return text + "\n"
    scored = any(c.probability is not None for answer in answers for c in answer)
    kinds = [answer_name, "probability"] if scored else [answer_name]
    if style == "csv":
        return _csv(names, answers, kinds, excel_safe=excel_safe)
    found = [list(_columns(answer, scored)) for answer in answers]  # input, kind, lines
    beside = sum(
        2 + max(len(kind), *(len(line) for lines in found for line in lines[i]))
        for i, kind in enumerate(kinds)
    )
    room = max(LEAST_INPUT_COLUMNS, min(INPUT_COLUMNS, terminal_columns() - beside))
    table = [
        [_short(name, room), *map("\n".join, lines)]
        for name, lines in zip(names, found, strict=True)
    ]
    return layout_table(["input", *kinds], table, "table") + "\n"


def _csv(
    names: Sequence[str],
    answers: "Sequence[Answer]",
    kinds: Sequence[str],
    *,
    excel_safe: bool,
) -> str:
    """The second candidate and the others follow in columns with their place in the name."""
    places = range(1, max(1, *(len(answer) for answer in answers)) + 1)
    headings = [kind if place == 1 else f"{kind}_{place}" for place in places for kind in kinds]
    rows: list[list[object]] = [["input", *headings]]
    for name, answer in zip(names, answers, strict=True):
        cells = [cell for c in answer for cell in (c.text, c.probability)[: len(kinds)]]
        rows.append([name, *cells, *[None] * (len(headings) - len(cells))])
    return csv_text(rows, excel_safe=excel_safe)


def _columns(answer: "Answer", scored: bool) -> Iterator[list[str]]:
    """The candidates below each other; a dash without any."""
    yield [" ".join(candidate.text.split()) for candidate in answer] or ["-"]
    if scored:
        yield ["" if c.probability is None else f"{c.probability:.4f}" for c in answer]


def _values(name: str, answer: "Answer", answer_name: str) -> dict[str, Any]:
    def values(candidate: "Candidate") -> dict[str, Any]:
        return {answer_name: candidate.text, "probability": candidate.probability}

    best = values(answer[0]) if answer else {answer_name: None, "probability": None}
    return {"input": name, **best, "top": [values(c) for c in answer]}


def _short(name: str, columns: int) -> str:
    """On one line, without the middle where it is long: paths differ at their ends."""
    line = " ".join(name.split())
    kept = columns // 2
    return line if len(line) <= columns else f"{line[: kept - 1]}…{line[-kept:]}"
