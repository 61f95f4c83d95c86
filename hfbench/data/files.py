"""Data in local files: tables, folders of tables, folders of images, sounds or texts."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from datasets import Dataset, Features, Value, concatenate_datasets

from hfbench.data.idx import holds_idx_files, load_idx_folder
from hfbench.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
CLASS_TEXT_SUFFIX = ".txt"
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN = "file_name"  # of metadata, as datasets' imagefolder and audiofolder have it
SPLIT_NAMES = ("train", "validation", "valid", "val", "dev", "test")


def load_local(path: Path) -> dict[str, Dataset]:
    """Every split that a local file or folder holds.

    A single table is the split ``train``. A folder holds tables named by split (``train.csv``,
    ``test-00000-of-00001.parquet``, also under ``data/``), or ``class/file`` or
    ``split/class/file`` with images, sounds or texts; the column of images and sounds is ``image``
    or ``audio`` and holds the file's path. Or it holds images or sounds and, beside them or for
    each split, a table ``metadata.csv`` (jsonl, parquet) with the column ``file_name``, whose
    other columns are kept. Or a folder holds MNIST's four idx files.

    Raises UserError for an unknown kind of file, an unreadable table and a folder of another
    shape.
    """
    if path.is_file():
        return {"train": load_table(path)}
    if holds_idx_files(path):
        return load_idx_folder(path)
    for folder in (path, path / "data"):
        tables = _visible(folder, _is_table)
        if tables:
            return _load_tables(folder, tables)
    if table := _metadata_of(path):
        return _by_first_folder(load_table(table), table)
    splits = _visible(path, lambda entry: entry.is_dir() and entry.name in SPLIT_NAMES)
    if splits:
        return {folder.name: _load_split_folder(folder) for folder in splits}
    return {"train": _load_class_folders(path)}


def load_table(path: Path) -> Dataset:
    """One .csv, .tsv, .json, .jsonl, .parquet or .txt file, in memory.

    Every value of .csv and .tsv is a string. Fields of .csv may be quoted; in .tsv a quote is an
    ordinary character (IANA text/tab-separated-values).
    """
    reader = TABLE_READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{str(path)!r}: files of the kind {path.suffix!r} are not read; choose: "
            f"{', '.join(TABLE_READERS)}"
        )
    try:
        return reader(path)
    except (csv.Error, json.JSONDecodeError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UserError(f"{str(path)!r} is not a valid {path.suffix[1:]} file: {error}") from error
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


def _load_tables(folder: Path, tables: list[Path]) -> dict[str, Dataset]:
    parts: dict[str, list[Path]] = {}
    for table in tables:
        split = next((name for name in SPLIT_NAMES if _is_of_split(table.stem, name)), None)
        if split is not None:
            parts.setdefault(split, []).append(table)
    if not parts:
        names = ", ".join(table.name for table in tables)
        raise UserError(
            f"{str(folder)!r} holds {names}: name the files train, validation and test, or give "
            "one of them as data.source"
        )
    return {split: _concatenate(split, files) for split, files in parts.items()}


def _concatenate(split: str, files: list[Path]) -> Dataset:
    shards = [load_table(file) for file in files]
    try:
        return concatenate_datasets(shards)
    except (ValueError, pa.ArrowException) as error:
        names = ", ".join(file.name for file in files)
        raise UserError(
            f"the files of split {split!r} in {str(files[0].parent)!r} ({names}) hold columns of "
            f"different types; write them with the same types: {error}"
        ) from error


def _is_of_split(stem: str, split: str) -> bool:
    return stem == split or stem.startswith((f"{split}-", f"{split}_", f"{split}."))


def _is_table(entry: Path) -> bool:
    """Metadata is none, nor is a txt file without a split's name, such as LICENSE.txt."""
    if entry.suffix.lower() == ".txt":
        return any(_is_of_split(entry.stem, split) for split in SPLIT_NAMES)
    return entry.suffix.lower() in TABLE_READERS and entry.name not in METADATA_NAMES


def _load_split_folder(folder: Path) -> Dataset:
    table = _metadata_of(folder)
    if table is None:
        return _load_class_folders(folder)
    return _with_media(load_table(table), table)


def _metadata_of(folder: Path) -> Path | None:
    found = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{str(folder)!r} holds {' and '.join(f.name for f in found)}: keep one")
    return found[0] if found else None


def _by_first_folder(rows: Dataset, table: Path) -> dict[str, Dataset]:
    """Files below folders named by split belong to these splits; else all are ``train``.

    Rows without a file are kept, in the first split (``train`` where there is one), to be counted
    among the bad ones.

    Raises UserError where only some of the files are below such folders.
    """
    whole = _with_media(rows, table)
    names = rows[FILE_COLUMN][:]
    firsts = [Path(name).parts[0] if name else None for name in names]
    splits = [split for split in SPLIT_NAMES if split in firsts]
    if not splits:
        return {"train": whole}
    stray = [i for i, first in enumerate(firsts) if first not in (*SPLIT_NAMES, None)]
    if stray:
        raise UserError(
            f"{str(table)!r}: {len(stray):,} of {len(names):,} files (row {stray[0]}: "
            f"{names[stray[0]]!r}) are in none of the folders {', '.join(splits)}, which name "
            "splits: put every file into a folder named by its split, or none"
        )
    of = [first or splits[0] for first in firsts]
    return {s: whole.select([i for i, split in enumerate(of) if split == s]) for s in splits}


