"""The command line. It imports only what the called command needs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import hfbench
from hfbench.disk import check_place
from hfbench.doctor_command import add_doctor_parser, doctor
from hfbench.errors import StartAgainError, UserError
from hfbench.exits import WORK_GOES_ON, guarded
from hfbench.layers_command import add_layers_parser, layers
from hfbench.plan_command import add_plan_parser
from hfbench.predict_command import (
    add_excel_argument,
    add_predict_parser,
    check_excel_argument,
    predict,
)
from hfbench.push_command import (
    add_push_parser,
    check_before_training,
    push,
    push_after_training,
)
from hfbench.rank import is_alone, is_main_process
from hfbench.recommend_command import add_recommend_parser
from hfbench.spelling import COMPARE, COUNTS
from hfbench.status import remark, working
from hfbench.streams import write_out

if TYPE_CHECKING:
    from hfbench.config import RunConfig, StrategyConfig
    from hfbench.results import RunResult

LOADING = "loading the libraries"
DEFAULT_STRATEGIES = "scratch,head,last_2,lora,full"
FOR_PROGRAMS = ("csv", "json")
LANGUAGE_STRATEGIES = "scratch,last_2,lora,full"  # a tied output layer is no head to train alone


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``hfbench``; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    return guarded(
        lambda: options.command(options),
        debug=options.debug,
        interrupted=options.interrupted,
        spelling=options.spelling,
    )


def recipe_main(task: str, description: str | None, arguments: Sequence[str] | None = None) -> int:
    """A recipe: read its config and run it; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="YAML configuration")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. strategy=last_2")
    parser.add_argument(
        "--dry-run", action="store_true", help="show counts, cost and files; train nothing"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    options = parser.parse_args(arguments)

    def run_recipe() -> int:
        from hfbench.config import load_config
        from hfbench.early_checks import check_early

        config = load_config(options.config, options.overrides, task=task, say=remark)
        check_early(config, [config.strategy])
        if options.dry_run:
            with working(LOADING):
                from hfbench.dry_run import dry_run

            dry_run(config)
            return 0
        pushes = config.hub.push and is_main_process()
        if pushes:
            check_before_training(config)
        with working(LOADING):
            from hfbench.run import run
            from hfbench.smaller_batches import start_again

        try:
            run(config)
        except StartAgainError as error:
            if not is_alone():
                raise
            remark(f"{error}; it starts again now")
            start_again()
        if pushes:
            push_after_training(config)
        return 0

    return guarded(run_recipe, debug=options.debug, interrupted=WORK_GOES_ON)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hfbench", description="How much of a pretrained model should be trained?"
    )
    parser.add_argument("--version", action="version", version=f"hfbench {hfbench.__version__}")
    parser.set_defaults(interrupted="interrupted", spelling=())
    commands = parser.add_subparsers(required=True, metavar="command")
    compare = commands.add_parser(
        "compare",
        help="run strategies and seeds, or read finished results, and compare them",
        description="With --config: run every strategy with every seed that is not finished yet, "
        "then compare. Without: compare the results below the given folders.",
    )
    compare.add_argument("arguments", nargs="*", metavar="FOLDER | key=value")
    compare.add_argument("--config", metavar="FILE", help="YAML configuration to run")
    compare.add_argument(
        "--strategies",
        help=f"separated by commas (default {DEFAULT_STRATEGIES}; causal_lm {LANGUAGE_STRATEGIES})",
    )
    compare.add_argument("--seeds", help="separated by commas (default 0)")
    compare.add_argument(
        "--output",
        metavar="FOLDER",
        help="with --config: where runs go (default runs/<config>); without: where images go "
        "(default FOLDER, of several the current one)",
    )
    compare.add_argument("--format", choices=("table", "markdown"), default="table")
    compare.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    compare.set_defaults(command=_compare, interrupted=WORK_GOES_ON, spelling=COMPARE)
    _add_params(commands)
    add_plan_parser(commands).set_defaults(command=_plan, spelling=COUNTS)
    add_recommend_parser(commands).set_defaults(command=_recommend)
    add_layers_parser(commands).set_defaults(command=_layers)
    add_push_parser(commands).set_defaults(command=_push)
    add_doctor_parser(commands).set_defaults(command=_doctor)
    add_predict_parser(commands).set_defaults(command=_predict)
    return parser


