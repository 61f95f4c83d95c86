"""What a command says beside its results, on standard error: remarks, and what it waits for.

Standard library only.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hfbench.rank import is_main_process

MOMENT_SECONDS = 1.0  # a wait that is shorter needs no word


def remark(text: str) -> None:
    """One line on standard error, once for all processes."""
    if not is_main_process():
        return
    line = f"{text}\n"  # in one piece: an interrupt has a line of its own
    if "tqdm" in sys.modules:  # a bar that is drawn at the moment goes on below the line
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr, end="")
    else:
        sys.stderr.write(line)
    sys.stderr.flush()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Around work that may take long: say ``what`` goes on as soon as it takes over a moment."""
    if not is_main_process():
        yield
        return
    waiting = threading.Timer(MOMENT_SECONDS, remark, [f"... {what}"])
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()
        waiting.join()  # nothing is said once the work is over
