"""Image of where in the network each strategy trains. Matplotlib is imported when it is drawn."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hfbench.errors import UserError
from hfbench.params import ParameterCounts, StrategyCounts
from hfbench.report.plots import DPI, PRETRAINED_COLOUR, short_count
from hfbench.report.tables import wrap_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
PANELS_A_ROW = 6
PANEL_INCHES, ROW_LABEL_INCHES, INCHES_A_PART = 1.7, 1.3, 0.2
MAX_NAMED_PARTS = 40  # deeper networks name every second, third ... part
TOTAL_COLOUR = "#aaaaaa"


def plot_over_depth(counts: ParameterCounts, path: Path) -> None:
    """Write the image of :func:`draw_over_depth`. Raises UserError for an unknown file ending."""
    check_image_path(path)
    figure = draw_over_depth(counts)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def check_image_path(path: Path) -> None:
    """Raises UserError for a file ending that is not an image's."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"an image's name ends in {', '.join(FORMATS)}, not like {str(path)!r}")


def draw_over_depth(counts: ParameterCounts) -> "Figure":
    """Panels side by side, one a strategy: trainable parameters (log scale) of every part.

    Input above, output below. A filled dot is what trains, adapters included where they sit; a
    grey ring is all that the part has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    strategies = counts.strategies
    columns = min(len(strategies), PANELS_A_ROW)
    rows = math.ceil(len(strategies) / columns)
    parts = list(strategies[0].trainable_over_depth())
    panel_height = INCHES_A_PART * min(len(parts), MAX_NAMED_PARTS) + 0.9
    figure = Figure(
        figsize=(ROW_LABEL_INCHES + PANEL_INCHES * columns, rows * panel_height + 0.7),
        dpi=DPI,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for axes, strategy in zip(panels, strategies, strict=False):
        _draw_panel(axes, strategy)
    for axes in list(panels)[len(strategies) :]:
        axes.set_visible(False)
    for axes in figure.axes[::columns]:
        _name_parts(axes, parts)
    labels = "" if counts.num_labels is None else f", {counts.num_labels} labels"
    title = f"{counts.checkpoint} for {counts.task.replace('_', ' ')}{labels}"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.supxlabel("parameters: filled = trainable, ring = all of the part", fontsize=9)
    return figure


def _draw_panel(axes: "Axes", strategy: StrategyCounts) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    totals = [row.total for row in strategy.report.by_depth if row.name != "adapter"]
    trained = list(strategy.trainable_over_depth().values())
    places = range(len(totals))
    axes.scatter(totals, places, s=26, facecolors="none", edgecolors=TOTAL_COLOUR, linewidths=1)
    shown = [place for place in places if trained[place]]
    counts = [trained[place] for place in shown]
    axes.scatter(counts, shown, s=18, color=PRETRAINED_COLOUR, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_minor_formatter("")
    axes.tick_params(labelsize=8, labelbottom=True)
    label = wrap_label(strategy.strategy, columns=18, breaks=":,", indent="")
    title = f"{label}\n{strategy.report.trainable:,}"
    axes.set_title(title, fontsize=8, loc="left")
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _name_parts(axes: "Axes", parts: list[str]) -> None:
    step = math.ceil(len(parts) / MAX_NAMED_PARTS)
    places = range(0, len(parts), step)
    axes.set_yticks(list(places), [parts[place] for place in places], fontsize=8)
    axes.set_ylim(len(parts) - 0.5, -0.5)
