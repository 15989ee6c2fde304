"""The demo's service drifts as it says, its receiver believes signatures only, and its story counts what was seen."""

import json
import os
import queue
import signal
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from driftwatch.config import load
from driftwatch.decision import (
    AlarmClass,
    AlarmFeature,
    AlarmLine,
    Decision,
    PerformanceLine,
    Transition,
    WindowLine,
    rfc3339,
)
from driftwatch.demo import config, tell
from driftwatch.demo_receiver import Delivery, Receiver
from driftwatch.demo_sidecar import Sidecar, fetch
from driftwatch.demo_story import WINDOW_S, Plan, Story, figures, words
from driftwatch.demo_stream import DRIFTED, FEATURES, SCORE, Applications, applications
from driftwatch.errors import DriftwatchError, SinkError
from driftwatch.sinks.webhook import WebhookTarget, cloud_event

Told = tuple[AlarmClass, int, Transition, tuple[str, ...]] | Delivery
SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0"
PLAN = Plan(reference_rows=2000, window_rows=200, calm=2, drifting=2, recovering=4, changed=2, after=6, duration_s=1.0)


# The stream -----------------------------------------------------------------------------------------------------------


FILE: dict[str, object] = {"kind": "file", "path": "events.jsonl", "follow": True}


@pytest.fixture(scope="module")
def stream() -> Applications:
    """2,000 rows of calm days, then as many of the recession."""
    return applications(4000, start_s=0.0, interval_s=1.0, drift=slice(2000, 4000), seed=7, first_id=5)


@pytest.fixture(scope="module")
def changed() -> Applications:
    """2,000 rows of calm days, then as many under the relief."""
    return applications(4000, start_s=0.0, interval_s=1.0, concept=slice(2000, 4000), seed=7, first_id=5)


def p_value(column: np.ndarray) -> float:
    """That both halves have the same law, what is missing left out."""
    first, second = column[:2000], column[2000:]
    if column.dtype != object:
        return float(ks_2samp(first[~np.isnan(first)], second[~np.isnan(second)]).pvalue)
    table = [[(half == name).sum() for name in {*column.tolist()}] for half in (first, second)]
    return float(chi2_contingency(table).pvalue)


def test_only_what_it_names_drifts_and_the_score_at_most(stream: Applications) -> None:
    moved = {name for name, column in stream.columns.items() if p_value(column) < 1e-4}
    assert moved - {SCORE} == {*DRIFTED}


def loss(rows: slice, made: Applications) -> float:
    return float(np.mean((made.columns[SCORE][rows] - made.defaulted[rows]) ** 2))


def test_scores_are_what_comes_true_and_the_recession_does_not_change_that(stream: Applications) -> None:
    for rows in (slice(2000), slice(2000, 4000)):
        assert abs(stream.defaulted[rows].mean() - stream.columns[SCORE][rows].mean()) < 0.02
    assert abs(loss(slice(2000, 4000), stream) - loss(slice(2000), stream)) < 0.02


def test_a_relief_moves_no_feature_and_no_score_only_who_defaults(changed: Applications) -> None:
    assert not {name for name, column in changed.columns.items() if p_value(column) < 1e-3}
    assert loss(slice(2000, 4000), changed) > 1.8 * loss(slice(2000), changed)


def test_each_label_comes_later_under_its_prediction_s_id(changed: Applications) -> None:
    events = changed.events()
    assert [time for time, _ in events] == sorted(time for time, _ in events)
    assert all(json.loads(line)["time"] == time for time, line in events)
    read = [json.loads(line) for _, line in events]
    made = {event["id"]: event["time"] for event in read if "prediction" in event}
    labels = {event["id"]: event for event in read if "label" in event}
    assert len(read) == 2 * len(made)
    assert labels.keys() == made.keys()
    assert all(600 <= event["time"] - made[id] <= 1200.001 for id, event in labels.items())
    assert all(event.keys() == {"id", "time", "label"} for event in labels.values())
    assert [labels[f"application-{i + 5}"]["label"] for i in range(4000)] == changed.defaulted.tolist()
    beside = [json.loads(line)["label"] for line in changed.lines(with_label=True)]
    assert beside == changed.defaulted.tolist()


