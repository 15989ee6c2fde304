"""The demo's parts: what its stream does, what its story makes of what the services say, and who starts whom again."""

import http.server
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from demo import report, settings
from demo.__main__ import main
from demo.processes import Children, processes_of
from demo.story import STEPS, Story
from demo.stream import FEATURES, Applications, applications
from demo.traffic import ROWS, Answered, Traffic

PATIENCE_S = 60.0


def wait_for(what: Callable[[], object]) -> None:
    """Returns once it is true."""
    until_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until_s
        time.sleep(0.02)


# The stream -----------------------------------------------------------------------------------------------------------


def drawn(*, changed: bool, seed: int = 3) -> Applications:
    return applications(6000, np.random.default_rng(seed), changed=changed)


def test_the_recession_moves_incomes_and_channels_only() -> None:
    before, after = drawn(changed=False), drawn(changed=True, seed=4)
    assert [*before.columns] == [*FEATURES]
    moved = set()
    for name, kind in FEATURES.items():
        first, second = before.columns[name], after.columns[name]
        if kind == "numeric":
            p_value = ks_2samp(first, second).pvalue
        else:
            p_value = chi2_contingency([[(c == v).sum() for v in np.unique(first)] for c in (first, second)]).pvalue
        if p_value < 1e-4:
            moved.add(name)
    assert moved == {"income", "channel"}


def test_a_model_of_before_loses_and_one_of_after_wins_most_of_it_back() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble", reason="needs the extra modelops")
    names = [name for name, kind in FEATURES.items() if kind == "numeric"]

    def matrix(made: Applications) -> np.ndarray:
        return np.column_stack([made.columns[name] for name in names])

    def auc(model: Any, made: Applications) -> float:
        found = report.roc_auc(model.predict_proba(matrix(made))[:, 1], made.defaulted.tolist())
        assert found is not None
        return found

    def fitted(made: Applications) -> Any:
        parameters = settings.RECIPE["model"]["parameters"]
        return ensemble.HistGradientBoostingClassifier(**parameters).fit(matrix(made), made.defaulted)

    calm, after = drawn(changed=False, seed=5), drawn(changed=True, seed=6)
    old = fitted(drawn(changed=False))
    new = fitted(applications(2000, np.random.default_rng(7), changed=True))
    before, during, won = auc(old, calm), auc(old, after), auc(new, after)
    assert before > 0.84
    assert during < before - 0.12
    assert (won - during) / (before - during) > 0.9


def test_the_same_seed_draws_the_same_rows() -> None:
    assert drawn(changed=True).rows() == drawn(changed=True).rows()
    assert drawn(changed=True).rows() != drawn(changed=True, seed=8).rows()


