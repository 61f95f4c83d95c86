"""Columns for ``datasets`` from JSON's values or from Arrow, without those that it cannot hold."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
from datasets import Dataset, Features, concatenate_datasets

from hfbench.data.rows import Place
from hfbench.errors import UserError
from hfbench.plain_json import depth

SURROGATES = ("\ud800", "\udfff")  # the first and the last
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
DEEPEST = 16  # lists and objects inside each other; Arrow and datasets have limits of their own
Unread = dict[str, str]  # column -> why it cannot be read

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 60


def from_values(
    columns: Mapping[str, list[Any]], place: Place
) -> tuple[Dataset, Unread, tuple[str, ...]]:
    """JSON's values: the rows, the columns that are left out, and notes on what was replaced.

    Lone surrogates (half of a character, as of an emoji that was cut) become U+FFFD: no UTF-8 text
    can hold them.
    """
    arrays: dict[str, pa.Array] = {}
    unread: Unread = {}
    notes = []
    for name, values in columns.items():
        deep = [
            row
            for row, value in enumerate(values)
            if isinstance(value, (dict, list)) and depth(value, DEEPEST) > DEEPEST
        ]
        if deep:
            unread[name] = (
                f"{place(deep[0])} holds lists or objects that are nested more than {DEEPEST} deep"
            )
            continue
        try:
            arrays[name] = _array(values)
            continue
        except UnicodeEncodeError:
            whole = [_without_surrogates(value) for value in values]
            rows = [row for row, value in enumerate(whole) if value != values[row]]
            notes.append(
                f"half characters (lone surrogates) were replaced by {REPLACEMENT} in "
                f"{len(rows):,} rows of the column {name!r}; the first: {place(rows[0])}"
            )
        except (OverflowError, pa.ArrowException):
            whole = values
        try:
            arrays[name] = _array(whole)
        except (OverflowError, pa.ArrowException):
            unread[name] = _misfit(whole, place)
    return Dataset(pa.table(arrays)), unread, tuple(notes)


def from_arrow(table: pa.Table) -> tuple[Dataset, Unread]:
    """Parquet's columns: the rows and the columns that are left out.

    Categories are their values, extension types what they are stored as, decimal numbers float64
    where that holds them exactly.

    Raises UserError for two columns of one name.
    """
    twice = {name for name in table.column_names if table.column_names.count(name) > 1}
    if twice:
        raise UserError(f"two columns have the name {min(twice)!r}")
    unread: Unread = {}
    for name in table.column_names:
        place, column = table.column_names.index(name), table.column(name)
        try:
            _check_depth(column.type)
            column.validate(full=True)  # of texts: whether they are UTF-8
            plain = _plain(column, table.select([name]).schema)
        except (ValueError, pa.ArrowException) as error:
            unread[name] = str(error)
            table = table.remove_column(place)
        else:
            if plain is not column:
                table = table.set_column(place, name, plain)
    return Dataset(table), unread


def concatenate(parts: Sequence[Dataset], names: Sequence[str]) -> tuple[Dataset, Unread]:
    """The rows of several files; columns of types that do not go together are left out."""
    try:
        return concatenate_datasets(list(parts)), {}
    except (ValueError, pa.ArrowException):
        unread = _without_one_type(parts, names)
    kept = [part.remove_columns([c for c in part.column_names if c in unread]) for part in parts]
    return concatenate_datasets(kept), unread


def _without_one_type(parts: Sequence[Dataset], names: Sequence[str]) -> Unread:
    unread: Unread = {}
    for column in {name: None for part in parts for name in part.column_names}:
        holding = [
            (part.select_columns([column]), name)
            for part, name in zip(parts, names, strict=True)
            if column in part.column_names
        ]
        try:
            concatenate_datasets([part for part, _ in holding])
        except (ValueError, pa.ArrowException):
            kinds = {str(part.features[column]): name for part, name in holding}
            held = " and ".join(f"{kind} in {name}" for kind, name in kinds.items())
            unread[column] = f"it holds {held}; write the files with the same types"
    return unread


def _misfit(values: Sequence[Any], place: Place) -> str:
    """The first value that does not go with those before it, found by halving."""
    good, bad = 0, len(values)  # the first `good` go together, the first `bad` do not
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _fits(values[:middle]) else (good, middle)
    value = values[bad - 1]
    problem = "which does not go with the rows before it"
    if any(_is_too_long(part) for part in _parts(value)):
        problem = "and integers have at most 64 bits"
    return f"{place(bad - 1)} holds {_shown.repr(value)}, {problem}"


def _fits(values: Sequence[Any]) -> bool:
    try:
        _array(values)
    except (OverflowError, pa.ArrowException):
        return False
    return True


def _array(values: Sequence[Any]) -> pa.Array:
    """Raises as Arrow does for values that do not go together, and for a truth among numbers.

    Arrow takes true for 1.0.
    """
    array = pa.array(values)
    if pa.types.is_floating(array.type) and any(isinstance(value, bool) for value in values):
        raise pa.ArrowTypeError("true or false among numbers")
    return array


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _parts(item)
    else:
        yield value


def _is_too_long(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        first, last = SURROGATES
        return "".join(REPLACEMENT if first <= letter <= last else letter for letter in value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _check_depth(kind: pa.DataType) -> None:
    level = [kind]
    for _ in range(DEEPEST + 1):
        level = [one.field(i).type for one in level for i in range(one.num_fields)]
    if level:
        raise ValueError(f"it holds lists or objects that are nested more than {DEEPEST} deep")


def _plain(column: pa.ChunkedArray, schema: pa.Schema) -> pa.ChunkedArray:
    """The column in a type of ``datasets``; the same object where it has one already.

    Raises ValueError where there is none.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType) and not _is_known(schema):
        chunks = [chunk.storage for chunk in column.chunks]
        storage = pa.chunked_array(chunks, kind.storage_type)
        return _plain(storage, pa.schema([(schema.names[0], kind.storage_type)]))
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    Features.from_arrow_schema(schema)
    return _as_floats(column) if pa.types.is_decimal(kind) else column


def _is_known(schema: pa.Schema) -> bool:
    try:
        Features.from_arrow_schema(schema)
    except ValueError:
        return False
    return True


def _as_floats(column: pa.ChunkedArray) -> pa.ChunkedArray:
    floats = column.cast(pa.float64())
    try:
        exact = floats.cast(column.type).equals(column)
    except pa.ArrowException:
        exact = False
    return floats if exact else column