def test_the_same_seed_writes_the_same_bytes_and_another_one_others() -> None:
    def written(seed: int) -> bytes:
        made = applications(50, start_s=0.0, interval_s=1.0, seed=seed, first_id=0)
        return b"".join(made.lines())

    assert written(1) == written(1)
    assert written(1) != written(2)


def test_a_line_is_a_prediction_event_with_every_feature_in_its_kind(stream: Applications) -> None:
    events = [json.loads(line) for line in stream.lines()]
    assert [event["id"] for event in events[:2]] == ["application-5", "application-6"]
    assert len({event["id"] for event in events}) == len(events)
    assert [event["time"] for event in events] == stream.times_s.tolist()
    for event in events:
        assert list(event["features"]) == list(FEATURES)
        assert 0 < event["prediction"] < 1
        for name, value in event["features"].items():
            if FEATURES[name] == "numeric":
                assert value is None or (isinstance(value, int | float) and not isinstance(value, bool))
            else:
                assert isinstance(value, str | bool)
    assert len({event["features"]["purpose"] for event in events}) >= 12


# The receiver ---------------------------------------------------------------------------------------------------------


def target(url: str, secret: str) -> WebhookTarget:
    return WebhookTarget(url=url, secrets=[secret], allow_http=True, allow_private=[ip_network("127.0.0.0/8")])


def hook() -> bytes:
    return cloud_event(id="a:opened", type="driftwatch.drift.opened", source="/t", time="", subject="", data={})


def test_a_webhook_that_the_sidecar_signs_is_taken_as_verified() -> None:
    news: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
    with Receiver(SECRET, news.put) as receiver:
        target(receiver.url, SECRET).post("a:opened", hook(), time.time())
        assert news.get(timeout=5) == Delivery("a:opened", "drift.opened", is_verified=True)


@pytest.mark.parametrize("age_s", [0, 3600])
def test_a_webhook_signed_by_another_secret_or_long_ago_is_refused(age_s: int) -> None:
    news: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
    secret = SECRET if age_s else "whsec_YW5vdGhlcg=="
    with Receiver(SECRET, news.put) as receiver:
        with pytest.raises(SinkError, match="401"):
            target(receiver.url, secret).post("a:opened", hook(), time.time() - age_s)
        assert news.get(timeout=5).is_verified is False


# The story ------------------------------------------------------------------------------------------------------------


def feature(name: str, detector: str = "location", effect: float | None = 0.5) -> AlarmFeature:
    return AlarmFeature(name, detector, effect, 1e-9, 0.5, 20.0, 3.0)


def judged(story: Story, of_class: AlarmClass, window: int, transition: Transition, *names: str) -> Decision:
    """The decision on the n-th window of the story, with what happened to an alarm of a class there."""
    start_s = story.start_s + window * WINDOW_S
    line = WindowLine("credit", "3", None, rfc3339(start_s), rfc3339(start_s + WINDOW_S), 200)
    kind = "concept" if of_class == "performance" else "covariate"
    alarm = AlarmLine(of_class[0], transition, kind, None, "", tuple(map(feature, names)), of_class, (), "watch")
    verdict: Literal["drift", "ok"] = "drift" if transition == "opened" else "ok"
    revision = int(of_class == "performance")
    return Decision(line, verdict, (), (), (alarm,), 1, False, None, revision, 0.1, 9.0, ())


def told(*news: Told) -> Story:
    story = Story(PLAN, start_s=1_767_571_200.0)
    for item in news:
        said = story.take(item if isinstance(item, Delivery) else judged(story, *item[:3], *item[3]))
        assert all(isinstance(line, str) for line in said)
    return story


