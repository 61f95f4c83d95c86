"""Where checkpoints come from: the hub, local folders, or the package."""

from hfbench.errors import UserError
from hfbench.hub_access import BUNDLED_FOLDER, bundled_name, local_path

_FOLDER = BUNDLED_FOLDER / "checkpoints"


def bundled_checkpoints() -> list[str]:
    """Names that may follow ``bundled/``."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def resolve_checkpoint(checkpoint: str) -> str:
    """The absolute folder of ``bundled/<name>`` or of a local path; a hub name stays as it is.

    Raises UserError for an unknown bundled name, a folder that does not exist or that holds no
    ``config.json``.
    """
    key, choices = "model.checkpoint", bundled_checkpoints()
    bundled = bundled_name(checkpoint, key=key, choices=choices)
    if bundled is not None:
        return str(_FOLDER / bundled)
    folder = local_path(checkpoint, key=key, choices=choices)
    if folder is None:
        return checkpoint
    if not (folder / "config.json").is_file():
        raise UserError(f"{key}={checkpoint!r} is no checkpoint: it has no config.json")
    return str(folder.resolve())
