"""Folders of images or recordings with a table ``metadata.csv`` that names them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, Value

from hfbench.data.columns import is_string
from hfbench.data.kinds import SUFFIXES, Kind, visible_files
from hfbench.data.leftovers import describe_leftovers
from hfbench.data.rows import Source, Table
from hfbench.data.split_names import split_name
from hfbench.data.tables import load_table
from hfbench.errors import UserError

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN = "file_name"  # of metadata, as datasets' imagefolder and audiofolder have it
NO_ROW = "no row of the metadata names them"


def metadata_of(folder: Path) -> Path | None:
    """Its table. Raises UserError where there are several."""
    found = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{str(folder)!r} holds {' and '.join(f.name for f in found)}: keep one")
    return found[0] if found else None


def load_described(path: Path, split: str) -> Source:
    """All files that the table names as one split; its other columns are kept."""
    table = load_table(path)
    rows, kind = _with_media(table, path)
    return Source({split: replace(table, rows=rows)}, _leftovers(rows, kind, path))


def load_described_splits(path: Path) -> Source:
    """Files below folders named by split belong to these splits; else all are ``train``.

    Rows without a file are kept, in the first split (``train`` where there is one), to be counted
    among the bad ones.

    Raises UserError where only some of the files are below such folders.
    """
    table = load_table(path)
    rows, kind = _with_media(table, path)
    notes = _leftovers(rows, kind, path)
    names = table.rows[FILE_COLUMN][:]
    firsts = [Path(name).parts[0] if name and len(Path(name).parts) > 1 else None for name in names]
    splits = _splits_among(firsts)
    if not splits:
        return Source({"train": replace(table, rows=rows)}, notes)
    stray = [i for i, first in enumerate(firsts) if names[i] and first not in splits]
    if stray:
        raise UserError(
            f"{table.place(stray[0]) if table.place else path}: {len(stray):,} of {len(names):,} "
            f"files (row {stray[0]}: {names[stray[0]]!r}) are in none of the folders "
            f"{', '.join(splits)}, which name splits: put every file into a folder named by its "
            "split, or none"
        )
    of = [first or splits[0] for first in firsts]
    return Source({split: _part(table, rows, of, split) for split in splits}, notes)


def _splits_among(folders: Sequence[str | None]) -> list[str]:
    """Names of splits, those of train first."""
    order = ("train", "validation", "test")
    named = {f: found for f in folders if f and (found := split_name(f)) and not found.rest}
    return sorted(named, key=lambda folder: (order.index(named[folder].role), folder))


def _part(table: Table, rows: Dataset, splits: Sequence[str], split: str) -> Table:
    """The rows of one split, which know where they stand in the table."""
    chosen = [row for row, of in enumerate(splits) if of == split]
    place = table.place
    if place is None:
        return replace(table, rows=rows.select(chosen))
    return replace(table, rows=rows.select(chosen), place=lambda row: place(chosen[row]))


def _with_media(table: Table, path: Path) -> tuple[Dataset, Kind]:
    """The rows with the path of their file in a column, and its name: ``image`` or ``audio``."""
    rows = table.rows
    if FILE_COLUMN not in rows.column_names or not is_string(rows.features[FILE_COLUMN]):
        unread = table.unread.get(FILE_COLUMN)
        found = (
            ", ".join(rows.column_names) if unread is None else f"one that cannot be read: {unread}"
        )
        raise UserError(
            f"{str(path)!r} needs a column {FILE_COLUMN} with paths from its folder on; it has: "
            f"{found}"
        )
    names = rows[FILE_COLUMN][:]
    kind = kind_of_media([Path(name) for name in names if name], path)
    if kind in rows.column_names:
        raise UserError(f"{str(path)!r} has a column {kind!r} beside {FILE_COLUMN}: keep one")
    paths = [str((path.parent / name).absolute()) if name else None for name in names]
    rows = rows.remove_columns(FILE_COLUMN).add_column(kind, paths, feature=Value("string"))
    return rows, kind


def kind_of_media(files: Sequence[Path], where: Path) -> Kind:
    """Raises UserError for images beside recordings, and for neither."""
    endings = {file.suffix.lower() for file in files}
    media: tuple[Kind, ...] = ("image", "audio")
    kinds = [kind for kind in media if endings.intersection(SUFFIXES[kind])]
    if len(kinds) == 1:
        return kinds[0]
    found = "both images and sounds" if kinds else "no images, sounds or texts in class folders"
    raise UserError(
        f"{str(where)!r} holds {found}. A folder may hold tables named by split (train.csv), "
        f"{METADATA_NAMES[0]} with the column {FILE_COLUMN}, MNIST's idx files, or class/file or "
        f"train/class/file with one of {' '.join(SUFFIXES['image'])}, one of "
        f"{' '.join(SUFFIXES['audio'])}, or {' '.join(SUFFIXES['text'])}"
    )


def _leftovers(rows: Dataset, kind: Kind, path: Path) -> tuple[str, ...]:
    here = Path(os.path.abspath(path.parent))
    used = {os.path.normpath(file) for file in rows[kind][:] if file} | {str(here / path.name)}
    left = [file for file in visible_files(here) if str(file) not in used]
    return tuple(describe_leftovers(left, here, kind, NO_ROW))
