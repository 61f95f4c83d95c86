"""Which files are images, recordings or texts by their ending, and which do not count."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hfbench.errors import UserError

Kind = Literal["image", "audio", "text"]

IMAGE_SUFFIXES = (  # that Pillow decodes
    *(".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".jpe"),
    *(".jp2", ".j2k", ".apng", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".ico"),
    *(".qoi", ".mpo"),
)
AUDIO_SUFFIXES = (  # that libsndfile decodes
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd"),
    *(".caf", ".w64", ".rf64", ".sph"),
)
CLASS_TEXT_SUFFIX = ".txt"
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "image": IMAGE_SUFFIXES,
    "audio": AUDIO_SUFFIXES,
    "text": (CLASS_TEXT_SUFFIX,),
}
# Of the same kinds, and not decoded here.
OTHER_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "image": (
        *(".heic", ".heif", ".hif", ".svg", ".svgz", ".jxl", ".raw", ".cr2", ".cr3", ".nef"),
        *(".arw", ".dng", ".orf", ".rw2", ".raf", ".psd", ".exr", ".hdr", ".dcm", ".nii"),
    ),
    "audio": (
        *(".m4a", ".m4b", ".aac", ".wma", ".webm", ".mp4", ".amr", ".3gp", ".ra", ".ape", ".mka"),
        *(".wv", ".mid", ".midi"),
    ),
    "text": (".text", ".md", ".rst", ".html", ".htm", ".pdf", ".doc", ".docx", ".rtf", ".odt"),
}
# What lies beside samples and is none.
DOCUMENT_SUFFIXES = (
    *(CLASS_TEXT_SUFFIX, *OTHER_SUFFIXES["text"], ".csv", ".tsv", ".json", ".jsonl", ".xml"),
    *(".yaml", ".yml", ".parquet", ".xlsx", ".py", ".ipynb", ".sh", ".log", ".toml", ".cfg"),
)
READERS: dict[Kind, str] = {
    "image": "Pillow cannot read them",
    "audio": "libsndfile cannot read them",
    "text": f"texts of classes are {CLASS_TEXT_SUFFIX} files",
}
PLURALS: dict[Kind, str] = {"image": "images", "audio": "recordings", "text": "texts"}
_HIDDEN = (  # what systems and programs put into folders, in lower case
    *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"),
    *("$recycle.bin", "system volume information"),
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no part of the data: ``.x``, or put there by a system."""
    return name.startswith(".") or name.casefold() in _HIDDEN


def is_of(path: Path, kind: Kind) -> bool:
    """Whether it is a file of this kind that can be read."""
    return path.suffix.lower() in SUFFIXES[kind]


def is_like(path: Path, kind: Kind) -> bool:
    """Whether it is a file of this kind, also one that cannot be read."""
    return is_of(path, kind) or path.suffix.lower() in OTHER_SUFFIXES[kind]


def visible_files(folder: Path) -> list[Path]:
    """All files that count, at any depth and behind links, in the order of their paths.

    Raises UserError for a folder that cannot be read.
    """
    return list(_walk(folder))


@dataclass(frozen=True)
class Grouped:
    """Files that count below a folder.

    Attributes:
        folders: each of the folder's own folders with its files, at any depth; also empty ones.
        direct: the files in the folder itself.
    """

    folders: Mapping[Path, Sequence[Path]]
    direct: Sequence[Path]


def grouped(folder: Path, files: Iterable[Path]) -> Grouped:
    """``files``: all that count below ``folder``."""
    own = (e for e in _entries(folder) if e.is_dir() and not is_hidden(e.name))
    folders: dict[str, list[Path]] = {entry.name: [] for entry in own}
    direct: list[Path] = []
    depth = len(folder.parts)
    for file in files:
        parts = file.parts
        place = folders[parts[depth]] if len(parts) > depth + 1 else direct
        place.append(file)
    return Grouped({folder / name: held for name, held in folders.items()}, direct)


def _walk(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if is_hidden(entry.name):
            continue
        if not entry.is_dir():
            yield folder / entry.name
        elif not (entry.is_symlink() and _leads_back(folder, entry.name)):
            yield from _walk(folder / entry.name)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"'{printable(str(folder))}' cannot be read: {error.strerror}") from error


def _leads_back(parent: Path, name: str) -> bool:
    """Whether a link to a folder leads to one that holds it."""
    inner = os.path.realpath(parent / name)
    return (os.path.realpath(parent) + os.sep).startswith(inner + os.sep)


def check_names(paths: Iterable[Path]) -> None:
    """Raise UserError for a name that is not UTF-8: no table and no result can hold it."""
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"the name of '{printable(str(path))}' is not UTF-8: rename it, for instance with "
                "convmv -f latin1 -t utf8 -r --notest FOLDER"
            ) from None


def printable(text: str) -> str:
    r"""Text with what is no character, such as a byte of a file's name, written as ``\xe9``."""
    return os.fsencode(text).decode(errors="backslashreplace") if _has_bytes(text) else text


def _has_bytes(text: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in text)
