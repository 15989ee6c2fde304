"""The log sink: whole lines, and errors that say whether to try again."""

import socket
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest

from driftwatch.errors import SinkError
from driftwatch.sinks.log import LogSink


def test_the_log_is_one_decision_a_line() -> None:
    stream = BytesIO()
    log = LogSink(stream)
    log.write(b'{"verdict":"ok"}')
    log.write(b'{"verdict":"drift"}')
    assert stream.getvalue() == b'{"verdict":"ok"}\n{"verdict":"drift"}\n'


def test_a_log_that_nobody_reads_any_more_is_not_recoverable() -> None:
    reading, writing = socket.socketpair()
    with writing, writing.makefile("wb") as stream:
        reading.close()
        with pytest.raises(SinkError) as caught:
            LogSink(stream).write(b"{}")
        assert not caught.value.recoverable
        with suppress(BrokenPipeError):
            stream.close()


def test_a_log_on_a_full_disk_is_recoverable() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with full.open("wb", buffering=0) as stream, pytest.raises(SinkError, match="No space left") as caught:
        LogSink(stream).write(b"{}")
    assert caught.value.recoverable
