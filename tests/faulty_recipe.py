"""The recipe of text_classification, some of whose processes fail.

FAULTS are a rank, a phase and what happens in it, such as ``1/step:error``, separated by commas;
LIMIT_SECONDS shortens how long a collective waits for the others.
"""

import ctypes
import os
import re
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from hfbench.start import prepare_process

BOOM = "it burst"


def burst() -> None:
    raise ValueError(BOOM)


def exhaust() -> None:
    raise MemoryError(BOOM)


def refuse() -> None:
    from hfbench.errors import UserError

    raise UserError(BOOM)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    raise AssertionError("SIGKILL does not wait")


def linger() -> None:
    time.sleep(2 * float(os.environ["LIMIT_SECONDS"]))


def stick() -> None:
    """As one that waits for a GPU: neither signals nor closed connections end that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ctypes.CDLL(None).sleep(120)


KINDS = {
    "error": burst,
    "memory": exhaust,
    "kill": die,
    "mistake": refuse,
    "slow": linger,
    "stuck": stick,
}


def before(owner: Any, name: str, act: Any, *, calls: int = 1) -> None:
    """Let ``act`` happen before a function runs for the ``calls``-th time."""
    own, count = getattr(owner, name), [0]

    def faulty(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == calls:
            Path(os.environ["FAULT_FILE"]).touch()  # when it happened
            act()
        return own(*args, **kwargs)

    setattr(owner, name, faulty)


def inject(phase: str, act: Any) -> None:
    import hfbench.run
    import hfbench.scoring
    from hfbench.tasks.text_classification import TextClassification
    from hfbench.training.breaks import Breaks
    from hfbench.training.prefix.store import RowWriter

    places: dict[str, tuple[Any, str, int]] = {
        "data": (TextClassification, "prepare_data", 1),
        "prefix": (RowWriter, "add", 1),
        "step": (Breaks, "add_up", 3),
        "evaluation": (hfbench.scoring, "predict_split", 2),
        "save": (hfbench.run, "save", 1),
        "writing": (hfbench.run, "save_model", 1),  # by the main process alone
    }
    owner, name, calls = places[phase]
    before(owner, name, act, calls=calls)


def main() -> int:
    prepare_process()
    for fault in os.environ["FAULTS"].split(","):
        rank, phase, kind = re.split("[/:]", fault)
        if rank == os.environ["RANK"]:
            inject(phase, KINDS[kind])
    if limit := os.environ.get("LIMIT_SECONDS"):
        from torch.distributed import distributed_c10d

        distributed_c10d._get_default_timeout = lambda backend: timedelta(seconds=float(limit))
    from hfbench.cli import recipe_main

    return recipe_main("text_classification", None)


if __name__ == "__main__":
    sys.exit(main())
