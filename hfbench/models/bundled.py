"""Where checkpoints come from: the hub, local folders, or the package."""

from pathlib import Path

from hfbench.errors import UserError
from hfbench.hub_access import BUNDLED_FOLDER, bundled_name, local_path
from hfbench.plain_files import require_plain_files

_FOLDER = BUNDLED_FOLDER / "checkpoints"


def bundled_checkpoints() -> list[str]:
    """Names that may follow ``bundled/``."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def resolve_checkpoint(checkpoint: str) -> str:
    """The absolute folder of ``bundled/<name>`` or of a local path; a hub name stays as it is.

    Raises UserError for an unknown bundled name, a folder that does not exist or that is neither
    a checkpoint nor an adapter of one, and for one that holds a pipe or a device.
    """
    key, choices = "model.checkpoint", bundled_checkpoints()
    bundled = bundled_name(checkpoint, key=key, choices=choices)
    if bundled is not None:
        return str(_FOLDER / bundled)
    folder = local_path(checkpoint, key=key, choices=choices)
    if folder is None:
        return checkpoint
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise UserError(
            f"{key}={checkpoint!r} is no checkpoint: it has no config.json{_inside(folder)}"
        )
    require_plain_files(folder)
    return str(folder.resolve())


def _inside(folder: Path) -> str:
    """Which folders inside are the checkpoints that may be meant: of a run, a trainer, a cache."""
    for pattern, what in (
        ("model/config.json", "it is a run of hfbench, whose model is"),
        ("*/model/config.json", "it holds runs of hfbench, whose models are"),
        ("snapshots/*/config.json", "it is of the hub's cache, whose snapshots are"),
        ("models--*/snapshots/*/config.json", "it is the hub's cache, with"),
        ("checkpoint-*/config.json", "it holds the states of a training, such as"),
        ("checkpoint-*/adapter_config.json", "it holds the states of a training, such as"),
        ("*/config.json", "there are some in it:"),
    ):
        found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
        if found:
            shown = ", ".join(str(path.parent) for path in found[:3])
            return f"; {what} {shown}{', ...' if len(found) > 3 else ''}"
    return ""
