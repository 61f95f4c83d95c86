"""The depth study as text for the terminal and as Markdown: tables and what follows from them.

Pure functions: nothing is printed here. Every sentence is found from the numbers.
"""

import itertools
from collections.abc import Iterable, Sequence

from hfbench.compare import Group, Spread, pooled_std
from hfbench.network_depth import (
    CLEAR_STDS,
    DepthCurve,
    DepthPoint,
    NetworkStudy,
    Verdict,
    is_clear,
)
from hfbench.report.tables import Style, heading_line, layout_table, paragraph, three_digits
from hfbench.tuning_depth import TuningDepth

SHARES = (0.90, 0.99)  # of the gain of full fine-tuning


def format_networks(study: NetworkStudy, style: Style = "table") -> str:
    """The networks, then one table with its findings for each curve."""
    parts = [
        heading_line(f"Depth of a multi-layer perceptron on {study.dataset}", style),
        paragraph(
            f"{study.samples['train']:,} training and {study.samples['test']:,} test samples; "
            f"{_number_of(len(study.seeds), 'seed')}, ± is the sample standard deviation. Depth is "
            "the number of linear layers. Everything is measured after the last epoch; gap is test "
            f"loss minus train loss. With regularisation means {study.regularisation}. Clear is a "
            f"difference of more than {CLEAR_STDS:g} pooled sample standard deviations. Seconds: "
            "training alone.",
            style,
        ),
        _architectures(study, style),
        paragraph(
            f"The networks of equal count are as near to {study.target_parameters:,} parameters as "
            "whole widths that differ by at most one allow. Depth 1 has no hidden layer, so its "
            "count is given by the data.",
            style,
        ),
    ]
    for (way, regularised), curve in study.curves.items():
        named = f"{way}, {'with' if regularised else 'without'} regularisation"
        parts += [heading_line(named, style), _results(curve, style)]
        parts += [paragraph(text, style) for text in curve_findings(curve)]
        if regularised:
            plain = study.curves[way, False]
            parts += [paragraph(text, style) for text in regularisation_findings(plain, curve)]
    return "\n\n".join(parts) + "\n"


def _architectures(study: NetworkStudy, style: Style) -> str:
    rows = []
    for way in dict.fromkeys(way for way, _ in study.curves):
        for point in study.curves[way, False].points:
            layers = _folded((f"{count:,}" for count in point.layer_parameters), " + ")
            widths = _folded(map(str, point.widths), ", ") or "-"
            rows.append([way, str(point.depth), widths, layers, f"{point.parameters:,}"])
    headings = ["networks of", "depth", "hidden widths", "parameters of each layer", "sum"]
    return layout_table(headings, rows, style)


def _folded(texts: Iterable[str], separator: str) -> str:
    """``4,160 + 4,160 + 650`` as ``2 × 4,160 + 650``."""
    groups = ((text, len(list(members))) for text, members in itertools.groupby(texts))
    return separator.join(text if count == 1 else f"{count} × {text}" for text, count in groups)


def _results(curve: DepthCurve, style: Style) -> str:
    headings = [
        "depth",
        "param-\neters" if style == "table" else "parameters",
        "train\nloss",
        "test\nloss",
        "gap",
        "train\naccuracy",
        "test\naccuracy",
        "train\ns",
        "verdict",
    ]
    rows = [
        [
            str(point.depth),
            f"{point.parameters:,}",
            _mean_and_std(point.train_loss),
            _mean_and_std(point.test_loss),
            f"{point.gap.mean:.3f}",
            _mean_and_std(point.train_accuracy),
            _mean_and_std(point.test_accuracy),
            f"{point.train_seconds.mean:.1f}",
            curve.verdict(point) or "-",
        ]
        for point in curve.points
    ]
    return layout_table(headings, rows, style)


def curve_findings(curve: DepthCurve) -> list[str]:
    """Where depth helps, where it overfits and where it cannot be trained, in sentences."""
    first, best = curve.points[0], curve.best
    found = []
    if best is first:
        found.append(
            f"Depth does not help: no network is better on the test split than {_d(best)}."
        )
    else:
        clear = is_clear(first.test_accuracy, best.test_accuracy)
        found.append(
            f"{_helps(clear)}: test accuracy {_mean_and_std(first.test_accuracy)} at "
            f"{_d(first)}, {_mean_and_std(best.test_accuracy)} at {_d(best)}, a difference of "
            f"{best.test_accuracy.mean - first.test_accuracy.mean:+.3f}"
            f"{_in_stds(first.test_accuracy, best.test_accuracy)}."
        )
    reasons: tuple[tuple[Verdict, str], ...] = (
        ("overfits", f"clearly worse than {_d(best)} on test, not on the training data"),
        ("underfits", f"clearly worse than {_d(best)} on test and on the training data"),
    )
    for verdict, reason in reasons:
        points = [point for point in curve.points if curve.verdict(point) == verdict]
        if points:
            found.append(f"{verdict.capitalize()}: {_depths(points)} ({reason}).")
    low, high = (choose(curve.points, key=lambda p: p.gap.mean) for choose in (min, max))
    found.append(
        f"The gap between test and train loss is smallest at {_d(low)} ({low.gap.mean:.3f}) and "
        f"largest at {_d(high)} ({high.gap.mean:.3f})."
    )
    return found