def _add_params(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    params = commands.add_parser(
        "params",
        help="how many parameters each strategy trains, without weights",
        description="Counts the parameters of each strategy from the checkpoint's configuration "
        "alone: no weights are downloaded and no memory is used for them.",
    )
    params.add_argument(
        "checkpoint", help="hub name, folder, config.json, bundled/<name> or timm model"
    )
    params.add_argument(
        "--task",
        help="text_classification, image_classification, audio_classification, "
        "speech_recognition or causal_lm "
        "(default: what the architecture fits)",
    )
    params.add_argument(
        "--num-labels", type=int, metavar="N", help="default: the checkpoint's own, else 2"
    )
    params.add_argument(
        "--strategies",
        metavar="LIST",
        help="separated by commas, such as full,head,last_2,first_2,bitfit,"
        "lora:r=8,targets=all_linear (default: what suits the network)",
    )
    params.add_argument("--format", choices=("table", "markdown", "csv", "json"), default="table")
    add_excel_argument(params)
    params.add_argument(
        "--plot", metavar="FILE", help="draw trainable parameters over depth (png, svg or pdf)"
    )
    params.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    params.set_defaults(command=_params, spelling=COUNTS)


def _answer(options: argparse.Namespace, text: str) -> None:
    write_out(text, for_programs=options.format in FOR_PROGRAMS)


def _push(options: argparse.Namespace) -> int:
    with working("reading the run and asking the hub"):
        done = push(options.run_folder, options.overrides)
    print(done)
    return 0


def _plan(options: argparse.Namespace) -> int:
    from hfbench.plan_command import plan

    with working("building the network on paper and tracing a step of each strategy"):
        text = plan(options, _strategies(options.strategies))
    _answer(options, text)
    return 0


def _recommend(options: argparse.Namespace) -> int:
    from hfbench.recommend_command import recommend_text

    with working("counting every checkpoint that matches"):
        text = recommend_text(options)
    _answer(options, text)
    return 0


def _layers(options: argparse.Namespace) -> int:
    with working("building and measuring the layers"):
        text = layers(options)
    _answer(options, text)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    with working("measuring this machine"):
        text = doctor(options)
    write_out(text, for_programs=options.json)
    return 0


def _predict(options: argparse.Namespace) -> int:
    _answer(options, predict(options))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from hfbench.results import load_all

    overrides = [text for text in options.arguments if "=" in text]
    folders = [Path(text) for text in options.arguments if "=" not in text]
    if options.config is not None:
        if folders:
            raise UserError(f"--config runs into --output; {str(folders[0])!r} is not key=value")
        return _run_and_compare(options, overrides)
    if not folders or overrides:
        raise UserError("hfbench compare needs --config FILE, or folders that hold results")
    if options.strategies or options.seeds:
        raise UserError("--strategies and --seeds belong to --config FILE")
    unreadable: list[str] = []
    results = [result for folder in folders for result in load_all(folder, unreadable)]
    if unreadable and not results:
        raise UserError(f"none of {len(unreadable):,} results can be read: {unreadable[0]}")
    if not results:
        raise UserError(f"there is no result.json below {', '.join(map(str, folders))}")
    # Of several folders none is the one that an image of all belongs to.
    images = Path(options.output or (folders[0] if len(folders) == 1 else "."))
    _print_comparison(results, images, options.format, unreadable)
    return 0


def _run_and_compare(options: argparse.Namespace, overrides: list[str]) -> int:
    """Run the matrix, then compare exactly its runs, whatever else the folder holds."""
    from hfbench.config import load_config, parse_strategy
    from hfbench.early_checks import check_early
    from hfbench.matrix import plan_matrix, run_matrix
    from hfbench.record import run_id
    from hfbench.results import load_all

    for key, flag in (("strategy", "strategies"), ("seed", "seeds"), ("output_dir", "output")):
        if any(text.split("=")[0].split(".")[0] == key for text in overrides):
            raise UserError(f"hfbench compare sets {key} itself: use --{flag}")
    seeds = parse_seeds(options.seeds or "0", "--seeds")
    config = load_config(options.config, overrides, say=remark)
    _say_unused(config)
    if config.hub.push:
        raise UserError("hub.push belongs to one run: compare, then hfbench push the best folder")
    names = split_strategies(options.strategies or default_strategies(config))
    strategies = [parse_strategy(name) for name in names]
    check_early(config, strategies)
    folder = Path(options.output or Path("runs") / Path(options.config).stem)
    check_place(folder, f"--output {str(folder)!r}", "folder")
    runs = plan_matrix(config, strategies, seeds, folder)
    failed = run_matrix(runs, debug=options.debug)
    wanted = {run_id(run) for run in runs}
    unreadable: list[str] = []
    results = [one for one in load_all(folder, unreadable) if one.run_id in wanted]
    _print_comparison(results, folder, options.format, unreadable)
    return 1 if failed else 0


def _say_unused(config: "RunConfig") -> None:
    """What a file says of the run's strategy and seed is not what a comparison runs."""
    from hfbench.config import RunConfig

    usual = RunConfig().strategy.label if config.network is None else "scratch"
    if config.strategy.label != usual:
        remark(f"note: --strategies decide, not the file's strategy {config.strategy.label}")
    if config.seed:
        remark(f"note: --seeds decide, not the file's seed {config.seed}")


def default_strategies(config: "RunConfig") -> str:
    """Which ``hfbench compare`` runs unasked, separated by commas."""
    if config.network is not None:
        return "scratch"
    return LANGUAGE_STRATEGIES if config.task == "causal_lm" else DEFAULT_STRATEGIES


def _print_comparison(
    results: Sequence["RunResult"],
    folder: Path,
    style: Literal["table", "markdown"],
    unreadable: Sequence[str],
) -> None:
    """The table, what is not in it, and in ``folder`` one image a task, checkpoint and data set."""
    from hfbench.compare import aggregate, sections
    from hfbench.record import slug
    from hfbench.report.comparison import format_comparison, format_unreadable

    groups = aggregate(results)
    print(format_comparison(groups, style))
    if unreadable:
        print(format_unreadable(unreadable, len(results) + len(unreadable), style))
    for section in sections(groups):
        if not any(group.primary for group in section):
            continue  # nothing succeeded: the table says why
        from hfbench.report.plots import plot_quality_against_parameters

        names = [slug(Path(name).name) for name in (section[0].checkpoint, section[0].dataset)]
        image = folder / f"{'_on_'.join(names)}.png"
        with working("drawing the image"):
            plot_quality_against_parameters(section, image)
        print(f"image: {image}")


def _params(options: argparse.Namespace) -> int:
    from hfbench.params import count_strategies
    from hfbench.report.depth_plot import check_image_path, plot_over_depth
    from hfbench.report.parameter_tables import format_counts

    check_excel_argument(options, options.format)
    image = None if options.plot is None else Path(options.plot)
    if image is not None:
        check_image_path(image)
        check_place(image, f"--plot {options.plot!r}", "file")
    with working("building the network on paper and counting what each strategy trains"):
        counts = count_strategies(
            options.checkpoint,
            task=options.task,
            num_labels=options.num_labels,
            strategies=_strategies(options.strategies),
        )
    if image is not None:
        with working("drawing the image"):
            plot_over_depth(counts, image)
    for_programs = options.format in FOR_PROGRAMS
    for note in counts.notes if for_programs else ():
        print(note, file=sys.stderr)
    _answer(options, format_counts(counts, options.format, excel_safe=options.excel_safe))
    if image is not None:
        print(f"image: {image}", file=sys.stderr if for_programs else sys.stdout)
    return 0


def _strategies(text: str | None) -> list["StrategyConfig"] | None:
    from hfbench.config import parse_strategy

    return None if text is None else [parse_strategy(name) for name in split_strategies(text)]


def parse_seeds(text: str, flag: str) -> list[int]:
    """``0,1,2`` as numbers. Raises UserError, naming ``flag``, for anything else."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise UserError(f"{flag} {text!r} is not a list of numbers like 0,1,2") from error


def split_strategies(text: str) -> list[str]:
    """Split at the commas between strategies, not at those between one strategy's options.

    >>> split_strategies("full,lora:r=4,targets=all_linear,head")
    ['full', 'lora:r=4,targets=all_linear', 'head']
    """
    found: list[str] = []
    for part in text.split(","):
        if found and ":" in found[-1] and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found
