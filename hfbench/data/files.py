"""Data in local files: tables, folders of tables, folders of images, sounds or texts."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from hfbench.data.arrow_columns import concatenate
from hfbench.data.columns import is_string
from hfbench.data.idx import files_of, holds_idx_files, load_idx_folder
from hfbench.data.kinds import is_hidden, visible_files
from hfbench.data.leftovers import unused
from hfbench.data.metadata import METADATA_NAMES, load_described_splits, metadata_of
from hfbench.data.rows import Place, Source, Table
from hfbench.data.split_folders import holds_classes, load_folders
from hfbench.data.split_names import SplitName, split_name
from hfbench.data.tables import TABLE_READERS, load_table
from hfbench.errors import UserError

# What the name of one of several files of a split ends in: train-00000-of-00002, train_1.
_SHARD = re.compile(
    r"[-_. ]?(part[-_. ]?)?\d+([-_. ]of[-_. ](?P<count>\d+))?(-[0-9a-f]{16})?$", re.IGNORECASE
)


def load_local(path: Path) -> Source:
    """Every split that a local file or folder holds, by its name on the disk.

    A single table is the split ``train``. A folder holds tables named by split (``train.csv``,
    ``Test-00000-of-00001.parquet``, also under ``data/``), or ``class/file`` or
    ``split/class/file`` with images, sounds or texts; the column of images and sounds is ``image``
    or ``audio`` and holds the file's path. Or it holds images or sounds and, beside them or for
    each split, a table ``metadata.csv`` (jsonl, parquet) with the column ``file_name``, whose
    other columns are kept. Or a folder holds MNIST's four idx files. Names of splits are those
    that :mod:`hfbench.data.split_names` knows. Hidden files and folders do not count.

    Raises UserError for an unknown kind of file, an unreadable table, a folder of another shape,
    several tables of one split, and a folder that is neither a split nor a class.
    """
    if path.is_file():
        return Source({"train": load_table(path)})
    if holds_idx_files(path):
        return _load_idx(path)
    tables = {folder: _tables_in(folder) for folder in (path, path / "data")}
    for folder, found in tables.items():
        named = [table for table in found if _split_of(table) is not None]
        if named:
            return _load_tables(path, folder, named)
    if table := metadata_of(path):
        return load_described_splits(table)
    if tables[path] and not holds_classes(path):
        names = ", ".join(table.name for table in tables[path])
        raise UserError(
            f"{str(path)!r} holds {names}: name the files train, validation and test, or give "
            "one of them as data.source"
        )
    return load_folders(path)


def _load_idx(path: Path) -> Source:
    source = Source.of(load_idx_folder(path))
    left = sorted(set(visible_files(path)) - set(files_of(path)))
    notes = [unused(left, path, "they are not among the four of MNIST")] if left else []
    return Source(source.tables, tuple(notes))


def _tables_in(folder: Path) -> list[Path]:
    """Metadata is none, nor is a txt file without a split's name, such as LICENSE.txt."""
    if not folder.is_dir():
        return []
    files = (e for e in sorted(folder.iterdir()) if e.is_file() and not is_hidden(e.name))
    tables = (file for file in files if file.suffix.lower() in TABLE_READERS)
    return [
        table
        for table in tables
        if table.name not in METADATA_NAMES
        and (table.suffix.lower() != ".txt" or _split_of(table) is not None)
    ]


@dataclass(frozen=True)
class _Named:
    """A table with a split's name: ``train`` of train-00000-of-00002.csv, one of two."""

    base: str
    split: SplitName
    shard: bool
    count: int | None


def _split_of(table: Path) -> _Named | None:
    shard = _SHARD.search(table.stem)
    base = table.stem if shard is None else table.stem[: shard.start()]
    split = split_name(base)
    if split is None or (table.suffix.lower() == ".txt" and split.rest):
        return None  # testing_list.txt is no text
    count = None if shard is None else shard["count"]
    return _Named(base, split, shard is not None, None if count is None else int(count))


def _load_tables(path: Path, folder: Path, tables: Sequence[Path]) -> Source:
    splits: dict[str, list[Path]] = {}
    for table, named in _checked(tables).items():
        splits.setdefault(named.base, []).append(table)
    loaded = {split: _concatenated(split, files) for split, files in splits.items()}
    used = {os.path.normpath(table) for table in tables} | _named_files(path, loaded.values())
    return Source(loaded, tuple(_beside(path, folder, used)))


def _checked(tables: Sequence[Path]) -> Mapping[Path, _Named]:
    """What each is. Raises UserError where a split has several tables, or lacks some."""
    named = {table: found for table in tables if (found := _split_of(table))}
    plain = {found.split.role for found in named.values() if not found.split.rest}
    groups: dict[tuple[str, str], list[Path]] = {}
    for table, found in named.items():
        # train_extra.csv beside train.csv
        rest = "" if found.split.role in plain else found.split.rest
        groups.setdefault((found.split.role, rest), []).append(table)
    for (role, _), files in groups.items():
        kinds = {(named[file].base, file.suffix.lower()) for file in files}
        if len(files) > 1 and (len(kinds) > 1 or not all(named[file].shard for file in files)):
            raise UserError(
                f"several tables for the split {role}: {', '.join(file.name for file in files)}. "
                f"Keep one of them in {str(files[0].parent)!r}, or name parts of one table "
                f"{role}-0, {role}-1 and so on"
            )
        counts = {count for file in files if (count := named[file].count) is not None}
        if counts and counts != {len(files)}:
            raise UserError(
                f"{str(files[0].parent)!r} holds {len(files)} of {max(counts)} files of the split "
                f"{role}: {', '.join(file.name for file in files)}; fetch the others"
            )
    return named


def _concatenated(split: str, files: Sequence[Path]) -> Table:
    shards = [load_table(file) for file in files]
    if len(shards) == 1:
        return shards[0]
    lost = {name: why for shard in shards for name, why in shard.unread.items()}
    parts = [
        shard.rows.remove_columns([name for name in shard.rows.column_names if name in lost])
        for shard in shards
    ]
    rows, unread = concatenate(parts, [file.name for file in files])
    notes = tuple(note for shard in shards for note in shard.notes)
    return Table(rows, lost | unread, _place_among(shards), notes)


def _place_among(shards: Sequence[Table]) -> Place:
    def place(row: int) -> str:
        for shard in shards:
            if row < len(shard.rows):
                assert shard.place is not None  # as of all files
                return shard.place(row)
            row -= len(shard.rows)
        raise IndexError(row)

    return place


def _named_files(path: Path, tables: Iterable[Table]) -> set[str]:
    """Files that a column names from the folder on, as images and recordings are named."""
    named: set[str] = set()
    for table in tables:
        for column, kind in table.rows.features.items():
            values = table.rows[column] if is_string(kind) else []
            first = next((value for value in values if value), None)
            if first is not None and os.path.isfile(path / first):
                named.update(os.path.normpath(path / value) for value in values if value)
    return named


def _beside(path: Path, folder: Path, used: Set[str]) -> list[str]:
    """Notes on all other files."""
    all_tables = set(_tables_in(folder))
    left = [file for file in visible_files(path) if os.path.normpath(file) not in used]
    tables = [file for file in left if file in all_tables]
    others = [file for file in left if file not in all_tables]
    notes = [unused(tables, path, "their names are no split's")] if tables else []
    if others:
        notes.append(unused(others, path, "no column of the tables names them"))
    return notes
