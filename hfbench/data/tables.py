"""Tables in files: csv, tsv, json, jsonl, parquet, and a txt as one text."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from datasets import Dataset, Features, Value

from hfbench.data.arrow_columns import from_arrow, from_values
from hfbench.data.kinds import check_names
from hfbench.data.rows import Place, Table
from hfbench.data.text_files import read_text
from hfbench.errors import UserError
from hfbench.plain_files import require_plain
from hfbench.plain_json import parse_json


def load_table(path: Path) -> Table:
    """One .csv, .tsv, .json, .jsonl, .parquet or .txt file, in memory.

    Every value of .csv and .tsv is a string. Fields of .csv may be quoted; in .tsv a quote is an
    ordinary character (IANA text/tab-separated-values). A column of JSON or parquet that
    ``datasets`` cannot hold is left out.

    Raises UserError that names the file and, where there is one, the line.
    """
    check_names([path])
    reader = TABLE_READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{str(path)!r}: files of the kind {path.suffix!r} are not read; choose: "
            f"{', '.join(TABLE_READERS)}"
        )
    return reader(path)


def _read_csv(path: Path) -> Table:
    return _read_delimited(path, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def _read_tsv(path: Path) -> Table:
    return _read_delimited(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_delimited(path: Path, *, delimiter: str, quoting: int) -> Table:
    csv.field_size_limit(2**31 - 1)
    lines = io.StringIO(read_text(path), newline="")
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    rows = _numbered(reader, path)
    _, header = next(rows, (1, []))
    if not header or len(set(header)) < len(header):
        twice = "".join(
            f": {name!r} is there twice" for name, n in Counter(header).items() if n > 1
        )
        raise UserError(f"{str(path)!r} needs a first line of different column names{twice}")
    columns: list[list[str]] = [[] for _ in header]
    numbers: list[int] = []
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{str(path)!r}, line {number}: {len(row)} fields, but the first line names "
                f"{len(header)} columns ({', '.join(header)})"
            )
        numbers.append(number)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    table = Dataset.from_dict(
        dict(zip(header, columns, strict=True)),
        features=Features({name: Value("string") for name in header}),
    )
    return Table(table, place=_lines_of(path, numbers))


def _numbered(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not empty, with the number of its first line.

    Raises UserError for a field that does not end, or goes on behind its quote.
    """
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{str(path)!r} is not a valid {path.suffix[1:]} file: in the row that begins in "
                f"line {number}: {error} (a quote that is not closed, or not doubled?)"
            ) from error
        if row:
            yield number, row


def _read_json(path: Path) -> Table:
    """A list of objects, or one object a line."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        rows, place = _json_list(text, path), _rows_of(path)
    else:
        found = list(_json_lines(text, path))
        rows = [row for _, row in found]
        place = _lines_of(path, [number for number, _ in found])
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(
                f"{place(number)} holds {str(row)[:40]!r} and no object: {str(path)!r} must hold a "
                "list of objects, or one object a line"
            )
    names = {name: None for row in rows for name in row}
    values = {name: [row.get(name) for row in rows] for name in names}
    table, unread, notes = from_values(values, place)
    return Table(table, unread, place, notes)


def _json_list(text: str, path: Path) -> list[Any]:
    try:
        rows: list[Any] = parse_json(text)
    except ValueError as error:
        raise _not_json(path, "", error) from error
    return rows


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    # Not splitlines: JSON's strings may hold other line separators, such as U+2028, as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                if number == 1 and _is_object(text):
                    raise UserError(
                        f"{str(path)!r} holds one object over several lines: write a list of "
                        "objects, or one object a line"
                    ) from None
                raise _not_json(path, f", line {number}", error) from error


def _is_object(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict)
    except ValueError:
        return False


def _not_json(path: Path, where: str, error: Exception) -> UserError:
    """``where``: the line, where each is read by itself."""
    problem = str(error)
    if where and isinstance(error, json.JSONDecodeError):
        problem = f"{error.msg} at character {error.colno}"
    return UserError(f"{str(path)!r}{where} is not a valid {path.suffix[1:]} file: {problem}")


def _read_parquet(path: Path) -> Table:
    try:
        # In memory, where Dataset.from_parquet writes a cache; and only what the file holds, where
        # read_table makes columns of folders called key=value.
        require_plain(path)
        with pq.ParquetFile(path) as file:
            table, unread = from_arrow(file.read())
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, UserError) as error:
        raise UserError(f"{str(path)!r} is not a valid parquet file: {error}") from error
    return Table(table, unread, _rows_of(path))


def _read_document(path: Path) -> Table:
    """The whole file as one text."""
    return Table(Dataset.from_dict({"text": [read_text(path)]}), place=lambda row: str(path))


def _rows_of(path: Path) -> Place:
    return lambda row: f"{path}, row {row}"


def _lines_of(path: Path, numbers: list[int]) -> Place:
    lines: npt.NDArray[np.int64] = np.asarray(numbers, dtype=np.int64)
    return lambda row: f"{path}, line {lines[row]}"


TABLE_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".parquet": _read_parquet,
    ".txt": _read_document,
}
