"""What a command says beside its results: remarks on what it was given.

Standard library only.
"""

import os
import sys


def is_main_process() -> bool:
    """Whether this process, alone or one of the launcher's, is the one that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def remark(text: str) -> None:
    """One line on standard error, once for all processes."""
    if is_main_process():
        print(text, file=sys.stderr, flush=True)
