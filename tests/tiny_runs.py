"""Settings of runs that take a second or two."""

from pathlib import Path


def overrides(checkpoint: Path, data: Path, folder: Path, *more: str) -> list[str]:
    """Two epochs of a checkpoint on one of the small data sets, in ``folder``."""
    return [
        f"model.checkpoint={checkpoint}",
        f"data.source={data}",
        "data.max_seconds=0.1",
        "training.epochs=2",
        "training.batch_size=8",
        "training.learning_rate=1e-3",
        f"output_dir={folder}",
        *more,
    ]
