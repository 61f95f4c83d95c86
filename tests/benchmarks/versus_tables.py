"""Rows of the comparison with transformers.Trainer, and the file that tells of them.

Standard library only, and nothing is printed here.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

HEADER = (
    "case",
    "strategy",
    "epochs",
    "ours",
    "Trainer",
    "Trainer s",
    "ours s",
    "n",
    "ratio (range)",
)
WIDTHS = (6, 8, 6, 7, 22, 9, 7, 2, 18)
SHARES_HEADER = ("case", "precision", "GFLOP a step", "ms a step", "peak GFLOP/s", "share of peak")
QUALITY_HEADER = ("strategy", "n", "ours", "Trainer", "difference")


@dataclass(frozen=True)
class Row:
    """Pairs of seconds, Trainer's and ours, measured one right after the other."""

    case: str
    strategy: str
    epochs: int
    ours: str  # precision
    trainer: str  # precision, and how it pads
    pairs: tuple[tuple[float, float], ...]

    @property
    def ratios(self) -> list[float]:
        """Trainer's seconds over ours, pair by pair: above 1 we are faster."""
        return [trainer / ours for trainer, ours in self.pairs]

    @property
    def ratio(self) -> float:
        """The median, which a machine whose speed drifts disturbs least."""
        return statistics.median(self.ratios)

    def cells(self) -> tuple[str, ...]:
        trainer, ours = (statistics.median(side) for side in zip(*self.pairs, strict=True))
        return (
            self.case,
            self.strategy,
            str(self.epochs),
            self.ours,
            self.trainer,
            f"{trainer:.2f}",
            f"{ours:.2f}",
            str(len(self.pairs)),
            self.ratio_text(),
        )

    def ratio_text(self) -> str:
        """``1.52 (1.48-1.60)``."""
        return f"{self.ratio:.2f} ({min(self.ratios):.2f}-{max(self.ratios):.2f})"


@dataclass(frozen=True)
class StepShare:
    """How much of the machine's best matrix product one full fine-tuning step reaches."""

    case: str
    precision: str
    flops: int
    seconds: float
    peak_flops_per_second: float

    @property
    def share(self) -> float:
        return self.flops / self.seconds / self.peak_flops_per_second

    def cells(self) -> tuple[str, ...]:
        return (
            self.case,
            self.precision,
            f"{self.flops / 1e9:.1f}",
            f"{self.seconds * 1e3:.1f}",
            f"{self.peak_flops_per_second / 1e9:.0f}",
            f"{100 * self.share:.0f} %",
        )


def with_common_peaks(shares: Sequence[StepShare]) -> list[StepShare]:
    """The shares of the highest peak that was seen at their precision: it is the machine's."""
    peaks: dict[str, float] = {}
    for share in shares:
        seen = peaks.get(share.precision, 0.0)
        peaks[share.precision] = max(seen, share.peak_flops_per_second)
    return [replace(share, peak_flops_per_second=peaks[share.precision]) for share in shares]


@dataclass(frozen=True)
class Quality:
    """Test accuracies of the same seeds."""

    strategy: str
    ours: tuple[float, ...]
    trainer: tuple[float, ...]

    def cells(self) -> tuple[str, ...]:
        difference = statistics.mean(self.ours) - statistics.mean(self.trainer)
        return (
            self.strategy,
            str(len(self.ours)),
            mean_and_deviation(self.ours),
            mean_and_deviation(self.trainer),
            f"{difference:+.4f}",
        )


@dataclass
class Report:
    """Everything that was measured so far."""

    origin: Sequence[tuple[str, str]]  # machine, versions, date, commit, command
    rows: list[Row] = field(default_factory=list)
    shares: list[StepShare] = field(default_factory=list)
    qualities: list[Quality] = field(default_factory=list)


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; the mean alone of one value."""
    text = f"{statistics.mean(values):.4f}"
    return f"{text} ± {statistics.stdev(values):.4f}" if len(values) > 1 else text


def line(cells: Sequence[str]) -> str:
    """One line of the table that is printed while it goes."""
    padded = zip(cells, WIDTHS, strict=True)
    return "  ".join(cell.ljust(width) for cell, width in padded).rstrip()


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def slower(rows: Sequence[Row]) -> str:
    """The rows in which Trainer is faster, the worst first."""
    lost = sorted((row for row in rows if row.ratio < 1), key=lambda row: row.ratio)
    if not lost:
        return "Nowhere in this table."
    return "\n".join(
        f"- {row.case}, {row.strategy}, {row.epochs} epochs, ours {row.ours}, "
        f"Trainer {row.trainer}: {row.ratio_text()}"
        for row in lost
    )


def document(report: Report) -> str:
    """RESULTS.md."""
    parts = [
        "# hfbench beside transformers.Trainer",
        "\n".join(f"- {name}: {value}" for name, value in report.origin),
    ]
    if report.rows:
        parts += [
            "Same model, data, batch size, epochs, updates, optimiser, schedule and clipping. "
            "Every measurement is a fresh process with an empty cache, Trainer and ours in turn, n "
            "pairs. Seconds are medians; the ratio is the median of Trainer / ours pair by pair "
            "with its range: above 1 ours is faster. Ours is a whole training: choosing threads, "
            "whatever is computed once of a frozen prefix, the loop. Neither side's seconds hold "
            "evaluation or saving. The rows `matrix` are whole commands instead, with evaluation "
            "after every epoch, the best epoch kept, tested and saved: one `hfbench compare` "
            "against one process of trainer_runs.py a run.",
            markdown(HEADER, [row.cells() for row in report.rows]),
            "## Where we are slower",
            slower(report.rows),
        ]
    if report.shares:
        parts += [
            "## Share of the peak",
            "A full fine-tuning step (forward, backward, clipping, AdamW) on one batch: its matrix "
            "products and convolutions over its median time, beside this machine's fastest square "
            "matrix product of the same precision.",
            markdown(SHARES_HEADER, [share.cells() for share in report.shares]),
        ]
    if report.qualities:
        parts += [
            "## Quality",
            "Test accuracy, mean ± sample standard deviation over the same seeds, bundled "
            "checkpoint and data, one learning rate for all that trains.",
            markdown(QUALITY_HEADER, [quality.cells() for quality in report.qualities]),
        ]
    return "\n\n".join(parts) + "\n"
