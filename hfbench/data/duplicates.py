"""Samples whose input is in more than one split: what is measured on them is memory."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from hfbench.data.media import media_source

EXAMPLES = 3
PAIRS = (("validation", "train"), ("test", "train"), ("test", "validation"))
SPLITS = ("train", "validation", "test")


def find_duplicates(
    splits: Mapping[str, Dataset], names: Mapping[str, Callable[[int], str]]
) -> list[dict[str, Any]]:
    """For each pair of splits with common inputs: ``split``, ``of``, ``count``, ``examples``.

    Inputs are equal as texts (without white space around them) or as bytes of the file. ``count``
    is of the samples of ``split``; ``examples`` are pairs of what ``names`` calls them. Files are
    read only where another split has one of the same size.
    """
    contents = {role: list(_contents(splits[role])) for role in SPLITS}
    first: dict[str, dict[bytes, int]] = {}
    keys = _keys(contents)
    for role, found in keys.items():
        first[role] = {}
        for index, key in enumerate(found):
            if key is not None:
                first[role].setdefault(key, index)
    result = []
    for split, of in PAIRS:
        known = first[of]
        twins = [(i, known[key]) for i, key in enumerate(keys[split]) if key in known]
        if twins:
            examples = [[names[split](i), names[of](j)] for i, j in twins[:EXAMPLES]]
            result.append({"split": split, "of": of, "count": len(twins), "examples": examples})
    return result


def describe_duplicates(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note for each pair of splits."""
    return [
        f"samples of {one['split']} with the input of one of {one['of']}: {one['count']:,}, for "
        f"instance {one['examples'][0][0]} as {one['examples'][0][1]}"
        for one in found
    ]


_Content = bytes | Path


def _contents(dataset: Dataset) -> Iterator[_Content]:
    """Of every row: the digest of its input, or the file that holds it."""
    inputs = [name for name in dataset.column_names if name != "labels"]
    for rows in dataset.select_columns(inputs).iter(batch_size=1000):
        for values in zip(*(rows[name] for name in inputs), strict=True):
            if inputs[0] in ("image", "audio"):
                source = media_source(values[0])
                yield Path(source) if isinstance(source, str) else _digest(source or b"")
            else:
                text = "\0".join(value.strip() for value in values)
                yield _digest(text.encode("utf-8", "surrogatepass"))


def _keys(contents: Mapping[str, Sequence[_Content]]) -> dict[str, list[bytes | None]]:
    """Equal for equal contents; None for a file whose size no other split has."""
    sizes = {
        role: {_size(content) for content in found if isinstance(content, Path)}
        for role, found in contents.items()
    }

    def key(role: str, content: _Content) -> bytes | None:
        if isinstance(content, bytes):
            return content
        size = _size(content)
        shared = any(size in sizes[other] for other in sizes if other != role)
        return _digest(content.read_bytes()) if shared and size is not None else None

    return {role: [key(role, content) for content in found] for role, found in contents.items()}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
