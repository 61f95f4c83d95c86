"""The files of a commit: what changes them, and how the client is told about them."""

import base64
import fnmatch
from collections.abc import Iterable
from typing import Any

from .card import check_card
from .store import Commit, Refusal, Repository, StoredFile, lfs_pointer


def matches(path: str, patterns: Iterable[str]) -> bool:
    """As in .gitattributes: a pattern without a slash is about the file's name alone."""
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatch(path if "/" in rule else name, rule) for rule in patterns)


def apply(
    repository: Repository, files: dict[str, StoredFile], key: str, value: dict[str, Any]
) -> None:
    path = value["path"]
    if key == "file":
        contents = base64.b64decode(value["content"])
        if path == "README.md" and (errors := check_card(contents.decode())[0]):
            raise Refusal(400, "\n".join(errors))
        files[path] = repository.regular_file(contents)
    elif key == "lfsFile":
        files[path] = repository.lfs_file(value["oid"])
    elif key == "deletedFile" and path in files:
        del files[path]
    elif key == "deletedFolder":
        for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
            del files[name]
    elif key == "deletedFile":
        raise Refusal(404, f"A file with this name doesn't exist: {path}", code="EntryNotFound")
    else:
        raise Refusal(400, f"Unknown operation: {key}")


def lfs_info(file: StoredFile, hash_name: str) -> dict[str, Any]:
    if not file.lfs:
        return {}
    pointer_size = len(lfs_pointer(file.sha256, file.size))
    return {"lfs": {hash_name: file.sha256, "size": file.size, "pointerSize": pointer_size}}


def sibling(path: str, file: StoredFile) -> dict[str, Any]:
    return {
        "rfilename": path,
        "size": file.size,
        "blobId": file.git_oid,
        **lfs_info(file, "sha256"),
    }


def entries(commit: Commit, folder: str, *, recursive: bool = True) -> list[dict[str, Any]]:
    """Files and folders below `folder`, sorted by path."""
    start = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in commit.files.items():
        if not path.startswith(start):
            continue
        parts = path.removeprefix(start).split("/")
        for depth in range(1, len(parts)):
            name = start + "/".join(parts[:depth])
            # A tree id of git would hash what is below; the client only stores it.
            entries[name] = {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        entries[path] = {
            "type": "file",
            "path": path,
            "size": file.size,
            "oid": file.git_oid,
            **lfs_info(file, "oid"),
        }
    if folder and not entries:
        raise Refusal(404, f"Entry not found: {folder}", code="EntryNotFound", commit=commit.id)
    names = [name for name in sorted(entries) if recursive or "/" not in name.removeprefix(start)]
    return [entries[name] for name in names]
