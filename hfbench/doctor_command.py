"""``hfbench doctor``: what this machine has, and what hfbench would choose on it."""

import argparse
from typing import Any


def add_doctor_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the subcommand; the caller sets what it runs. Does not import torch."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="what this machine has, how fast it is, and what would be chosen on it",
        description="Versions, processor and devices, measured speeds, the number of threads and "
        "the precision that would be chosen with the measurements behind them, disk, and whether "
        "the Hugging Face Hub answers. Takes seconds; trains and downloads nothing.",
    )
    parser.add_argument("--json", action="store_true", help="for programs, in seconds and bytes")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    return parser


def doctor(options: argparse.Namespace) -> str:
    """The report that the options ask for."""
    from hfbench.doctor import diagnose
    from hfbench.report.diagnoses import diagnosis_as_json, format_diagnosis

    diagnosis = diagnose()
    return diagnosis_as_json(diagnosis) if options.json else format_diagnosis(diagnosis)
