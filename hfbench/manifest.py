"""What a folder of ours holds: each file with its size and checksum, in a file written last.

A folder is whole when its manifest is there and every file that it lists is as it was written. A
checksum tells damage (a cut file, a flipped bit, a file of another run), not malice. No library but
xxhash, which reads gigabytes a second.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash

from hfbench.disk import sync, write_whole
from hfbench.plain_files import open_plain, read_plain

MANIFEST = "manifest.json"
VERSION = 1
_CHUNK_BYTES = 2**20


class DamagedError(Exception):
    """A file of ours is not as it was written: the message says which and why."""


def checksum(path: Path) -> str:
    """32 hexadecimal digits of the contents (XXH3, 128 bits). Raises OSError."""
    digest = xxhash.xxh3_128()
    with open_plain(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def text_checksum(values: Any) -> str:
    """The same of plain JSON values, whatever their order in a file."""
    return xxhash.xxh3_128_hexdigest(json.dumps(values, sort_keys=True).encode())


def seal(folder: Path, about: Mapping[str, Any], *, names: Iterable[str] | None = None) -> None:
    """Write the manifest of ``names`` (paths within ``folder``; None: every file below it).

    ``about``: plain JSON values that say whose files these are. Everything is flushed to the disk,
    the manifest last. Raises OSError.
    """
    paths = files_below(folder) if names is None else [folder / name for name in names]
    for path in paths:
        sync(path)
    files = listed(folder, paths)
    values = {"version": VERSION, "about": dict(about), "files": files}
    text = json.dumps({**values, "checksum": text_checksum(values)}, indent=1)
    write_whole(folder / MANIFEST, text + "\n")


def listed(folder: Path, paths: Iterable[Path]) -> dict[str, list[Any]]:
    """Path within ``folder`` -> [bytes, checksum] of each file."""
    return {p.relative_to(folder).as_posix(): [p.stat().st_size, checksum(p)] for p in paths}


def read_manifest(folder: Path) -> dict[str, Any]:
    """``about`` and ``files`` (name -> [bytes, checksum]) as :func:`seal` wrote them.

    Raises DamagedError where there is no manifest, or one that is not as it was written.
    """
    path = folder / MANIFEST
    _refuse_link(path)
    try:
        values = json.loads(read_plain(path))
    except FileNotFoundError as error:
        raise DamagedError(f"{str(path)!r} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(values, dict) or values.pop("checksum", None) != text_checksum(values):
        raise DamagedError(f"{str(path)!r} is not as it was written")
    if values["version"] != VERSION:
        raise DamagedError(f"{str(path)!r} is of version {values['version']}, not {VERSION}")
    return values


def check(folder: Path) -> dict[str, Any]:
    """The ``about`` of a folder whose listed files are all as they were written.

    Every byte of them is read. Raises DamagedError, naming the first that is not.
    """
    values = read_manifest(folder)
    check_files(folder, values["files"])
    about: dict[str, Any] = values["about"]
    return about


def check_files(folder: Path, files: Mapping[str, Sequence[Any]]) -> None:
    """Raise DamagedError unless every file of ``files``, as :func:`listed`, is as it was."""
    for name, (size, expected) in files.items():
        _check_file(inside(folder, name), size, expected)


def inside(folder: Path, name: str) -> Path:
    """The file ``name`` of ``folder``. Raises DamagedError for one elsewhere, or through a link."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DamagedError(f"{name!r} is no file inside {str(folder)!r}")
    for part in (path, *path.parents[: len(Path(name).parts) - 1]):
        _refuse_link(part)
    return path


def _check_file(path: Path, size: int, expected: str) -> None:
    try:
        found = path.stat().st_size
        if found != size:
            raise DamagedError(f"{str(path)!r} has {found:,} bytes; {size:,} were written")
        if checksum(path) != expected:
            raise DamagedError(f"{str(path)!r} holds other bytes than were written")
    except OSError as error:
        raise DamagedError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise DamagedError(f"{str(path)!r} is a link, and was written as a file")


def files_below(folder: Path) -> list[Path]:
    """Every file in a folder and those in it, but its manifest."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