GOOD: tuple[Told, ...] = (
    ("drift", 2, "opened", ("*", *DRIFTED)),
    Delivery("d:opened", "drift.opened", is_verified=True),
    ("drift", 7, "resolved", DRIFTED),
    Delivery("d:resolved", "drift.resolved", is_verified=True),
    ("performance", 9, "opened", ("loss", "defaulted")),
    Delivery("p:opened", "performance.opened", is_verified=True),
    ("performance", 13, "resolved", ("loss",)),
    Delivery("p:resolved", "performance.resolved", is_verified=True),
)


def test_a_story_that_came_out_lacks_nothing() -> None:
    story = told(*GOOD)
    assert story.is_over
    assert story.missing(PLAN.n_applications, 0) == []
    said = " ".join(story.summary(3200, 0))
    assert "0 false alarms, 1 on the drift, 1 on the concept drift; 4 webhooks with a valid signature" in said
    assert "2 windows judged, 2 again on labels" in said


@pytest.mark.parametrize(
    ("news", "lacks"),
    [
        ((), "an alarm of kind covariate on the drift; got None"),
        (GOOD[:4], "an alarm of kind concept on the concept drift; got None"),
        (GOOD[:2], "the same alarm on the drift resolved"),
        (GOOD[:6], "the same alarm on the concept drift resolved"),
        (GOOD[:3], "the webhook drift.resolved"),
        (GOOD[::2], "the webhook performance.opened"),
        (
            (("drift", 2, "opened", ("age", *DRIFTED)), *GOOD[1:]),
            "a feature that drifted on top of the alarm; got 'age'",
        ),
        ((("drift", 2, "opened", ("income",)), GOOD[1]), "all of income, channel"),
        ((("drift", 1, "opened", ("age",)), *GOOD), "no false alarm; got 1"),
        ((*GOOD[:5], ("drift", 9, "opened", ("age",)), *GOOD[5:]), "no false alarm; got 1"),
        ((*GOOD[:2], ("performance", 3, "opened", ("loss",)), *GOOD[2:]), "no false alarm; got 1"),
        ((("data_quality", 3, "opened", ("age",)), *GOOD), "no false alarm; got 1"),
        ((GOOD[0], Delivery("d:opened", "drift.opened", is_verified=False), *GOOD[2:]), "the webhook drift.opened"),
    ],
)
def test_what_was_not_seen_is_named(news: tuple[Told, ...], lacks: str) -> None:
    missing = told(*news).missing(PLAN.n_applications, 0)
    assert any(line.startswith(lacks) for line in missing), missing


def test_events_that_the_sidecar_did_not_use_are_missed() -> None:
    missing = told(*GOOD).missing(PLAN.n_applications - 1, 2)
    assert missing == ["every prediction counted; got 3,199 of 3,200", "every label used; 2 were not"]


def test_each_change_is_announced_once_whatever_the_blocks_that_are_written() -> None:
    for size in (1, 7, 460, PLAN.n_applications):
        story = told()
        ends = [*range(0, PLAN.n_applications, size), PLAN.n_applications]
        said = [line for end in ends for line in story.wrote(story.time_s(end))]
        assert [line[:5] for line in said] == ["00:23", "00:43", "01:23", "01:43"]


def test_the_stream_ends_about_now_and_begins_at_a_window_edge() -> None:
    now_s = 1_767_571_234.5
    start_s = PLAN.start_s(now_s)
    assert start_s % WINDOW_S == 0
    assert 0 <= now_s - (start_s + PLAN.n_applications * PLAN.interval_s) < WINDOW_S


def test_an_effect_is_said_in_its_unit() -> None:
    assert words(feature("income")) == "income (location, 0.50 sd)"
    assert words(feature("channel", "unseen", 0.081)) == "channel (unseen, 8.1% of the rows)"
    assert words(feature("*", "mmd", 0.09)) == "* (mmd, 0.09)"
    assert words(feature("age", "ks", None)) == "age (ks)"


