"""Who takes rows of the prediction log: what is asked of it, and the two ways in which it refuses."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from modelops.errors import ModelopsError


class Row(NamedTuple):
    """One event of the log as it stands there, and its id."""

    id: str
    body: bytes


class Unavailable(ModelopsError):
    """It takes nothing now: the same rows are sent again later. `after_s`: when it asked to be tried again."""

    def __init__(self, message: str, *, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class Unwanted(ModelopsError):
    """It will never take these rows: `n_rows` of those that were sent, the others were taken."""

    def __init__(self, message: str, n_rows: int) -> None:
        super().__init__(message)
        self.n_rows = n_rows


class Receiver(Protocol):
    """Takes rows."""

    def send(self, rows: Sequence[Row]) -> None:
        """Returns once it has them all. Raises Unavailable and Unwanted."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...
