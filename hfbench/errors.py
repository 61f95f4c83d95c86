"""The errors that the command line turns into one message and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake of the user: the message names the value, the choices and the fix. Exit code 2."""

    exit_code = 2


class UnreadableError(UserError):
    """One sample that cannot be read, such as a broken image.

    Attributes:
        reason: without the sample's name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} is {reason}")
        self.reason = reason


class TrainingFailedError(RuntimeError):
    """A run that could not go on, with advice: it diverged or ran out of memory. Exit code 1."""

    exit_code = 1


class OtherProcessFailedError(RuntimeError):
    """Another process of this run failed and says why: this one ends in silence. Exit code 1."""

    exit_code = 1


class StartAgainError(TrainingFailedError):
    """A run out of memory; started again, its command goes on with smaller batches."""


class NotMeasuredError(UserError):
    """An estimate, or a measurement of the machine, that failed: a run goes on without it."""


class NotTraceableError(NotMeasuredError):
    """A model's cost cannot be known without running it on real data."""


class NotPublishedError(RuntimeError):
    """The run is done and safe on disk, but the hub did not take it. Exit code 4."""

    exit_code = 4


class HubUnreachableError(RuntimeError):
    """The Hugging Face Hub is needed and does not answer. Exit code 3."""

    exit_code = 3


@contextmanager
def measuring(what: str, failure: type[NotMeasuredError] = NotMeasuredError) -> Iterator[None]:
    """Within, whatever goes wrong becomes a ``failure`` that says what it was.

    What people can mend (UserError), exhausted memory and Ctrl-C stay what they are.

    ``what``: what cannot be had then, as a sentence without its full stop.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        said = f": {lines[0]}" if lines else ""
        raise failure(f"{what} ({type(error).__name__}{said})") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the GPU or of the machine was exhausted."""
    signs = ("out of memory", "allocate memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
