"""Comparisons of strategies as text for the terminal and as Markdown.

Pure functions: nothing is printed here. No large library.
"""

from collections.abc import Callable, Sequence

from hfbench.compare import (
    Group,
    ScratchComparison,
    Spread,
    beats_scratch,
    differing_settings,
    same_data,
    sections,
)
from hfbench.report.tables import (
    MIB,
    Style,
    bullet,
    heading_line,
    layout_table,
    paragraph,
    percent_text,
    three_digits,
    wrap_label,
)
from hfbench.variants import unlike

SHOWN_PROBLEMS = 5


def format_comparison(groups: Sequence[Group], style: Style = "table") -> str:
    """One table per task, checkpoint and data set: a row per strategy, means over the seeds.

    Beneath, where several networks learnt the same data, one table of all of them. Each has its
    notes: whether the best pretrained strategy beats scratch, what failed and why, and a warning
    when averaged runs were not configured alike.
    """
    if not groups:
        return "No results.\n"
    texts = [_comparison_section(members, style) for members in sections(groups)]
    texts += [_networks_section(members, style) for members in same_data(groups)]
    return "\n".join(texts)


def format_unreadable(problems: Sequence[str], count: int, style: Style = "table") -> str:
    """What is wrong with results that are not in the comparison, of ``count`` in all."""
    shown = list(problems[:SHOWN_PROBLEMS])
    if len(problems) > SHOWN_PROBLEMS:
        shown.append(f"and {len(problems) - SHOWN_PROBLEMS:,} more")
    head = f"Results that cannot be read and are left out: {len(problems):,} of {count:,}"
    items = [bullet(problem, style) for problem in shown]
    return "\n".join([f"{head}:", *([""] if style == "markdown" else []), *items]) + "\n"


def _comparison_section(groups: Sequence[Group], style: Style) -> str:
    first = groups[0]
    # A heading of two lines keeps the columns of numbers narrow.
    headings = [
        "strategy",
        "trainable",
        "% of\ntotal",
        "n",
        f"{first.primary_metric}\n(test)",
        "macro\nF1",
        "train\ns",
        "samples\nper s",
        "peak\nMiB",
        "saved\nMiB",
        "failed",
    ]
    width = max(len(_mean_and_std(group.primary)) for group in groups)
    rows = [_comparison_cells(group, style, primary_width=width) for group in groups]
    known = [group for group in groups if group.primary]
    if known and not any(group.f1_macro for group in known):  # a task without labels
        f1 = headings.index("macro\nF1")
        headings, *rows = (row[:f1] + row[f1 + 1 :] for row in (headings, *rows))
    if not any(group.failures for group in groups):
        headings, *rows = (row[:-1] for row in (headings, *rows))
    title = heading_line(f"{first.task}: {first.checkpoint} on {first.dataset}", style)
    notes = ["Means over n seeds; ± is the sample standard deviation."]
    notes.extend(_verdict(verdict) for verdict in beats_scratch(groups))
    saved_seconds = sum(group.saved_seconds for group in groups)
    if saved_seconds:
        notes.append(
            "Outputs of frozen prefixes were computed once and kept, which saved about "
            f"{three_digits(saved_seconds)} s of these trainings; train s has the time of "
            "computing them where a run did it."
        )
    notes.extend(
        f"Warning: {group.primary_metric} is known for {group.primary.n if group.primary else 0} "
        f"of the {group.n} runs of {group.label}."
        for group in groups
        if group.n != (group.primary.n if group.primary else 0)
    )
    if differing := differing_settings(groups):
        notes.append(f"Warning: the strategies were not run alike: {', '.join(differing)} differ.")
    if made := unlike([made for group in groups for made in group.made_by]):
        listed = "; ".join(f"{name} {', '.join(values)}" for name, values in made.items())
        notes.append(f"Warning: the runs were not all made by the same: {listed}.")
    failures = [
        f"{group.label}, seed {failure.seed}, {failure.status}: " + " ".join(failure.reason.split())
        for group in groups
        for failure in group.failures
    ]
    parts = [
        title,
        layout_table(headings, rows, style),
        *(paragraph(note, style) for note in notes),
        *_predictions(groups, style),
    ]
    if failures:
        items = [bullet(failure, style) for failure in failures]
        separator = "\n\n" if style == "markdown" else "\n"
        parts.append("Runs without a result:" + separator + "\n".join(items))
    return "\n\n".join(parts) + "\n"


