"""The log sink: one decision a line, as JSON, on standard output."""

from typing import BinaryIO

from driftwatch.decision import Decision
from driftwatch.errors import SinkError


class LogSink:
    """Writes each decision as one line and flushes it. Every decision is written once; a failed write is an error.

    Parameters
    ----------
    stream : binary, owned by the caller, who closes it; usually `sys.stdout.buffer`.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, decision: Decision, line: bytes) -> None:
        """Writes a decision's JSON, `line` (without line breaks, as encoders make it). Raises SinkError."""
        try:
            self._stream.write(line + b"\n")
            self._stream.flush()
        except BrokenPipeError as error:
            raise SinkError("log: nobody reads standard output any more", recoverable=False) from error
        except OSError as error:
            raise SinkError(f"log: {error}", recoverable=True) from error
