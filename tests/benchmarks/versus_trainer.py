"""Our training beside transformers.Trainer, with the rows in which we lose.

    python tests/benchmarks/versus_trainer.py [CASE ...] [--rounds N] [--samples N] [--text PATH]

Cases: text (a BERT of 6 blocks x 384), image (ViT 6 x 192, 64 patches), audio (Wav2Vec2 6 x 192,
clips of 1 s), steps (share of the machine's peak), matrix (strategies x seeds as whole commands)
and, only when named, quality (test accuracies of the bundled checkpoint). PATH is a table or folder
of labelled texts, the bundled ones by default. RESULTS.md is written anew after every case; --quick
trains next to nothing, to see that everything works, and prints it instead.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from versus_cases import (
    CASES,
    Case,
    Entry,
    export_texts,
    make_checkpoint,
    text_config,
    timed_config,
)
from versus_jobs import Measured, in_fresh_process, ours, step_share, theirs
from versus_matrix import Matrix, Side, measure_ours, measure_trainer
from versus_tables import (
    HEADER,
    QUALITY_HEADER,
    SHARES_HEADER,
    Quality,
    Report,
    Row,
    document,
    line,
    markdown,
    with_common_peaks,
)

from hfbench.config import RunConfig, parse_strategy
from hfbench.provenance import hardware, versions
from hfbench.repository import git_state

RESULTS = Path(__file__).with_name("RESULTS.md")
OUR_PRECISIONS = {"float32": "no", "bf16": "bf16"}
PADDED = "float32, padded to 128"
ALWAYS = (*(case.name for case in CASES), "steps", "matrix")
QUALITY_STRATEGIES = ("full", "head", "last_2")
QUALITY_SAMPLES, QUALITY_EPOCHS = 800, 4  # and the length below: as in the demo
QUALITY_TOKENS = 64
EVAL_SAMPLES = 600  # at most, for validation and for the test
ROUNDS, MATRIX_ROUNDS = 3, 1  # the matrix is 21 runs a side
STEPS = 10  # timed ones of the case steps
QUICK_SAMPLES = 32


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all cases share."""

    folder: Path  # temporary
    report: Report
    rounds: int | None
    samples: int | None
    text: str
    quick: bool

    @property
    def rounds_or_default(self) -> int:
        return self.rounds or (1 if self.quick else ROUNDS)

    def samples_of(self, default: int) -> int:
        return self.samples or (QUICK_SAMPLES if self.quick else default)

    def config_of(self, case: Case) -> RunConfig:
        """The timed training of a case, its checkpoint and texts made where they are missing."""
        samples = self.samples_of(case.samples)
        checkpoint = self.folder / "checkpoints" / case.name
        if not checkpoint.exists():
            make_checkpoint(case.name, checkpoint)
        texts = self.texts(samples) if case.name == "text" else None
        return timed_config(case, checkpoint, texts, samples)

    def texts(self, samples: int) -> Path:
        folder = self.folder / "texts" / str(samples)
        if folder.exists():
            return folder
        eval_samples = min(samples, EVAL_SAMPLES)
        return export_texts(self.text, folder, samples=samples, eval_samples=eval_samples)


def main() -> None:
    options = parse_options()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads\n{line(HEADER)}", flush=True
    )
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(
            folder=Path(temporary),
            report=Report(origin()),
            rounds=options.rounds,
            samples=options.samples,
            text=options.text,
            quick=options.quick,
        )
        cases: dict[str, Callable[[], None]] = {
            case.name: lambda case=case: measure_case(bench, case) for case in CASES
        }
        cases |= {
            "steps": lambda: measure_steps(bench),
            "matrix": lambda: measure_matrices(bench),
            "quality": lambda: measure_quality(bench),
        }
        for name in options.cases or ALWAYS:
            cases[name]()
            if not options.quick:
                RESULTS.write_text(document(bench.report), encoding="utf-8")
        if options.quick:
            print(document(bench.report))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: {' '.join(ALWAYS)}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default {ROUNDS}; matrix: 1")
    parser.add_argument("--samples", type=int, metavar="N", help="of a training")
    parser.add_argument("--text", metavar="PATH", default="bundled/python-docs")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    unknown = sorted(set(options.cases) - {*ALWAYS, "quality"})
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; cases are {', '.join(ALWAYS)}, quality")
    return options