@pytest.mark.parametrize("seed", ["-4", "x", "1.5"])
def test_a_seed_that_is_none_is_refused_in_words(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--seed={seed}"])
    assert ended.value.code == 2
    assert f"must be a whole number from 0 on; got '{seed}'" in capsys.readouterr().err


# The story ------------------------------------------------------------------------------------------------------------


def decision(transition: str, alarm: str = "a", version: str = "1", **more: Any) -> dict[str, Any]:
    said = {"id": alarm, "transition": transition, "class": "drift", "kind": "covariate", "evidence": ["moved"]} | more
    window = {"version": version}
    return {"window": window, "verdict": "drift", "revision": 0, "performance": [], "alarms": [said]}


def job(state: str, **more: Any) -> dict[str, Any]:
    made = {"id": "j", "alarm_id": "a", "kind": "concept", "state": state, "reason": "", "done": [], "created_s": 11.0}
    return made | {"finished_s": None, "new_version": None, "version": "1"} | more


def rollout(phase: str, *log: str) -> dict[str, Any]:
    return {"id": "r", "phase": phase, "log": list(log)}


def test_a_loop_that_closed_has_all_its_moments() -> None:
    story = Story(moments={"changed": 8.0})
    lines = [*story.decided(decision("opened"), 10.0)]
    assert lines == ["driftwatch  ALARM a opened: drift, covariate: moved"]
    told: list[tuple[list[dict[str, Any]], list[dict[str, Any]], float]] = [
        ([job("queued")], [], 11.5),
        ([job("running")], [], 12.0),
        ([job("waiting_for_labels")], [], 13.0),
        ([job("running")], [], 18.0),
        ([job("running", done=["train"])], [], 20.0),
        ([job("rolling_out")], [rollout("preparing", "t begins")], 24.0),
        ([job("rolling_out")], [rollout("observing", "t begins")], 26.0),
        ([job("rolling_out")], [rollout("watching", "t begins", "t on")], 32.0),
        ([job("promoted", finished_s=37.0)], [rollout("promoted", "t begins", "t on")], 37.5),
    ]
    for jobs, rollouts, now_s in told:
        lines += story.worked(jobs, rollouts, now_s)
    assert sum("running" in line for line in lines) == 3  # each state and step is told once
    assert sum("rollout" in line for line in lines) == 2
    lines += story.decided(decision("updated", kind="concept"), 38.0)
    assert story.alarms["a"].kind == "concept"
    assert not story.resolved
    lines += story.decided(decision("resolved", reason="superseded"), 40.0)
    assert story.resolved
    assert story.seconds() == {
        "drift_to_alarm": 2, "alarm_to_job": 1, "labels": 7, "training": 6, "preparing": 2, "observing": 6,
        "watching": 5, "resolving": 3,
    }  # fmt: skip
    assert story.between("alarm", "promoted") == 27


def test_an_alarm_of_the_new_version_is_another_story() -> None:
    story = Story()
    list(story.decided(decision("opened"), 10.0))
    list(story.worked([job("promoted", finished_s=37.0)], [], 37.0))
    list(story.decided(decision("resolved", reason="superseded"), 40.0))
    list(story.decided(decision("opened", alarm="b", version="2"), 41.0))
    list(story.worked([job("running", id="k", alarm_id="b", version="2"), job("promoted", finished_s=37.0)], [], 42.0))
    assert story.resolved
    assert story.job is not None
    assert story.job["id"] == "j"
    assert [*story.jobs] == ["j", "k"]
    assert (story.moments["promoted"], story.moments["resolved"]) == (37.0, 40.0)


def test_what_a_restarted_sidecar_says_again_changes_nothing() -> None:
    story = Story()
    for _ in range(2):
        opened = [*story.decided(decision("opened"), 10.0)]
        resolved = [*story.decided(decision("resolved", reason="superseded"), 20.0)]
    assert opened == resolved == []
    assert (story.alarms["a"].opened_s, story.alarms["a"].resolved_s) == (10.0, 20.0)


def test_the_result_names_what_the_services_said(tmp_path: Path) -> None:
    story = Story()
    list(story.decided(decision("opened"), 10.0))
    list(story.worked([job("rejected", reason="worse", finished_s=12.0)], [], 12.0))
    version = {"version": 1, "job": "k", "alarm": None, "parent": None, "metrics": {"roc_auc": 0.8}}
    answered = [Answered(float(i), "1", i / 10, i % 2, i >= 6, {}) for i in range(10)]
    figures = report.performance(answered, "1", [], [])
    made = report.result(story, figures, {"sent": 2, "failed": 0}, {"aliases": {"champion": 1}, "versions": [version]})
    assert [*made] == ["metric", "performance", "seconds", "requests", "alarms", "jobs", "versions"]
    assert made["performance"] == {"before": 0.6667, "during": 0.75, "after": None, "no_retraining": None}
    assert made["seconds"].keys() >= STEPS.keys()
    assert made["seconds"]["alarm_to_promoted"] is None
    assert made["jobs"][0]["reason"] == "worse"
    assert made["versions"][0]["aliases"] == ["champion"]
    assert json.loads(json.dumps(made)) == made
    assert any("0 failed" in line for line in report.table(made, story, {"modelops": 1}))


# Processes and traffic ------------------------------------------------------------------------------------------------


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    made = Children(tmp_path, lambda line: None)
    yield made
    made.stop()


def test_what_is_killed_is_started_again_and_nothing_is_left(children: Children, tmp_path: Path) -> None:
    child = children.start("server", "http.server", "0", "--bind", "127.0.0.1", "-d", f"{tmp_path}/")
    wait_for(lambda: processes_of(tmp_path))
    (first,) = processes_of(tmp_path)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: processes_of(tmp_path) not in ([first], []))
    assert child.restarts == 1
    children.stop()
    assert processes_of(tmp_path) == []


def test_a_child_that_its_configuration_ends_is_given_up(children: Children) -> None:
    child = children.start("driftwatch", "driftwatch", "run", "-c", "none.yaml")
    wait_for(lambda: child.gave_up)
    assert child.restarts == 0
    assert "none.yaml" in child.last_words()


class Router(http.server.BaseHTTPRequestHandler):
    """Answers each third request with 503."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(asked)
        status = 503 if int(asked["id"][1:]) % 3 == 0 else 200
        body = json.dumps({"predictions": [0.5] * ROWS, "model_version": "1"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_every_request_is_answered_or_counted_as_failed_and_every_row_has_its_label(tmp_path: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Router)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    log = tmp_path / "log.jsonl"
    traffic = Traffic(f"http://127.0.0.1:{server.server_address[1]}", log, seed=1)
    wait_for(lambda: traffic.sent > 60)
    traffic.change()
    wait_for(lambda: any(a.changed for a in traffic.answered) and log.exists() and log.stat().st_size > 5000)
    traffic.stop()
    server.shutdown()
    server.server_close()
    assert traffic.sent == len(Router.asked)
    assert traffic.failed == sum(int(asked["id"][1:]) % 3 == 0 for asked in Router.asked)
    assert len(traffic.answered) == ROWS * (traffic.sent - traffic.failed)
    labels = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({label["id"] for label in labels}) == len(labels)
    assert [label["time"] for label in labels] == sorted(label["time"] for label in labels)
    answered = {f"{asked['id']}/{i}" for asked in Router.asked for i in range(ROWS) if int(asked["id"][1:]) % 3}
    assert {label["id"] for label in labels} <= answered
