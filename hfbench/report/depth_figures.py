"""Images of the depth study. Matplotlib is imported when one is drawn."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfbench.compare import Spread
from hfbench.network_depth import DepthCurve, DepthPoint, NetworkStudy
from hfbench.report.plots import PRETRAINED_COLOUR, SCRATCH_COLOUR
from hfbench.tuning_depth import TuningDepth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
PANEL_INCHES = (3.6, 2.7)
COLOURS = {False: SCRATCH_COLOUR, True: PRETRAINED_COLOUR}  # regularised or not
FULL_COLOUR = "#777777"


def draw_networks(study: NetworkStudy, path: Path) -> None:
    """Accuracy and loss over depth, one column for each way of growing deeper, as a PNG.

    Solid: test, with one sample standard deviation; dashed: train.
    """
    ways = list(dict.fromkeys(way for way, _ in study.curves))
    figure, panels = _panels(rows=2, columns=len(ways))
    for column, way in enumerate(ways):
        accuracy, loss = panels[0][column], panels[1][column]
        for regularised in (False, True):
            curve, colour = study.curves[way, regularised], COLOURS[regularised]
            name = f"{'with' if regularised else 'no'} regularisation"
            _draw_curve(accuracy, curve, lambda p: p.test_accuracy, "-o", colour, f"test, {name}")
            _draw_curve(accuracy, curve, lambda p: p.train_accuracy, "--", colour, f"train, {name}")
            _draw_curve(loss, curve, lambda p: p.test_loss, "-o", colour)
            _draw_curve(loss, curve, lambda p: p.train_loss, "--", colour)
        accuracy.set_title(way, fontsize=9, loc="left")
        loss.set_yscale("log")
        loss.set_xlabel("depth: linear layers")
        loss.set_xticks([point.depth for point in study.curves[way, False].points])
    panels[0][0].set_ylabel("accuracy")
    panels[1][0].set_ylabel("loss")
    panels[0][0].legend(fontsize=7, frameon=False)
    figure.suptitle(f"Multi-layer perceptrons on {study.dataset}", fontsize=10, x=0.01, ha="left")
    _save(figure, path)


def _draw_curve(
    axes: "Axes",
    curve: DepthCurve,
    value: Callable[[DepthPoint], Spread],
    style: str,
    colour: str,
    label: str | None = None,
) -> None:
    spreads = [value(point) for point in curve.points]
    test = style.startswith("-o")
    axes.errorbar(
        [point.depth for point in curve.points],
        [spread.mean for spread in spreads],
        yerr=_bars(spreads) if test else None,
        fmt=style,
        color=colour,
        markersize=4,
        linewidth=1.3,
        capsize=3 if test else 0,
        label=label,
    )


def draw_tuning(studies: Sequence[TuningDepth], path: Path) -> None:
    """Quality over the number of trained blocks, one panel for each checkpoint, as a PNG.

    The dashed line is full fine-tuning; bars and band are one sample standard deviation.
    """
    figure, panels = _panels(rows=1, columns=len(studies))
    for axes, depth in zip(panels[0], studies, strict=True):
        known = [(n, group.primary) for n, group in depth.by_n.items() if group.primary is not None]
        axes.errorbar(
            [n for n, _ in known],
            [spread.mean for _, spread in known],
            yerr=_bars([spread for _, spread in known]),
            fmt="-o",
            color=PRETRAINED_COLOUR,
            markersize=4,
            linewidth=1.3,
            capsize=3,
            label="head and the last n blocks",
        )
        full = depth.full.primary
        if full is not None:
            axes.axhline(full.mean, color=FULL_COLOUR, linestyle="--", linewidth=1.2, label="full")
            if full.std is not None:
                low, high = full.mean - full.std, full.mean + full.std
                axes.axhspan(low, high, color=FULL_COLOUR, alpha=0.15, linewidth=0)
        axes.set_xticks(list(depth.by_n))
        axes.set_xlabel(f"n, trained blocks of {depth.blocks}")
        axes.set_title(f"{depth.full.checkpoint}\non {depth.full.dataset}", fontsize=8, loc="left")
    panels[0][0].set_ylabel(f"{studies[0].full.primary_metric.replace('_', ' ')} (test)")
    panels[0][0].legend(fontsize=7, frameon=False, loc="lower right")
    _save(figure, path)


def _bars(spreads: Sequence[Spread]) -> list[float]:
    """Standard deviations; no bar is drawn for a single value."""
    return [math.nan if spread.std is None else spread.std for spread in spreads]


def _panels(*, rows: int, columns: int) -> "tuple[Figure, list[list[Axes]]]":
    """Several rows show different values of the same networks: they share the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    several = rows > 1
    panels = figure.subplots(
        rows, columns, sharex=several, sharey="row" if several else "none", squeeze=False
    )
    for axes in figure.axes:
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, panels.tolist()


def _save(figure: "Figure", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
