"""Rows as CSV, on request safe for programs that compute what looks like a formula."""

import csv
import io
from collections.abc import Iterable, Sequence

# What a spreadsheet takes for the beginning of a formula, also in the full width of East Asia.
# Source: OWASP, CSV Injection.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_text(rows: Iterable[Sequence[object]], *, excel_safe: bool = False) -> str:
    """With ``excel_safe`` a text that would be a formula has an apostrophe before it.

    Numbers stay numbers, also negative ones.
    """
    return "".join(_line([_quoted(cell) for cell in row] if excel_safe else row) for row in rows)


def _line(row: Sequence[object]) -> str:
    """Python quotes a carriage return in a cell only where it may end a line."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\r\n").writerow(row)
    return stream.getvalue().removesuffix("\r\n") + "\n"


def _quoted(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