def origin() -> list[tuple[str, str]]:
    """The machine, the software and the command."""
    machine, state = hardware(), git_state(Path(__file__).parent)
    commit = "unknown" if state is None else state["commit"][:12]
    if state is not None and state["dirty"]:
        commit += " with uncommitted changes"
    gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    return [
        (
            "machine",
            f"{machine['cpu']}, {machine['cores']} cores, torch uses {torch.get_num_threads()} "
            f"threads{gpus}; load at the start {os.getloadavg()[0]:.1f}",
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
        ("date", datetime.now(UTC).date().isoformat()),
        ("commit", commit),
        ("command", f"`python tests/benchmarks/versus_trainer.py {shlex.join(sys.argv[1:])}`"),
    ]


def measure_case(bench: Bench, case: Case) -> None:
    config = bench.config_of(case)
    for entry in case.quick if bench.quick else case.entries:
        for row in measure_entry(bench, case, entry, with_entry(config, entry)):
            bench.report.rows.append(row)
            print(line(row.cells()), flush=True)


def with_entry(config: RunConfig, entry: Entry) -> RunConfig:
    return dataclasses.replace(
        config,
        strategy=parse_strategy(entry.strategy),
        training=dataclasses.replace(config.training, epochs=entry.epochs),
    )


def with_precision(config: RunConfig, precision: str) -> RunConfig:
    training = dataclasses.replace(config.training, mixed_precision=OUR_PRECISIONS[precision])
    return dataclasses.replace(config, training=training)


def measure_entry(bench: Bench, case: Case, entry: Entry, config: RunConfig) -> list[Row]:
    """Both sides in turn; every other round backwards, so that none is always the first."""
    log = bench.folder / "log"
    jobs: dict[str, Callable[[], Measured]] = {
        "Trainer": lambda: in_fresh_process(log, theirs, config, False)
    }
    for name in OUR_PRECISIONS:
        jobs[name] = lambda name=name: in_fresh_process(log, ours, with_precision(config, name))
    if entry.padded:
        jobs["padded"] = lambda: in_fresh_process(log, theirs, config, True)
    measured: dict[str, list[Measured]] = {name: [] for name in jobs}
    for number in range(bench.rounds_or_default):
        for name in list(jobs)[:: -1 if number % 2 else 1]:
            measured[name].append(jobs[name]())
    check_alike(f"{case.name} {entry.strategy}", measured)

    def row(precision: str, trainer: str, label: str) -> Row:
        pairs = zip(measured[trainer], measured[precision], strict=True)
        seconds = tuple((their.seconds, our.seconds) for their, our in pairs)
        return Row(case.name, entry.strategy, entry.epochs, precision, label, seconds)

    rows = [row(name, "Trainer", "float32") for name in OUR_PRECISIONS]
    return [*rows, row("float32", "padded", PADDED)] if entry.padded else rows


def check_alike(what: str, measured: dict[str, list[Measured]]) -> None:
    """Both sides must have trained the same parameters by as many updates."""
    work = {
        name: {(one.updates, one.trainable) for one in several}
        for name, several in measured.items()
    }
    if len(set().union(*work.values())) > 1:
        raise RuntimeError(f"{what}: updates and trained parameters differ: {work}")


def measure_steps(bench: Bench) -> None:
    shares = []
    for case in CASES[1:2] if bench.quick else CASES:
        config = with_entry(bench.config_of(case), Entry("full", 1))
        for precision in OUR_PRECISIONS:
            arguments = (case.name, with_precision(config, precision), 2 if bench.quick else STEPS)
            share = in_fresh_process(bench.folder / "log", step_share, *arguments)
            shares.append(dataclasses.replace(share, precision=precision))
    bench.report.shares.extend(with_common_peaks(shares))
    lines = [share.cells() for share in bench.report.shares]
    print(f"\n{markdown(SHARES_HEADER, lines)}\n", flush=True)


def measure_matrices(bench: Bench) -> None:
    """Whole commands over the texts of the case text."""
    case = CASES[0]
    config = bench.config_of(case)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, max_eval_samples=None)
    )
    matrix = Matrix(with_entry(config, Entry("full", 1 if bench.quick else 3)))
    if bench.quick:
        matrix = dataclasses.replace(matrix, strategies=("head",), seeds=(0,))
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in OUR_PRECISIONS}
    for number in range(MATRIX_ROUNDS):
        folder = bench.folder / f"matrix_{number}"
        trainer = measure_trainer(matrix, folder / "trainer")
        for name, seconds in pairs.items():
            own = dataclasses.replace(matrix, config=with_precision(matrix.config, name))
            seconds.append((trainer.seconds, measure_ours(own, folder / name, trainer).seconds))
    runs = f"{len(matrix.strategies)} x {len(matrix.seeds)}"
    for name, seconds in pairs.items():
        epochs = matrix.config.training.epochs
        bench.report.rows.append(Row("matrix", runs, epochs, name, "float32", tuple(seconds)))
        print(line(bench.report.rows[-1].cells()), flush=True)


def measure_quality(bench: Bench) -> None:
    data = bench.texts(bench.samples_of(QUALITY_SAMPLES))
    config = text_config("bundled/bert-tiny", data, learning_rate=5e-4, max_length=QUALITY_TOKENS)
    config = with_entry(config, Entry("full", 1 if bench.quick else QUALITY_EPOCHS))
    matrix = Matrix(config, strategies=QUALITY_STRATEGIES)
    if bench.quick:
        matrix = dataclasses.replace(matrix, strategies=("head",), seeds=(0,))
    trainer = measure_trainer(matrix, bench.folder / "trainer")
    own = measure_ours(matrix, bench.folder / "ours", trainer)
    bench.report.qualities.extend(qualities(matrix, own, trainer))
    lines = [quality.cells() for quality in bench.report.qualities]
    print(f"\n{markdown(QUALITY_HEADER, lines)}", flush=True)


def qualities(matrix: Matrix, ours: Side, trainer: Side) -> list[Quality]:
    """Test accuracies by strategy, in the order of the seeds."""
    return [
        Quality(
            strategy,
            *(
                tuple(side.outcomes[strategy, seed].test_accuracy for seed in matrix.seeds)
                for side in (ours, trainer)
            ),
        )
        for strategy in matrix.strategies
    ]


if __name__ == "__main__":
    main()
