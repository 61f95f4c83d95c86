"""The course of one training as an image. Matplotlib is imported when it is drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

from hfbench.results import RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES, DPI = 7.2, 3.2, 150
TRAIN_COLOUR, VALIDATION_COLOUR = "#b5541c", "#1f5fa8"


def plot_history(result: RunResult, path: Path) -> None:
    """Write the image of :func:`draw_history` to a PNG; the same result gives the same bytes."""
    draw_history(result).savefig(path, format="png", metadata={"Software": None})


def draw_history(result: RunResult) -> "Figure":
    """Training and validation loss, and the primary metric on the validation split, by epoch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    losses, metric = figure.subplots(1, 2)
    epochs = [record.epoch for record in result.history]
    validation = [record.validation for record in result.history]
    train_losses = [record.train_loss for record in result.history]
    _line(losses, epochs, train_losses, TRAIN_COLOUR, "training")
    _line(losses, epochs, [v.get("loss") for v in validation], VALIDATION_COLOUR, "validation")
    losses.set(title="loss", xlabel="epoch")
    losses.legend(frameon=False)
    values = [v.get(result.primary_metric) for v in validation]
    _line(metric, epochs, values, VALIDATION_COLOUR, "validation")
    metric.set(title=f"{result.primary_metric}, validation split", xlabel="epoch")
    for axes in (losses, metric):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _line(
    axes: object, epochs: list[float], values: list[float | None], colour: str, label: str
) -> None:
    known = [(epoch, v) for epoch, v in zip(epochs, values, strict=True) if v is not None]
    axes.plot(*zip(*known, strict=True), "o-", color=colour, label=label, markersize=4)  # type: ignore[attr-defined]
