"""The one process that routes is started again: what becomes of requests, with its sockets kept open and without."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("uvicorn", reason="needs the extra modelops")

from modelops import asgi
from modelops.errors import ConfigError
from tests.modelops import served_model, world
from tests.modelops.open_load import Load
from tests.modelops.service import ask, service, wait_for

RATE = 30.0


@contextlib.contextmanager
def kept_open() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The sockets of router and API, held by this process."""
    with socket.create_server(("127.0.0.1", 0), backlog=2000) as router, socket.create_server(("127.0.0.1", 0)) as api:
        yield router, api


@pytest.mark.slow
def test_with_sockets_that_are_kept_open_a_restart_costs_no_request(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config)
    with kept_open() as listeners, service(config, listeners) as made:
        assert made.router.endswith(f":{listeners[0].getsockname()[1]}")
        # One that is kept may be used just as it is closed, which no server can help: clients send again then.
        with Load(made.router, RATE, keeps=False) as load:
            for _ in range(2):
                load.wait_for_more(60)
                assert made.kill(signal.SIGTERM) == 0
                made.up()
            load.wait_for_more(60)
        assert load.failed == [], [(one.due_s, one.took_ms, one.status) for one in load.failed]
        assert len(load.done) > 150


@pytest.mark.slow
def test_a_killed_router_loses_what_was_under_way_and_nothing_that_waits_in_its_socket(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config)
    with kept_open() as listeners, service(config, listeners) as made:
        with Load(made.router, RATE) as load:
            load.wait_for_more(60)
            made.kill()
            dead_s = load.now_s()
            made.up()
            load.wait_for_more(60)
        assert {one.status for one in load.failed} <= {0}  # no answer; never a wrong one
        assert [one for one in load.failed if one.due_s > dead_s + 1] == []  # all of them were under way


@pytest.mark.slow
def test_without_them_requests_fail_until_it_is_back(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config)
    with service(config) as made:
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        settled = config.read_text().replace(
            '"router": {"port": 0}', f'"router": {{"port": {made.router[-5:].strip(":")}}}'
        )
        config.write_text(settled)
        with Load(made.router, RATE) as load:
            load.wait_for_more(30)
            assert made.kill(signal.SIGTERM) == 0
            made.up()
            wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
            load.wait_for_more(30)
        assert {one.status for one in load.failed} == {0}  # refused, at once
        assert load.done[-1].status == 200


def test_what_is_handed_down_must_be_a_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LISTEN_FDNAMES", "router")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert asgi.handed_down() == {}  # another process's
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    with (tmp_path / "file").open("w") as file:
        kept = os.dup(3)
        try:
            os.dup2(file.fileno(), 3)
            with pytest.raises(ConfigError, match="'router' must be a listening socket"):
                asgi.handed_down()
        finally:
            os.dup2(kept, 3)
            os.close(kept)
