"""How progress bars look on a terminal and in a log file."""

import sys
from typing import Any


def progress_options(is_main_process: bool) -> dict[str, Any]:
    """Keyword arguments for tqdm: only the main process draws, and seldom outside a terminal."""
    interactive = sys.stderr.isatty()
    return {
        "disable": not is_main_process,
        "leave": False,
        "dynamic_ncols": True,
        "mininterval": 0.3 if interactive else 15.0,
        "delay": 0.0 if interactive else 15.0,
    }
