"""``hfbench predict``: answers of a fine-tuned model to new inputs."""

import argparse
import dataclasses
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfbench.disk import check_place, write_whole
from hfbench.errors import UserError
from hfbench.status import working

if TYPE_CHECKING:
    from hfbench.report.predictions import Format
    from hfbench.tasks.base import PredictingTask

_ENDINGS: "dict[str, Format]" = {".json": "json", ".csv": "csv"}


def add_predict_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the subcommand; the caller sets what it runs. Does not import torch."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "predict",
        help="labels or transcripts of texts, images and recordings; what follows on a text",
        description="Preprocesses as in training where the model comes with its result.json. Only "
        "safetensors are loaded, and no code from a repository is run.",
    )
    parser.add_argument(
        "model", metavar="RUN_OR_REPO", help="folder of a run or of a saved model, or owner/name"
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="texts; image or audio files, or folders of them; tables (csv, tsv, json, jsonl, "
        "parquet) and txt files of texts; - reads one input a line from standard input",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub repository")
    parser.add_argument(
        "--top",
        type=_positive,
        metavar="K",
        help="candidates an input (default: the best; of several labels all that apply)",
    )
    parser.add_argument("--text-column", metavar="C", help="of tables (default: as in training)")
    add_sampling_arguments(parser)
    parser.add_argument("--batch-size", type=_positive, default=64, metavar="N")
    parser.add_argument(
        "--format",
        choices=("table", "json", "csv"),
        help="default: table, or what the ending of --output says",
    )
    add_excel_argument(parser)
    parser.add_argument("--output", metavar="FILE", help="write there instead of to the terminal")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    return parser


def predict(options: argparse.Namespace) -> str:
    """What goes to standard output; what model it is and what was assumed go to standard error."""
    from hfbench.data.kinds import check_names

    output = None if options.output is None else Path(options.output)
    check_names([Path(options.model), *([] if output is None else [output])])
    if output is not None:
        check_place(output, f"--output {options.output!r}", "file")
    style: Format = options.format or _ENDINGS.get("" if output is None else output.suffix, "table")
    check_excel_argument(options, style)

    with working("loading the libraries"):
        import torch

        from hfbench.data.inputs import read_inputs
        from hfbench.inference import answer_inputs
        from hfbench.report.predictions import format_predictions
        from hfbench.trained import find_trained

    with working("finding the model and its settings"):
        trained = find_trained(options.model, options.revision)
    set_sampling(trained.task, options)
    inputs = read_inputs(
        options.inputs,
        trained.task.modality,
        standard_input=io.BytesIO() if sys.stdin is None else sys.stdin.buffer,
        training_columns=trained.training_columns,
        text_column=options.text_column,
    )
    notes = [*trained.notes, *inputs.notes]
    for note in notes:
        print(note, file=sys.stderr)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with working("loading the model"):
        model = trained.load().to(device)
    with working(f"answering {len(inputs.rows):,} inputs"):
        answers = answer_inputs(
            trained.task, model, inputs.rows, batch_size=options.batch_size, count=options.top
        )
    about = {
        "model": trained.name,
        "revision": trained.revision,
        "task": trained.task.name,
        "notes": notes,
    }
    text = format_predictions(
        inputs.names,
        answers,
        style,
        answer_name=trained.task.answer_name,
        about=about,
        excel_safe=options.excel_safe,
    )
    if output is None:
        return text
    write_whole(output, text)
    return f"predictions: {output}\n"


def add_excel_argument(parser: argparse.ArgumentParser) -> None:
    """Of every command that writes CSV."""
    parser.add_argument(
        "--excel-safe",
        action="store_true",
        help="of CSV: an apostrophe before texts that spreadsheets take for formulas (= + - @)",
    )


def check_excel_argument(options: argparse.Namespace, style: str) -> None:
    """Raises UserError for another format than CSV."""
    if options.excel_safe and style != "csv":
        raise UserError(f"--excel-safe is for --format csv; this is {style}")


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """How a language model writes."""
    group = parser.add_argument_group("language models", "greedy without temperature and top-p")
    group.add_argument("--max-new-tokens", type=_positive, metavar="N", help="default: 64")
    group.add_argument(
        "--temperature", type=float, metavar="T", help="sample; 1: as the model says"
    )
    group.add_argument("--top-p", type=float, metavar="P", help="sample from this much probability")
    group.add_argument("--seed", type=int, metavar="S", help="of sampling (default: 0)")


def set_sampling(task: "PredictingTask", options: argparse.Namespace) -> None:
    """Raises UserError where the task writes nothing, or for values out of range."""
    names = ("max_new_tokens", "temperature", "top_p", "seed")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if given and task.sampling is None:
        option = next(iter(given)).replace("_", "-")
        raise UserError(
            f"--{option} is for models that write text token by token; {task.name} answers with a "
            f"{task.answer_name}"
        )
    if task.sampling is not None:
        task.sampling = dataclasses.replace(task.sampling, **given)


def _positive(text: str) -> int:
    """Raises argparse.ArgumentTypeError for what is no number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number >= 1")
    return int(text)
