"""Folders whose sub-folders are classes: ``class/.../file`` with images, recordings or texts."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset

from hfbench.data.kinds import (
    DOCUMENT_SUFFIXES,
    OTHER_SUFFIXES,
    PLURALS,
    READERS,
    Grouped,
    Kind,
    check_names,
    is_like,
    is_of,
)
from hfbench.data.leftovers import describe_leftovers
from hfbench.data.rows import Source, Table
from hfbench.data.split_names import split_name
from hfbench.data.text_files import read_text
from hfbench.errors import UserError


def load_class_folders(folder: Path, split: str, kind: Kind, held: Grouped) -> Source:
    """The files of this kind with the column ``label``, the class's name (Unicode NFC).

    ``held``: what counts in the folder. Images and recordings are paths, texts (one a file) are
    read. Raises UserError for a class without a file that can be read and for a class that is split
    inside.
    """
    classes = held.folders
    used = {entry: [f for f in files if is_of(f, kind)] for entry, files in classes.items()}
    _check_classes(classes, used, kind)
    _check_splits_inside(used)
    labels = {entry: unicodedata.normalize("NFC", entry.name) for entry in classes}
    files = [file for found in used.values() for file in found]
    check_names(files)
    if not files:
        raise UserError(f"{str(folder)!r} has no class folder with {PLURALS[kind]}")
    names = [labels[entry] for entry, found in used.items() for _ in found]
    left = [file for found in classes.values() for file in found if not is_of(file, kind)]
    notes = describe_leftovers([*held.direct, *left], folder, kind, "they are in no class folder")
    notes += [
        f"the folder {str(entry)!r} is read as the label {label!r} in Unicode's composed form "
        "(NFC), so that one spelling is one label"
        for entry, label in labels.items()
        if used[entry] and entry.name != label
    ]
    if kind == "text":
        rows = Dataset.from_dict({"text": [read_text(file) for file in files], "label": names})
        table = Table(rows, place=lambda row: str(files[row]))
    else:
        paths = [str(file.absolute()) for file in files]
        table = Table(Dataset.from_dict({str(kind): paths, "label": names}))
    return Source({split: table}, tuple(notes))


def _check_classes(
    classes: Mapping[Path, Sequence[Path]], used: Mapping[Path, Sequence[Path]], kind: Kind
) -> None:
    """Raise UserError for folders that would be classes without a sample."""
    for folder, files in classes.items():
        if used[folder] or (files and _holds_documents(files, kind)):
            continue
        if not files:
            raise UserError(f"the class folder {str(folder)!r} is empty: fill it or remove it")
        endings = sorted({file.suffix.lower() or file.name for file in files})
        why = READERS[kind] if any(e in OTHER_SUFFIXES[kind] for e in endings) else ""
        raise UserError(
            f"the class folder {str(folder)!r} has {len(files):,} files and none that can be read: "
            f"{' '.join(endings[:8])}{f' ({why})' if why else ''}; convert them, or remove the "
            "folder"
        )


def _holds_documents(files: Sequence[Path], kind: Kind) -> bool:
    """Whether a folder is no class, such as docs/ or annotations/."""
    return all(f.suffix.lower() in DOCUMENT_SUFFIXES and not is_like(f, kind) for f in files)


def _check_splits_inside(used: Mapping[Path, Sequence[Path]]) -> None:
    """Raise UserError for ``class/train/file`` beside ``class/test/file``."""
    for folder, files in used.items():
        depth = len(folder.parts)
        inner = {parts[depth] for file in files if len(parts := file.parts) > depth + 1}
        roles = {named.role for name in inner if (named := split_name(name)) and not named.rest}
        if len(roles) > 1:
            raise UserError(
                f"the class folder {str(folder)!r} holds the splits {', '.join(sorted(inner))}: "
                "put the splits outside (train/class/file, test/class/file)"
            )
