"""The loop while its processes are killed: it goes on where it was, and one version comes out."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="needs the extra modelops")

from modelops.times import rfc3339
from tests.modelops import served_model, world
from tests.modelops.service import Service, Traffic, ask, ready_servers, run, servers_of, service, wait_for

ENDED = ("promoted", "rejected", "failed", "rolled_back")
SLOWER = {"rollout": {"observe": "5s", "min_requests": 20, "watch": "3s", "steps": [0.5], "min_labels": 100_000}}


@contextlib.contextmanager
def drifting(folder: Path) -> Iterator[tuple[Service, float]]:
    """A service with a champion of the old concept, and a log of the new one."""
    config = world.make_folder(folder, recipe=SLOWER)
    served_model.register(config)
    changed_s = time.time() - 400
    (folder / "log").mkdir()
    world.write_events(folder / "log" / "predictions.jsonl", 2000, 2, start_s=changed_s, changed=True)
    with service(config) as made:
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        yield made, changed_s


def state_of(made: Service) -> str:
    """The job's state, and the phase while it is rolling out."""
    job = made.job()
    return "" if job is None else made.phase() if job["state"] == "rolling_out" else str(job["state"])


@pytest.mark.slow
def test_a_service_that_is_killed_in_every_state_goes_on(tmp_path: Path) -> None:
    with drifting(tmp_path) as (made, changed_s):
        stop = threading.Event()

        def traffic() -> None:
            i = 0
            while not stop.is_set():
                body = b'{"instances": [{"age": 40, "income": 20000, "region": "north"}], "id": "k%d"}' % i
                ask(f"{made.router}/v1/models/credit:predict", body)
                i += 1

        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            assert made.hook(start=rfc3339(changed_s))[0] == 202
            killed: list[str] = []
            while (state := wait_for(lambda: state_of(made), made.text)) not in ENDED:
                if state not in killed:
                    killed.append(state)
                    made.kill()
                    made.up()
                time.sleep(0.05)
        finally:
            stop.set()
            thread.join()
        assert made.job()["state"] == "promoted", made.job()
        assert {"running", "preparing", "observing", "watching"} <= set(killed)
        models = made.get("/v1/models")["credit"]
        assert models["aliases"] == {"champion": 2, "previous": 1}
        assert [version["version"] for version in models["versions"]] == [2, 1]
        wait_for(lambda: len(servers_of(made.config)) == 1, lambda: servers_of(made.config))


def workers(job: str) -> list[int]:
    """The subprocesses of a job."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"work" in words and job.encode() in words:
                    found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_killed_trainers_and_model_servers_cost_no_request_and_no_second_version(tmp_path: Path) -> None:
    with (
        drifting(tmp_path) as (made, changed_s),
        Traffic(made.router, tmp_path / "log" / "labels.jsonl") as traffic,
    ):
        job = made.hook(start=rfc3339(changed_s))[1]["job"]
        for step in ("snapshot", "train"):  # killed after these are done
            result = tmp_path / "state" / "jobs" / job / f"{step}.json"
            wait_for(result.exists, made.text)
            for pid in wait_for(lambda: workers(job), made.text):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: made.phase() == "observing", made.text)
        assert run("rollout", "pause", "credit", "-c", made.config).returncode == 0
        wait_for(lambda: ready_servers(made) == 2 and "2" in traffic.versions, made.text)
        for pid in servers_of(made.config):
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: ready_servers(made) == 2, made.text)
            wait_for(lambda n=traffic.sent: traffic.sent > n + 20, made.text)
        assert run("rollout", "resume", "credit", "-c", made.config).returncode == 0
        wait_for(lambda: state_of(made) in ENDED, made.text)
        found = made.job()
        assert (found["state"], found["attempts"]) == ("promoted", 2), found
        assert traffic.failed == []
        assert [version["version"] for version in made.get("/v1/models")["credit"]["versions"]] == [2, 1]
