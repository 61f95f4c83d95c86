"""Folders of folders: splits with classes, splits with metadata, or classes alone."""

from collections.abc import Sequence
from pathlib import Path

from hfbench.data.class_folders import load_class_folders
from hfbench.data.kinds import (
    DOCUMENT_SUFFIXES,
    PLURALS,
    Grouped,
    Kind,
    grouped,
    is_like,
    is_of,
    visible_files,
)
from hfbench.data.leftovers import describe_leftovers
from hfbench.data.metadata import kind_of_media, load_described, load_described_splits, metadata_of
from hfbench.data.rows import Source
from hfbench.data.split_names import split_name
from hfbench.errors import UserError

_MEDIA: tuple[Kind, ...] = ("image", "audio")


def load_folders(path: Path) -> Source:
    """``class/file`` as the split ``train``, or ``split/class/file`` by the names of the splits.

    A folder that holds all others is entered, such as ``data/``. Raises UserError for a folder
    that is neither a split nor a class, and as ``load_class_folders`` does.
    """
    return _load(path, grouped(path, visible_files(path)))


def _load(path: Path, held: Grouped) -> Source:
    found = _sample_folders(held)
    splits = _splits_among(path, list(found))
    if splits:
        return _load_splits(path, splits, held)
    if len(found) == 1:
        ((inner, files),) = found.items()
        if metadata_of(inner) is not None or _holds_all(inner, files):
            return _inside(path, inner, held)
    kind = _kind_of(path, [file for files in found.values() for file in files])
    return load_class_folders(path, "train", kind, held)


def holds_classes(path: Path) -> bool:
    """Whether at least two of its folders may be splits or classes."""
    return len(_sample_folders(grouped(path, visible_files(path)))) > 1


def _sample_folders(held: Grouped) -> dict[Path, Sequence[Path]]:
    """The folders that may be splits or classes, with their files that count."""
    kind = _kind_among([file for files in held.folders.values() for file in files])
    return {
        folder: files
        for folder, files in held.folders.items()
        if any(kind is not None and is_like(file, kind) for file in files)
        or metadata_of(folder) is not None
        or (_is_split(folder) and not _holds_documents_only(files))
    }


def _holds_documents_only(files: Sequence[Path]) -> bool:
    return bool(files) and all(file.suffix.lower() in DOCUMENT_SUFFIXES for file in files)


def _is_split(folder: Path) -> bool:
    named = split_name(folder.name)
    return named is not None and not named.rest


def _kind_among(files: Sequence[Path]) -> Kind | None:
    """Of what can be read, or else of what cannot; texts only where there is nothing else."""
    kinds = (*_MEDIA, "text")
    for test in (is_of, is_like):
        for kind in _MEDIA if test is is_like else kinds:
            if any(test(file, kind) for file in files):
                return kind
    return None


def _kind_of(path: Path, files: Sequence[Path]) -> Kind:
    """The same. Raises UserError for images beside recordings, and for none of them."""
    kind = _kind_among(files)
    readable = {media for media in _MEDIA if any(is_of(file, media) for file in files)}
    return kind_of_media(files, path) if kind is None or len(readable) > 1 else kind


def _splits_among(path: Path, folders: Sequence[Path]) -> list[Path]:
    """Those that are splits: ``Training`` and ``Testing``, or ``seg_train`` and ``seg_test``.

    Raises UserError where this leaves a folder over.
    """
    groups: dict[str, list[Path]] = {}
    for folder in folders:
        if named := split_name(folder.name):
            groups.setdefault(named.rest, []).append(folder)
    chosen = [
        folder
        for rest, group in groups.items()
        if not rest or {"train"} < {n.role for f in group if (n := split_name(f.name))}
        for folder in group
    ]
    rests = {n.rest for folder in chosen if (n := split_name(folder.name))}
    others = [folder for folder in folders if folder not in chosen]
    if chosen and (others or len(rests) > 1):
        stray = others or chosen
        raise UserError(
            f"{str(path)!r} holds {', '.join(f.name for f in chosen)}, which "
            f"{'name splits' if len(chosen) > 1 else 'names a split'}, and "
            f"{', '.join(f.name for f in stray)}, with files as well, which "
            f"{'are' if len(stray) > 1 else 'is'} neither a split nor a class. Move what is not "
            "used out of the folder, give splits the names train, validation and test, or, where "
            "all of these are classes, put them into a folder named train"
        )
    return sorted(chosen)


def _load_splits(path: Path, splits: Sequence[Path], held: Grouped) -> Source:
    kind = _kind_of(path, [file for folder in splits for file in held.folders[folder]])
    parts = []
    for folder in splits:
        table = metadata_of(folder)
        if table is not None:
            parts.append(load_described(table, folder.name))
            continue
        inside = grouped(folder, held.folders[folder])
        loose = sum(is_of(file, kind) for file in inside.direct)
        if loose and not any(is_of(f, kind) for files in inside.folders.values() for f in files):
            raise UserError(
                f"the split {str(folder)!r} holds {loose:,} {PLURALS[kind]} and no folders of "
                "classes, so they have no labels: move it out of the folder, or add a table "
                "metadata.csv with the columns file_name and label"
            )
        parts.append(load_class_folders(folder, folder.name, kind, inside))
    notes = describe_leftovers(
        _outside(held, splits), path, kind, "they are in no folder of a split"
    )
    tables = {name: table for part in parts for name, table in part.tables.items()}
    notes += [
        f"split {split!r}: {n}" for part in parts for split in part.tables for n in part.notes
    ]
    return Source(tables, tuple(notes))


def _outside(held: Grouped, folders: Sequence[Path]) -> list[Path]:
    others = (files for folder, files in held.folders.items() if folder not in folders)
    return [*held.direct, *(file for files in others for file in files)]


def _holds_all(folder: Path, files: Sequence[Path]) -> bool:
    """Whether a single folder is no class: it holds no sample itself."""
    kind = _kind_among(files)
    direct = [file for file in files if file.parent == folder]
    return kind is not None and not any(is_like(file, kind) for file in direct)


def _inside(path: Path, inner: Path, held: Grouped) -> Source:
    files = held.folders[inner]
    table = metadata_of(inner)
    source = _load(inner, grouped(inner, files)) if table is None else load_described_splits(table)
    kind = _kind_of(path, files)
    outside = _outside(held, [inner])
    notes = describe_leftovers(outside, path, kind, "they are in no class folder")
    entered = f"all samples are in its folder {inner.name!r}, which is read in its place"
    return Source(source.tables, (entered, *notes, *source.notes))