def _with_media(rows: Dataset, table: Path) -> Dataset:
    """The rows of metadata with the path of their file in the column ``image`` or ``audio``."""
    if FILE_COLUMN not in rows.column_names:
        raise UserError(
            f"{str(table)!r} needs a column {FILE_COLUMN} with paths from its folder on; it has: "
            f"{', '.join(rows.column_names)}"
        )
    names = rows[FILE_COLUMN][:]
    kind = _kind_of_media([Path(name) for name in names if name], table)
    paths = [str((table.parent / name).absolute()) if name else None for name in names]
    if kind in rows.column_names:
        raise UserError(f"{str(table)!r} has a column {kind!r} beside {FILE_COLUMN}: keep one")
    return rows.remove_columns(FILE_COLUMN).add_column(kind, paths, feature=Value("string"))


def _kind_of_media(files: Sequence[Path], where: Path) -> str:
    kinds = {
        kind
        for kind, suffixes in (("image", IMAGE_SUFFIXES), ("audio", AUDIO_SUFFIXES))
        if any(file.suffix.lower() in suffixes for file in files)
    }
    if len(kinds) != 1:
        found = "both images and sounds" if kinds else "no images, sounds or texts in class folders"
        raise UserError(
            f"{str(where)!r} holds {found}. A folder may hold tables named by split (train.csv), "
            f"{METADATA_NAMES[0]} with the column {FILE_COLUMN}, MNIST's idx files, or class/file "
            f"or train/class/file with one of {' '.join(IMAGE_SUFFIXES)}, one of "
            f"{' '.join(AUDIO_SUFFIXES)}, or {CLASS_TEXT_SUFFIX}"
        )
    return kinds.pop()


def _load_class_folders(folder: Path) -> Dataset:
    """``folder/class/.../file`` as a path or text and the column ``label`` (the class's name).

    A class folder's txt files are its texts, one each, where there are neither images nor sounds.
    """
    files, labels = _files_by_class(folder, IMAGE_SUFFIXES + AUDIO_SUFFIXES)
    if not files:
        texts, labels = _files_by_class(folder, (CLASS_TEXT_SUFFIX,))
        if texts:
            return Dataset.from_dict({"text": list(map(_read_text, texts)), "label": labels})
    kind = _kind_of_media(files, folder)
    return Dataset.from_dict({kind: [str(file.absolute()) for file in files], "label": labels})


def _files_by_class(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    found = [
        (file, label.name)
        for label in _visible(folder, Path.is_dir)
        for file in files_below(label, suffixes)
    ]
    return [file for file, _ in found], [label for _, label in found]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} is not a readable UTF-8 text: {error}") from error


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files with one of these endings, at any depth, in the order of their paths."""
    return [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in suffixes]


def _visible(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    if not folder.is_dir():
        return []
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return [entry for entry in entries if wanted(entry)]


def _read_csv(path: Path) -> Dataset:
    return _read_delimited(path, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def _read_tsv(path: Path) -> Dataset:
    return _read_delimited(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_delimited(path: Path, *, delimiter: str, quoting: int) -> Dataset:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
        header = next(reader, [])
        if not header or len(set(header)) < len(header):
            raise UserError(f"{str(path)!r} needs a first line of different column names")
        columns: list[list[str]] = [[] for _ in header]
        for row in reader:
            if row and len(row) != len(header):
                raise UserError(
                    f"{str(path)!r}, line {reader.line_num}: {len(row)} fields, but the first line "
                    f"names {len(header)} columns"
                )
            for column, value in zip(columns, row, strict=False):
                column.append(value)
    return Dataset.from_dict(
        dict(zip(header, columns, strict=True)),
        features=Features({name: Value("string") for name in header}),
    )


def _read_json(path: Path) -> Dataset:
    """A list of objects, or one object a line."""
    text = path.read_text(encoding="utf-8-sig")
    rows = json.loads(text) if text.lstrip().startswith("[") else list(_json_lines(text))
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{str(path)!r} must hold a list of objects, or one object a line")
    names = {name: None for row in rows for name in row}
    return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})


def _json_lines(text: str) -> Iterator[Any]:
    # Not splitlines: JSON's strings may hold other line separators, such as U+2028, as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise json.JSONDecodeError(f"line {number}: {error.msg}", line, error.pos) from None


def _read_parquet(path: Path) -> Dataset:
    return Dataset(pq.read_table(path))  # in memory: Dataset.from_parquet writes a cache


def _read_document(path: Path) -> Dataset:
    """The whole file as one text."""
    return Dataset.from_dict({"text": [_read_text(path)]})


TABLE_READERS: dict[str, Callable[[Path], Dataset]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".parquet": _read_parquet,
    ".txt": _read_document,
}