def test_a_figure_by_labels_stands_beside_what_was_estimated() -> None:
    line = PerformanceLine("roc_auc", "labels", 0.612, 0.5, 0.7, 0.78, 500, "drift", estimate=0.77)
    assert figures(line) == "roc_auc 0.61 by labels, 0.77 estimated without them, 0.78 in the reference"
    bare = PerformanceLine("roc_auc", "labels", None, None, None, None, 0, "undetermined")
    assert figures(bare) == "roc_auc unknown"


# The processes --------------------------------------------------------------------------------------------------------


def test_its_configuration_is_valid_and_says_where_everything_is(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config("http://127.0.0.1:1/alarms", FILE)))
    assert [column.name for column in load(path).event_schema().columns] == [*FEATURES, SCORE]


def test_a_sidecar_that_cannot_start_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    with Sidecar(tmp_path / "none.yaml", lambda decision: None) as sidecar, pytest.raises(DriftwatchError) as caught:
        sidecar.ready()
    assert "ended with exit code 2" in str(caught.value)
    assert "none.yaml: cannot be read" in str(caught.value)


def watched(folder: Path) -> Path:
    """The demo's configuration without a reference, and two windows of its stream."""
    made = applications(450, start_s=1_767_571_200.0, interval_s=3.0, seed=3, first_id=0)
    (folder / "events.jsonl").write_bytes(b"".join(made.lines()))
    (folder / "secret").write_text(SECRET)
    path = folder / "config.yaml"
    path.write_text(json.dumps({**config("http://127.0.0.1:1/alarms", FILE), "reference": None}))
    return path


def check_for_ever(sidecar: Sidecar) -> None:
    while True:
        sidecar.check()
        time.sleep(0.01)


def test_a_sidecar_hands_on_its_decisions_and_ends_in_order_when_it_is_left(tmp_path: Path) -> None:
    decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()
    with Sidecar(watched(tmp_path), decisions.put) as sidecar:
        assert [decisions.get(timeout=30).window.n_records for _ in range(2)] == [200, 200]
        sidecar.check()
    assert sidecar.exit_code == 0


def test_a_sidecar_that_is_killed_is_an_error_at_the_next_check(tmp_path: Path) -> None:
    decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()
    with Sidecar(watched(tmp_path), decisions.put) as sidecar:
        decisions.get(timeout=30)
        os.kill(sidecar.pid, signal.SIGKILL)
        with pytest.raises(DriftwatchError, match=r"exit code -9.*metrics on http"):
            check_for_ever(sidecar)


def test_an_address_where_nobody_answers_is_an_error() -> None:
    with Receiver(SECRET, lambda delivery: None) as receiver:
        with pytest.raises(DriftwatchError, match="got 501"):
            fetch(receiver.url)
        url = receiver.url
    with pytest.raises(DriftwatchError, match="no answer"):
        fetch(url)


def processes_that_name(text: str) -> list[str]:
    """Command lines of this machine's processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile
    return [line for line in found if text in line]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_with_its_children_and_its_folder(signum: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "driftwatch", "demo", "--fast"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if b"building its profile" in line:
                break
        while not processes_that_name(f"profile {tmp_path}"):
            assert demo.poll() is None
            time.sleep(0.02)
        demo.send_signal(signum)
        said, wrong = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert b"Interrupted" in said
    assert b"Traceback" not in wrong
    assert processes_that_name(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_whole_story_comes_out_with_a_real_sidecar(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(replace(PLAN, window_rows=500, calm=4, drifting=3, recovering=5, duration_s=5.0)) == 0
    said = capsys.readouterr().out
    assert "NOT SEEN" not in said
    story = (
        "drifts from here on",
        "kind covariate",
        "drift.resolved delivered, signature verified",
        "kind concept",
        "performance.resolved delivered, signature verified",
        "0 false alarms, 1 on the drift, 1 on the concept drift",
    )
    assert [*map(said.index, story)] == sorted(map(said.index, story))
