"""What is to be predicted: texts, files, tables and folders as rows without labels."""

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datasets import Dataset

from hfbench.data.columns import Modality, detect_pair, input_candidates, label_candidates
from hfbench.data.headers import header_problem, is_no_name
from hfbench.data.kinds import (
    AUDIO_SUFFIXES,
    IMAGE_SUFFIXES,
    check_names,
    printable,
    visible_files,
)
from hfbench.data.rows import Table
from hfbench.data.tables import TABLE_READERS, load_table
from hfbench.data.text_files import decode, read_text
from hfbench.errors import UserError

STANDARD_INPUT = "-"
TEXT_SUFFIXES = tuple(TABLE_READERS)
_SUFFIXES: Mapping[Modality, tuple[str, ...]] = {
    "text": TEXT_SUFFIXES,
    "image": IMAGE_SUFFIXES,
    "audio": AUDIO_SUFFIXES,
}
_NAMES: Mapping[Modality, tuple[str, str]] = {
    "text": ("a file of texts", "texts"),
    "image": ("an image", "images"),
    "audio": ("a recording", "recordings"),
}
# A short ending behind a word, or a path: no text that somebody wants classified.
_LIKE_A_FILE = re.compile(r"\S*\.[a-z][a-z0-9]{1,4}|(/|~|\.\.?/)\S*", re.IGNORECASE)

Text = tuple[str, str | None]  # a text and, for models that compare two, the other


@dataclass(frozen=True)
class Inputs:
    """What was given, in its order.

    Attributes:
        names: of every row: its path, or the text itself.
        rows: one of the columns ``text`` (and ``text_pair``), ``image`` and ``audio`` (paths).
        notes: which columns were read and which files were not, for people.
    """

    names: tuple[str, ...]
    rows: Dataset
    notes: tuple[str, ...]


def read_inputs(
    given: Sequence[str],
    modality: Modality,
    *,
    standard_input: BinaryIO,
    training_columns: Mapping[str, str] | None = None,
    text_column: str | None = None,
) -> Inputs:
    """Texts, files, tables, folders and ``-`` (one input a line of ``standard_input``) as rows.

    A table's column is ``text_column``, or has the name of the training's, or is detected. What is
    read is UTF-8, or what its byte order mark says, whatever the terminal's encoding is.

    Raises UserError for what does not exist, is of another kind, is empty or cannot be read.
    """
    if modality == "text":
        return _Texts(training_columns, text_column).read(given, standard_input)
    if text_column is not None:
        raise UserError(f"--text-column={text_column} is for texts; {_reads(modality)}")
    notes: list[str] = []
    paths = [
        str(path)
        for argument in given
        for item in (_lines_of(standard_input) if argument == STANDARD_INPUT else [argument])
        for path in _media(item, modality, notes)
    ]
    check_names([Path(path) for path in paths])
    if not paths:
        raise UserError("standard input is empty: write one path a line")
    return Inputs(tuple(paths), Dataset.from_dict({modality: paths}), tuple(notes))


def _media(item: str, modality: Modality, notes: list[str]) -> list[Path]:
    """The file, or the files of a folder that the model reads."""
    path = Path(os.path.expanduser(item))
    if not os.path.exists(path):
        raise UserError(f"'{printable(item)}' does not exist; {_reads(modality)}")
    if not path.is_dir():
        if path.suffix.lower() not in _SUFFIXES[modality]:
            raise _wrong_kind(path, modality)
        return [path]
    files = visible_files(path)
    found = [file for file in files if file.suffix.lower() in _SUFFIXES[modality]]
    others = len(files) - len(found)
    if not found:
        raise UserError(f"{item!r} holds {others} files, none of them fits; {_reads(modality)}")
    if others:
        notes.append(f"{item}: {len(found)} {_NAMES[modality][1]}; other files, left out: {others}")
    return found


