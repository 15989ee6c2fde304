"""Rollouts under an open-loop load: no request fails in any way that promises it, whatever is killed meanwhile."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("uvicorn", reason="needs the extra modelops")

from benchmarks import rollouts
from tests.modelops import served_model, world
from tests.modelops.open_load import Load
from tests.modelops.service import ask, ports, ready_servers, run, servers_of, service, wait_for

ENDS = {"canary, taken back": "rolled_back"}


@pytest.mark.slow
def test_no_request_fails_and_each_is_logged(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config, n_versions=1 + len(rollouts.CASES), kind="hist_gradient_boosting")
    with service(config) as made:
        wait_for(lambda: ready_servers(made) == 1, made.text)
        for version, case in enumerate(rollouts.CASES, 2):
            found = rollouts.measured(made, case, version, rate=60, requests=600)
            assert found["ended"] == ENDS.get(case, "promoted"), (found, made.text())
            assert found["missing"] == 0, found
            if case == "recreate":
                assert found["failed"] > 0
            else:
                assert found["failed"] == 0, (found, made.text())
            if "killed" not in case:
                assert found["twice"] == 0, found


def connected(port: str) -> int:
    """How many connections there are to a port of this machine."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for words in lines if words[2].endswith(f":{int(port):04X}") and words[3] == "01")


@pytest.mark.slow
def test_requests_that_are_under_way_at_sigterm_are_answered(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config)
    with service(config) as made:
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        (pid,) = servers_of(config)
        (port,) = ports([pid])
        before = connected(port)
        os.kill(pid, signal.SIGSTOP)
        found: list[tuple[int, object]] = []
        body = json.dumps({"instances": world.features(5, 1)}).encode()
        clients = [
            threading.Thread(target=lambda: found.append(ask(f"{made.router}/v1/models/credit:predict", body)))
            for _ in range(20)
        ]
        for client in clients:
            client.start()
        wait_for(lambda: connected(port) >= before + 20, made.text)  # each waits for the stopped server
        ended = threading.Thread(target=lambda: found.append((made.kill(signal.SIGTERM), "the service")))
        ended.start()
        wait_for(lambda: ask(f"{made.router}/livez")[0] == 0, made.text)  # it takes no new ones
        os.kill(pid, signal.SIGCONT)
        for client in (*clients, ended):
            client.join()
        assert [status for status, _ in found[:-1]] == [200] * 20, found
        assert found[-1] == (0, "the service")
        wait_for(lambda: servers_of(config) == [])


@pytest.mark.slow
def test_model_servers_that_are_killed_before_and_after_the_switch_cost_no_request(tmp_path: Path) -> None:
    plan = {"observe": "600s", "steps": [0.5], "watch": "8s", "min_labels": 10**9, "max_latency_ratio": 1000}
    config = world.make_folder(tmp_path, recipe={"rollout": plan})
    served_model.register(config, n_versions=2)
    with service(config) as made:
        wait_for(lambda: ready_servers(made) == 1, made.text)
        (old,) = servers_of(config)
        with Load(made.router, 30) as load:
            load.wait_for_more(30)
            assert run("rollout", "start", "credit", 2, "-c", config).returncode == 0
            (new,) = wait_for(lambda: [pid for pid in servers_of(config) if pid != old], made.text)
            os.kill(new, signal.SIGKILL)  # preparing
            wait_for(lambda: made.phase() == "observing", made.text)
            assert run("rollout", "promote", "credit", "-c", config).returncode == 0
            wait_for(lambda: made.phase() == "watching", made.text)
            (new,) = [pid for pid in servers_of(config) if pid != old]
            os.kill(new, signal.SIGKILL)
            wait_for(lambda: made.phase() == "promoted", made.text)
            load.wait_for_more(30)
        assert load.failed == [], made.text()
        assert set(load.versions) == {"1", "2"}
        wait_for(lambda: len(servers_of(config)) == 1, made.text)