def _helps(clear: bool | None) -> str:
    if clear is None:
        return "Depth seems to help (single runs: nothing is said of chance)"
    return "Depth helps" if clear else "Depth does not clearly help"


def regularisation_findings(plain: DepthCurve, regularised: DepthCurve) -> list[str]:
    """What regularisation does to the gap and to the test accuracy, depth by depth."""
    pairs = list(zip(plain.points, regularised.points, strict=True))
    effects = {
        "a clearly smaller gap": [r for p, r in pairs if is_clear(r.gap, p.gap)],
        "a clearly larger gap": [r for p, r in pairs if is_clear(p.gap, r.gap)],
        "a clearly higher test accuracy": [
            r for p, r in pairs if is_clear(p.test_accuracy, r.test_accuracy)
        ],
        "a clearly lower test accuracy": [
            r for p, r in pairs if is_clear(r.test_accuracy, p.test_accuracy)
        ],
    }
    texts = [f"{effect} at {_depths(points)}" for effect, points in effects.items() if points]
    if not texts:
        return ["Regularisation makes no clear difference at any depth."]
    return [f"Regularisation gives {'; '.join(texts)}."]


def format_tuning(depth: TuningDepth, style: Style = "table") -> str:
    """Quality against the number of trained blocks, and how few of them are enough."""
    full = depth.full
    headings = [
        "n",
        "strategy",
        "trainable",
        "% of\ntotal",
        "runs",
        f"{full.primary_metric}\n(test)",
        "% of full's\ngain",
        "train\ns",
    ]
    rows = [
        *(_tuning_cells(str(n), group, depth) for n, group in depth.by_n.items()),
        _tuning_cells("", full, depth),
    ]
    title = f"Depth of fine-tuning: {full.checkpoint} ({depth.blocks} blocks) on {full.dataset}"
    parts = [heading_line(title, style), layout_table(headings, rows, style)]
    parts += [paragraph(text, style) for text in tuning_findings(depth)]
    return "\n\n".join(parts) + "\n"


def _tuning_cells(n: str, group: Group, depth: TuningDepth) -> list[str]:
    share, percent = depth.share(group), group.trainable_percent
    return [
        n,
        group.strategy,
        "-" if group.trainable_parameters is None else f"{group.trainable_parameters:,}",
        "-" if percent is None else f"{percent:.1f}",
        str(group.n),
        "-" if group.primary is None else _mean_and_std(group.primary, decimals=4),
        "-" if share is None else f"{100 * share:.0f}",
        "-" if group.train_seconds is None else three_digits(group.train_seconds.mean),
    ]


def tuning_findings(depth: TuningDepth) -> list[str]:
    """The gain of full fine-tuning, and the fewest last blocks that reach shares of it."""
    head, full = depth.by_n[0].primary, depth.full.primary
    found = [
        f"Without a result: {group.strategy}, seed {failure.seed}: {failure.reason}."
        for group in (*depth.by_n.values(), depth.full)
        for failure in group.failures
    ]
    if depth.gain is None or head is None or full is None:
        return [*found, "The gain of full fine-tuning over head is unknown."]
    gain = f"{full.mean:.4f} - {head.mean:.4f} = {full.mean - head.mean:+.4f}"
    gain = f"{depth.full.primary_metric} {gain}{_in_stds(head, full)}"
    if depth.gain <= 0:
        return [*found, f"Full fine-tuning is no better than head ({gain}): no gain to share."]
    found.append(
        f"The gain is that of full over head, the frozen backbone with a trained head: {gain}."
    )
    return [*found, *_error_note(depth), *(_reached_text(depth, share) for share in SHARES)]


def _error_note(depth: TuningDepth) -> list[str]:
    error = depth.share_error
    if error is None:
        return ["Single runs: how far the shares are chance is not known."]
    return [f"One standard error of a share is {100 * error:.0f} percentage points."]


def _reached_text(depth: TuningDepth, share: float) -> str:
    goal = f"{100 * share:.0f} % of the gain"
    reached = depth.reached(share)
    if reached is None:
        shares = {n: depth.share(group) for n, group in depth.by_n.items()}
        known = {n: value for n, value in shares.items() if value is not None}
        most = max(known, key=lambda n: known[n])
        return (
            f"{goal}: reached by no number of last blocks; the most is {100 * known[most]:.0f} % "
            f"with n = {most}."
        )
    text = (
        f"{goal}: n = {reached.n} of {depth.blocks} blocks "
        f"({100 * reached.n / depth.blocks:.0f} % of the layers, "
        f"{reached.percent_of_parameters:.1f} % of the parameters)"
    )
    if reached.lost_at:
        text += f"; below it again with n = {', '.join(map(str, reached.lost_at))}"
    return f"{text}."


def _mean_and_std(spread: Spread, *, decimals: int = 3) -> str:
    text = f"{spread.mean:.{decimals}f}"
    return text if spread.std is None else f"{text} ± {spread.std:.{decimals}f}"


def _in_stds(one: Spread, two: Spread) -> str:
    pooled = pooled_std([one, two])
    if not pooled:
        return ""
    return f", {abs(one.mean - two.mean) / pooled:.1f} pooled standard deviations"


def _d(point: DepthPoint) -> str:
    return f"depth {point.depth}"


def _depths(points: Sequence[DepthPoint]) -> str:
    return f"depth {', '.join(str(point.depth) for point in points)}"


def _number_of(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"
