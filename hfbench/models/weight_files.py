"""The safetensors files of a checkpoint on this machine: whether they are whole, and their names.

Only headers are read. Of a repository of the hub those files are looked at that its client has
downloaded.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from hfbench.errors import UserError
from hfbench.plain_json import read_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_SHOWN = 3


def stored_names(source: str, revision: str | None) -> list[str]:
    """The names of all tensors, as they are in the files; empty where no file is here."""
    path = _local(source, revision, WEIGHTS_FILE)
    if path is not None:
        return _names_in(path)
    index = _local(source, revision, INDEX_FILE)
    return [] if index is None else list(shards_of(index))


def require_whole(folder: Path) -> None:
    """Raise UserError for a shard that is missing or cut off, or lacks what the index says.

    Nothing is said of a folder without weights.
    """
    if (folder / WEIGHTS_FILE).is_file():
        _names_in(folder / WEIGHTS_FILE)
        return
    if not (folder / INDEX_FILE).is_file():
        return
    shard_of = shards_of(folder / INDEX_FILE)
    shards = sorted(set(shard_of.values()))
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent:
        raise UserError(
            f"{str(folder)!r} lacks {listed(absent)}: its {INDEX_FILE} names {len(shards)} files "
            f"of weights, and {len(absent)} of them are not there; fetch them again"
        )
    for shard in shards:
        held = set(_names_in(folder / shard))
        lacking = sorted(name for name, of in shard_of.items() if of == shard and name not in held)
        if lacking:
            raise UserError(
                f"{str(folder / shard)!r} lacks {len(lacking)} tensors that {INDEX_FILE} says it "
                f"has ({listed(lacking)}): the two are not of one checkpoint; fetch both again"
            )


def _local(source: str, revision: str | None, name: str) -> Path | None:
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    found = try_to_load_from_cache(source, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _names_in(path: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise UserError(
            f"the safetensors file {str(path)!r} is broken ({error}); fetch it again"
        ) from error


def shards_of(index: Path) -> Mapping[str, str]:
    """Name of a tensor -> name of its file.

    Raises UserError for an index that does not say that, and for files of other kinds.
    """
    try:
        shards = read_json(index)["weight_map"]
        if not all(isinstance(item, str) for pair in shards.items() for item in pair):
            raise TypeError("weight_map holds something else than names")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{str(index)!r} does not say in which file each tensor is ({error}); fetch it again"
        ) from error
    strange = [name for name in sorted(set(shards.values())) if not _is_shard(name)]
    if strange:
        raise UserError(
            f"{str(index)!r} names {listed(strange)}: weights are read from safetensors files "
            "inside the checkpoint's folder alone, because others can run code"
        )
    found: dict[str, str] = shards
    return found


def _is_shard(name: str) -> bool:
    """Whether it is a safetensors file below its folder, however links there may lead on."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name
    return inside and path.suffix == ".safetensors"


def listed(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f", {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
