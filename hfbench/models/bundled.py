"""The small checkpoints inside the package."""

from pathlib import Path

from hfbench.errors import UserError

PREFIX = "bundled/"
FOLDER = Path(__file__).parents[1] / "bundled" / "checkpoints"


def bundled_checkpoints() -> list[str]:
    """Names that may follow ``bundled/``."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def resolve_checkpoint(checkpoint: str) -> str:
    """The local folder of ``bundled/<name>`` or of a local path; a hub name stays as it is.

    Raises UserError for an unknown bundled name, a folder that does not exist or that holds no
    ``config.json``.
    """
    if checkpoint.startswith(PREFIX):
        name = checkpoint.removeprefix(PREFIX)
        if name not in bundled_checkpoints():
            choices = ", ".join(PREFIX + known for known in bundled_checkpoints())
            raise UserError(f"model.checkpoint={checkpoint!r} is not bundled; choose: {choices}")
        return str(FOLDER / name)
    folder = Path(checkpoint).expanduser()
    if checkpoint and folder.exists():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"model.checkpoint={checkpoint!r} is no checkpoint: it has no config.json"
            )
        return str(folder)
    if not checkpoint or checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1:
        raise UserError(
            f"model.checkpoint={checkpoint!r} does not exist; write a local folder, a hub name "
            "(owner/name) or bundled/<name>"
        )
    return checkpoint
