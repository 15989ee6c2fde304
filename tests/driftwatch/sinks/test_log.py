"""The log sink: whole lines, and errors that say whether to try again."""

import socket
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest

from driftwatch.decision import Decision, WindowLine
from driftwatch.errors import SinkError
from driftwatch.sinks.log import LogSink

DECISION = Decision(
    window=WindowLine("credit", "3", None, "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z", 0),
    verdict="ok",
    scores=(),
    quality=(),
    alarms=(),
    part=1,
    partial=False,
    share=None,
    revision=0,
    p_value=None,
    threshold=None,
    caution=(),
)


def test_the_log_is_one_decision_a_line() -> None:
    stream = BytesIO()
    log = LogSink(stream)
    log.write(DECISION, b'{"verdict":"ok"}')
    log.write(DECISION, b'{"verdict":"drift"}')
    assert stream.getvalue() == b'{"verdict":"ok"}\n{"verdict":"drift"}\n'


def test_a_log_that_nobody_reads_any_more_is_not_recoverable() -> None:
    reading, writing = socket.socketpair()
    with writing, writing.makefile("wb") as stream:
        reading.close()
        with pytest.raises(SinkError) as caught:
            LogSink(stream).write(DECISION, b"{}")
        assert not caught.value.recoverable
        with suppress(BrokenPipeError):
            stream.close()


def test_a_log_on_a_full_disk_is_recoverable() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with full.open("wb", buffering=0) as stream, pytest.raises(SinkError, match="No space left") as caught:
        LogSink(stream).write(DECISION, b"{}")
    assert caught.value.recoverable
