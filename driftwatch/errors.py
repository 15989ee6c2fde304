"""The service's errors. A foreign exception is mapped to one of these where it enters (`raise … from`)."""


class DriftwatchError(Exception):
    """Any error that the service raises on purpose; its text is fit for a user."""

    exit_code = 3


class ConfigError(DriftwatchError):
    """The configuration, a command's arguments or a reference disagree with what is possible."""

    exit_code = 2


class DecodeError(DriftwatchError):
    """A message has no readable structure, id or time."""


class SourceError(DriftwatchError):
    """A source cannot be read."""


class SinkError(DriftwatchError):
    """A sink did not take what it was given.

    `recoverable` says whether trying again may help; `retry_after_s` is the receiver's wish, where it stated one.
    """

    def __init__(self, message: str, *, recoverable: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.recoverable = recoverable
        self.retry_after_s = retry_after_s


class StateError(DriftwatchError):
    """The state file cannot be used: unreadable, of another version or model, or held by another process."""


class StoreUnavailable(StateError):
    """The state's volume could not be used for a reason that may pass (disk full, I/O error, locked).

    Nothing was changed: the same call may be tried again.
    """
