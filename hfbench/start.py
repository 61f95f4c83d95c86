"""Where every command starts: what must hold before anything else is imported.

Signals from the first moment on, an end with the launcher, standard streams that take what is
printed.
"""

from hfbench.interrupts import answer_interrupts
from hfbench.orphans import end_with_command, end_with_launcher


def main() -> int:
    """Entry point of ``hfbench`` and of ``python -m hfbench``; returns the exit code."""
    prepare_process()
    from hfbench.cli import main as command

    return command()


def recipe(task: str, description: str | None) -> int:
    """Entry point of a recipe; returns the exit code."""
    prepare_process()
    from hfbench.cli import recipe_main

    return recipe_main(task, description)


def prepare_process() -> None:
    """For the main process of a command, before its other imports."""
    answer_interrupts()
    end_with_launcher()
    _take_what_is_printed()


def prepare_child() -> None:
    """For a process that a command of ours started, which speaks for it."""
    answer_interrupts(speaks=False)
    end_with_command()
    _take_what_is_printed()


def _take_what_is_printed() -> None:
    from hfbench.streams import make_streams_last

    make_streams_last()