class _Texts:
    """Collects texts from what was given."""

    def __init__(self, training: Mapping[str, str] | None, text_column: str | None) -> None:
        self.training, self.text_column = training, text_column
        self.found: list[Text] = []
        self.notes: list[str] = []

    def read(self, given: Sequence[str], standard_input: BinaryIO) -> Inputs:
        for number, item in enumerate(given, start=1):
            if item == STANDARD_INPUT:
                self._add_lines(_lines_of(standard_input), "standard input")
            elif item and os.path.exists(os.path.expanduser(item)):
                self._add_file(Path(os.path.expanduser(item)))
            elif _looks_like_a_file(item):
                raise UserError(
                    f"{item!r} does not exist; if it is meant as a text, write it to standard "
                    f"input and give {STANDARD_INPUT}"
                )
            else:
                self._add((_as_text(item, number), None), f"input {number}")
        if len({pair is None for _, pair in self.found}) > 1:
            raise UserError("some inputs are single texts and others pairs: predict them apart")
        return self._inputs()

    def _inputs(self) -> Inputs:
        columns: dict[str, list[str]] = {"text": [text for text, _ in self.found]}
        pairs = [pair for _, pair in self.found if pair is not None]
        names = columns["text"]
        if pairs:
            columns["text_pair"] = pairs
            names = [f"{text} | {pair}" for text, pair in zip(names, pairs, strict=True)]
        return Inputs(tuple(names), Dataset.from_dict(columns), tuple(self.notes))

    def _add(self, text: Text, where: str) -> None:
        for part in text:
            if part is not None and not part.strip():
                raise UserError(f"{where}: the text is empty")
        if text[1] is None and "text_pair" in (self.training or {}):
            raise UserError(
                f"{where} is a single text, and this model was trained on pairs; give a table with "
                "two columns of texts"
            )
        self.found.append(text)

    def _add_lines(self, lines: Iterator[str], where: str) -> None:
        before = len(self.found)
        for number, line in enumerate(lines, start=1):
            self._add((line, None), f"{where}, line {number}")
        if len(self.found) == before:
            raise UserError(f"{where} is empty: write one text a line")

    def _add_file(self, path: Path) -> None:
        suffix = path.suffix.lower()
        if path.is_dir() or suffix not in TEXT_SUFFIXES:
            raise _wrong_kind(path, "text")
        if suffix == ".txt":
            self._add_lines(_lines(read_text(path)), str(path))
            return
        table = load_table(path)
        rows, place = table.rows, table.place
        assert place is not None  # as of all files
        if len(rows) == 0:
            raise UserError(f"{str(path)!r} has no rows")
        text, pair = self._columns(table, path)
        read = [column for column in (text, pair) if column is not None]
        self.notes.append(f"{path}: {len(rows):,} rows, texts from {' and '.join(read)}")
        self.notes += table.notes
        for row, texts in enumerate(zip(*(rows[column][:] for column in read), strict=True)):
            for column, value in zip(read, texts, strict=True):
                if not isinstance(value, str):
                    raise UserError(f"{place(row)}: {column!r} holds {value!r}, no text")
            self._add((texts[0], texts[1] if pair else None), place(row))

    def _columns(self, found: Table, path: Path) -> tuple[str, str | None]:
        """Names of the columns with the texts and, for models that compare two, the others."""
        table, unread = found.rows, found.unread
        training, names = self.training or {}, table.column_names
        asked = {self.text_column, training.get("text"), training.get("text_pair")}
        for name, why in unread.items():
            if name in asked:
                raise UserError(f"{path}: the column {name!r} cannot be read: {why}")
        text, pair = (
            training[key] if training.get(key) in names else None for key in ("text", "text_pair")
        )
        if self.text_column is not None:
            if self.text_column not in names:
                raise UserError(
                    f"--text-column={self.text_column} is not in {path}; choose: {', '.join(names)}"
                )
            text = self.text_column
        taken = label_candidates(table)
        if text is None and (self.training is None or "text_pair" in training):
            text, pair = detect_pair(table, taken)
        if text is None:
            candidates = input_candidates(table, "text", taken)
            if len(candidates) != 1:
                raise UserError(
                    f"{path}: which column holds the texts? Choose with --text-column: "
                    f"{', '.join(candidates or names)}{header_problem(table)}"
                )
            text = candidates[0]
            if is_no_name(table, text):
                raise UserError(
                    f"{path}: the column {text!r} may be meant{header_problem(table)}. If this is "
                    "its name, choose it with --text-column"
                )
        if "text_pair" in training and pair is None:
            raise UserError(
                f"{path}: this model was trained on pairs of {training['text']} and "
                f"{training['text_pair']}; the columns are: {', '.join(names)}"
            )
        return text, pair


def _lines_of(stream: BinaryIO) -> Iterator[str]:
    """Raises UserError for bytes that are no text."""
    return _lines(decode(stream.read(), "standard input"))


def _lines(text: str) -> Iterator[str]:
    """The lines without their ends."""
    return (line.rstrip("\n") for line in io.StringIO(text, newline=None))


def _as_text(argument: str, number: int) -> str:
    """Raises UserError for an argument of a command that is not UTF-8."""
    return decode(os.fsencode(argument), f"input {number}")


def _looks_like_a_file(text: str) -> bool:
    known = (*TEXT_SUFFIXES, *IMAGE_SUFFIXES, *AUDIO_SUFFIXES)
    return _LIKE_A_FILE.fullmatch(text) is not None or text.lower().endswith(known)


def _wrong_kind(path: Path, modality: Modality) -> UserError:
    kind = f"a file of the kind {path.suffix or path.name!r}"
    for other, suffixes in _SUFFIXES.items():
        if path.suffix.lower() in suffixes:
            kind = _NAMES[other][0]
    if path.is_dir():
        kind = "a folder"
    return UserError(f"{str(path)!r} is {kind}, and {_reads(modality)}")


def _reads(modality: Modality) -> str:
    """What a model reads, and how to give it that."""
    files = " ".join(_SUFFIXES[modality])
    if modality == "text":
        return f"this model reads texts: give texts, - for lines of standard input, or {files}"
    return f"this model reads {_NAMES[modality][1]}: give files ({files}) or folders of them"
