"""Which of a launcher's processes this one is. Standard library only, and little of it."""

import os

MAIN = "0"


def rank() -> str:
    """The number of this process among those of its launcher; that of the first where alone."""
    return os.environ.get("RANK", MAIN)


def is_one_of_several() -> bool:
    """Whether its launcher started others beside this process."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def is_main_process() -> bool:
    """Whether this process, alone or one of the launcher's, is the one that speaks for all."""
    return rank() == MAIN


def is_alone() -> bool:
    """Whether no launcher counts on this very process: it may start anew in its own place."""
    return "TORCHELASTIC_RUN_ID" not in os.environ and not is_one_of_several()
