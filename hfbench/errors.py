"""The errors that the command line turns into one message and an exit code."""


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


class NotTraceableError(UserError):
    """A model's cost cannot be known without running it on real data."""


class NotPublishedError(RuntimeError):
    """The run is done and safe on disk, but the hub did not take it. Exit code 4."""

    exit_code = 4


class HubUnreachableError(RuntimeError):
    """The Hugging Face Hub is needed and does not answer. Exit code 3."""

    exit_code = 3