def _networks_section(groups: Sequence[Group], style: Style) -> str:
    """Several networks on the same data, the best first."""
    first = groups[0]
    headings = [
        "network",
        "strategy",
        "trainable",
        "n",
        f"{first.primary_metric}\n(test)",
        "train\ns",
        "saved\nMiB",
    ]
    width = max(len(_mean_and_std(group.primary)) for group in groups)
    rows = [
        [
            group.checkpoint,
            group.label,
            "-" if group.trainable_parameters is None else f"{group.trainable_parameters:,}",
            str(group.n),
            _mean_and_std(group.primary).ljust(width if style == "table" else 0),
            _mean(group.train_seconds, three_digits),
            _mean(group.saved_bytes, lambda value: three_digits(value / MIB)),
        ]
        for group in groups
    ]
    if style == "table":  # one column names the row, also where the others are too many
        headings = [f"{headings[0]}\n  {headings[1]}", *headings[2:]]
        rows = [[f"{row[0]}\n  {row[1]}", *row[2:]] for row in rows]
    title = heading_line(f"Every network on {first.dataset}", style)
    return "\n\n".join([title, layout_table(headings, rows, style)]) + "\n"


def _predictions(groups: Sequence[Group], style: Style) -> list[str]:
    """Predicted beside measured, where a run has both."""
    known = [group for group in groups if group.predicted_step_flops and group.step_seconds]
    if not known:
        return []
    headings = [
        "strategy",
        "GFLOP\na step",
        "GFLOP/s\nreached",
        "% of\nmatmul",
        "step ms\npredicted",
        "step ms\nmeasured",
        "peak MiB\npredicted",
        "peak MiB\nmeasured",
    ]
    rows = [_prediction_cells(group, style) for group in known]
    note = (
        "Predicted before the first step: operations and memory from a trace of the run's own "
        "batches, time from half a second of measurement. % of matmul: of what this machine "
        "reaches in a large matrix product."
    )
    return [layout_table(headings, rows, style), paragraph(note, style)]


def _prediction_cells(group: Group, style: Style) -> list[str]:
    def in_units(unit: float) -> Callable[[float], str]:
        return lambda value: three_digits(value / unit)

    return [
        wrap_label(group.label) if style == "table" else group.label,
        _mean(group.predicted_step_flops, in_units(1e9)),
        _mean(group.flops_per_second, in_units(1e9)),
        _mean(group.peak_share, lambda share: f"{100 * share:.0f}"),
        _mean(group.predicted_step_seconds, in_units(1e-3)),
        _mean(group.step_seconds, in_units(1e-3)),
        _mean(group.predicted_peak_memory_bytes, in_units(MIB)),
        _mean(group.peak_memory_bytes, in_units(MIB)),
    ]


def _comparison_cells(group: Group, style: Style, *, primary_width: int) -> list[str]:
    trainable = group.trainable_parameters
    return [
        wrap_label(group.label) if style == "table" else group.label,
        "-" if trainable is None else f"{trainable:,}",
        percent_text(group.trainable_percent),
        str(group.n),
        # Filled up on the right, so that means stand below each other with and without a std.
        _mean_and_std(group.primary).ljust(primary_width if style == "table" else 0),
        _mean(group.f1_macro, lambda value: f"{value:.4f}"),
        _mean(group.train_seconds, three_digits),
        _mean(group.samples_per_second, three_digits),
        _mean(group.peak_memory_bytes, lambda value: three_digits(value / MIB)),
        _mean(group.saved_bytes, lambda value: three_digits(value / MIB)),
        str(len(group.failures)),
    ]


def _verdict(verdict: ScratchComparison) -> str:
    best, scratch = verdict.best, verdict.scratch
    answer = "beats" if verdict.beats_scratch else "does not beat"
    distance = "" if verdict.stds is None else f" = {verdict.stds:.1f} pooled standard deviations"
    return (
        f"The best pretrained strategy, {best.label}, {answer} {scratch.label} by more than two "
        f"standard deviations: {best.primary_metric} {_mean_and_std(best.primary)} against "
        f"{_mean_and_std(scratch.primary)}, a difference of {verdict.difference:+.4f}{distance} "
        f"(pooled sample standard deviation of the two: {verdict.pooled_std:.4f})."
    )


def _mean_and_std(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.4f}" + ("" if spread.std is None else f" ± {spread.std:.4f}")


def _mean(spread: Spread | None, text: Callable[[float], str]) -> str:
    return "-" if spread is None else text(spread.mean)
