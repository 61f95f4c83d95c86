"""Images made from results. Matplotlib is imported when an image is drawn."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from hfbench.compare import SCRATCH, Group, sections
from hfbench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

WIDTH_INCHES, HEIGHT_INCHES, DPI = 7.2, 4.6, 150
PRETRAINED_COLOUR, SCRATCH_COLOUR = "#1f5fa8", "#b5541c"
DOTS_POINTS = 7  # from a mean to the dots of its runs
# Places of a label around its mark, tried in this order: points, and (right, up).
DISTANCES = (9, 13, 16, 26, 38, 52, 68, 86)
DIRECTIONS = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
NEAR = 9  # farther labels get a line to their mark


def plot_quality_against_parameters(groups: Sequence[Group], path: str | Path) -> None:
    """Write the image of :func:`draw_quality_against_parameters` to a PNG at ``path``."""
    figure = draw_quality_against_parameters(groups)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def draw_quality_against_parameters(groups: Sequence[Group]) -> "Figure":
    """The primary test metric over the number of trainable parameters (log scale).

    Per strategy: the mean, an error bar of one sample standard deviation, and each run as a dot.
    ``groups`` are those of one task, checkpoint and data set. Raises UserError when they are not,
    or when no run succeeded.
    """
    drawn = [group for group in groups if group.primary and group.trainable_parameters]
    if not drawn:
        raise UserError("there is no image to draw: no run has a test metric")
    if len(sections(groups)) > 1:
        raise UserError("an image shows one task, checkpoint and data set: pass one section")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    marks = [_draw_group(axes, group) for group in drawn]
    _style(axes, drawn[0])
    _set_limits(axes, marks)
    figure.draw_without_rendering()  # fixes the positions on which labels depend
    _place_labels(axes, drawn, marks)
    return figure


Mark = tuple[float, list[float]]  # trainable parameters; mean, ends of the bar, and every run


def _draw_group(axes: "Axes", group: Group) -> Mark:
    from matplotlib.transforms import offset_copy

    assert group.primary is not None
    assert group.trainable_parameters is not None
    x, mean, std = group.trainable_parameters, group.primary.mean, group.primary.std
    colour = SCRATCH_COLOUR if group.strategy == SCRATCH else PRETRAINED_COLOUR
    runs = list(group.primary_values)
    # The runs stand a little left of their mean, which would hide them.
    figure = axes.get_figure(root=True)
    beside = offset_copy(axes.transData, fig=figure, x=-DOTS_POINTS, units="points")
    axes.plot([x] * len(runs), runs, ".", color=colour, alpha=0.5, markersize=5, transform=beside)
    axes.errorbar(
        x,
        mean,
        yerr=std,
        fmt="s" if group.strategy == SCRATCH else "o",
        color=colour,
        markersize=6,
        elinewidth=1.4,
        capsize=4,
        zorder=3,
    )
    ends = [] if std is None else [mean - std, mean + std]
    return float(x), [mean, *ends, *runs]


def _style(axes: "Axes", group: Group) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_xscale("log")
    axes.set_title(f"{group.task}: {group.checkpoint}\non {group.dataset}", fontsize=10, loc="left")
    axes.set_xlabel("trainable parameters")
    name = group.primary_metric.replace("_", " ")
    axes.set_ylabel(f"{name} on the test split\nmean ± 1 std; dots: single runs")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_minor_formatter("")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _set_limits(axes: "Axes", marks: Sequence[Mark]) -> None:
    """Leave room for labels: a fifth of the range on each side, at least a third of a decade."""
    exponents = [math.log10(x) for x, _ in marks]
    side = max(0.2 * (max(exponents) - min(exponents)), 1 / 3)
    axes.set_xlim(10 ** (min(exponents) - side), 10 ** (max(exponents) + side))
    values = [value for _, ys in marks for value in ys]
    # Runs that agree to a thousandth must not look far apart.
    side = max(0.15 * (max(values) - min(values)), 0.005 * max(map(abs, values)), 1e-6)
    axes.set_ylim(min(values) - side, max(values) + side)


def _place_labels(axes: "Axes", groups: Sequence[Group], marks: Sequence[Mark]) -> None:
    """Put each name at the nearest free place around its mark, with a line when it is far away.

    Free: inside the axes and on no mark, error bar, dot or earlier label. When there is none the
    last place tried is taken.
    """
    from matplotlib.transforms import Bbox

    pad, dots = 5 * DPI / 72, DOTS_POINTS * DPI / 72  # pixels
    boxes = []
    for x, ys in marks:
        centre, ends = axes.transData.transform((x, ys[0]))[0], (min(ys), max(ys))
        low, high = (axes.transData.transform((x, end))[1] for end in ends)
        boxes.append(Bbox.from_extents(centre - dots - pad, low - pad, centre + pad, high + pad))
    inside = axes.get_window_extent()
    labels: list[Bbox] = []
    for index, (group, (x, ys)) in enumerate(zip(groups, marks, strict=True)):
        others = [*boxes[:index], *boxes[index + 1 :], *labels]
        label = axes.annotate(
            group.label,
            (x, ys[0]),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=9,
            zorder=5,
        )
        for distance, (right, up) in product(DISTANCES, DIRECTIONS):
            label.set_position((right * distance, up * distance))
            label.set_horizontalalignment(("center", "left", "right")[right])
            label.set_verticalalignment(("center", "bottom", "top")[up])
            box = label.get_window_extent()
            wide = box.padded(pad)  # so that a name is nearest to its own mark
            blocked = box.overlaps(boxes[index]) or any(map(wide.overlaps, others))
            if not blocked and _within(box, inside):
                break
        if distance > NEAR:
            axes.annotate(
                "",
                (x, ys[0]),
                xytext=label.get_position(),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.7},
                zorder=1,
            )
        labels.append(box)


def _within(inner: "Bbox", outer: "Bbox") -> bool:
    return bool(
        outer.x0 <= inner.x0
        and inner.x1 <= outer.x1
        and outer.y0 <= inner.y0
        and inner.y1 <= outer.y1
    )


def short_count(value: float) -> str:
    """1.5K, 296K, 14M: parameters on the axis."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
