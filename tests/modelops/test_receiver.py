"""What the receiver takes and refuses, and what a webhook becomes."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelops import job_queue, signature
from modelops.errors import Refused, StateError
from modelops.job import Job, Registered, Taken
from modelops.job_queue import JobQueue
from modelops.policy import DAY_S, Limits
from modelops.receiver import Rate, Receiver
from modelops.registry import Registry, Version
from modelops.state import connect
from tests.modelops.world import SECRET, alarm_body, signed

NOW_S = 1_800_000_000.0
START = "2027-01-15T07:50:00Z"
VERSION = Version(
    model="credit", job="j", alarm=None, created_s=0, recipe="", kind="", snapshot="", snapshot_path="", n_rows=0,
    n_train=0, artifact="", sha256="", profile="", profile_hash="", metrics={},
)  # fmt: skip


class Desk:
    """A receiver on a state of its own, with a clock that a test moves."""

    def __init__(
        self, folder: Path, *, cooldown_s: float = 0.0, max_per_day: int = 100, per_minute: int = 10_000
    ) -> None:
        path = folder / "modelops.db"
        self.database = connect(path)
        self.queue = JobQueue(self.database, path)
        self.now_s = NOW_S
        registry = Registry(self.database, path)
        registry.register(VERSION)
        registry.swap("credit", expected=None, champion=1)
        self.receiver = Receiver(
            self.queue,
            [signature.decode_key(SECRET), b"the old key"],
            {"credit": Limits(cooldown_s, max_per_day)},
            Rate(per_minute),
            max_body=20_000,
            now=lambda: self.now_s,
        )

    def send(self, **alarm: Any) -> job_queue.Receipt:
        """A signed webhook."""
        webhook_id, body = alarm_body(**{"start": START} | alarm)
        return self.receiver.receive(signed(webhook_id, body, now_s=self.now_s), body)

    def only_job(self) -> Job:
        """The one job."""
        (job,) = self.queue.jobs()
        return job


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.database.close()


def at(minute: int) -> str:
    """The start of another window."""
    return datetime.fromtimestamp(NOW_S - 3600 + 60 * minute, UTC).isoformat().replace("+00:00", "Z")


def test_our_signature_is_the_librarys() -> None:
    library = pytest.importorskip("standardwebhooks")
    webhook_id, body = alarm_body(start=START)
    sent = datetime.now(UTC)
    theirs = library.Webhook(SECRET).sign(webhook_id, sent, body.decode())
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(int(sent.timestamp())), "webhook-signature": theirs}
    keys = [b"another", signature.decode_key(SECRET)]
    assert signature.verify(keys, headers, body, now_s=sent.timestamp()) == webhook_id
    library.Webhook(SECRET).verify(body, signed(webhook_id, body, now_s=sent.timestamp()))


def test_a_webhook_of_an_old_key_is_taken_while_both_are_named(desk: Desk) -> None:
    webhook_id, body = alarm_body(start=START)
    old = "whsec_" + base64.b64encode(b"the old key").decode()
    assert desk.receiver.receive(signed(webhook_id, body, now_s=NOW_S, secret=old), body).is_new
    new = signed(webhook_id, body, now_s=NOW_S)["webhook-signature"]
    both = signed(webhook_id, body, now_s=NOW_S, secret="whsec_" + base64.b64encode(b"unknown").decode())
    both["webhook-signature"] += f" {new}"
    assert not desk.receiver.receive(both, body).is_new


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"webhook-signature": "v1,AAAA"}, 401),
        ({"webhook-signature": ""}, 401),
        ({"webhook-signature": "é"}, 401),
        ({"webhook-id": "other:opened"}, 401),
        ({"webhook-timestamp": str(int(NOW_S) - 301)}, 401),
        ({"webhook-timestamp": str(int(NOW_S) + 301)}, 401),
        ({"webhook-timestamp": "soon"}, 401),
        ({"webhook-timestamp": "1" * 400}, 401),
    ],
)
def test_what_is_forged_is_refused(desk: Desk, change: dict[str, str], status: int) -> None:
    webhook_id, body = alarm_body(start=START)
    headers = signed(webhook_id, body, now_s=NOW_S) | change
    with pytest.raises(Refused) as refused:
        desk.receiver.receive(headers, body)
    assert refused.value.status == status
    assert SECRET not in str(refused.value)
    assert desk.queue.jobs() == []


def test_a_replay_after_five_minutes_is_refused_and_before_it_changes_nothing(desk: Desk) -> None:
    webhook_id, body = alarm_body(start=START)
    headers = signed(webhook_id, body, now_s=NOW_S)
    assert desk.receiver.receive(headers, body).is_new
    desk.now_s = NOW_S + 299
    assert not desk.receiver.receive(headers, body).is_new
    desk.now_s = NOW_S + 301
    with pytest.raises(Refused, match="5 minutes"):
        desk.receiver.receive(headers, body)
    assert len(desk.queue.jobs()) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "must be a CloudEvent"),
        (b"[" * 20_000, "must be a CloudEvent"),
        (b"\xff", "must be a CloudEvent"),
        (b"{}", "`specversion`"),
        (json.dumps({"specversion": "1.0", "id": "x", "type": "other", "data": {}}).encode(), "model"),
    ],
)
def test_a_signed_body_that_is_no_alarm_is_refused_with_the_reason(desk: Desk, body: bytes, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        desk.receiver.receive(signed("x", body, now_s=NOW_S), body)
    assert refused.value.status == 400


def test_an_unknown_model_a_large_body_and_a_wrong_time_are_refused(desk: Desk) -> None:
    with pytest.raises(Refused, match="must be one of credit; got 'other'") as refused:
        desk.send(model="other")
    assert refused.value.status == 404
    with pytest.raises(Refused, match="at most 20000 bytes") as refused:
        desk.receiver.receive({}, b"x" * 20_001)
    assert refused.value.status == 413
    with pytest.raises(Refused, match="RFC 3339"):
        desk.send(start="yesterday")
    webhook_id, body = alarm_body(start=START)
    with pytest.raises(Refused, match="webhook-id"):
        desk.receiver.receive(signed(f"{webhook_id}x", body, now_s=NOW_S), body)


def test_an_address_has_so_many_requests_a_minute(tmp_path: Path) -> None:
    desk = Desk(tmp_path, per_minute=60)
    for _ in range(60):
        desk.receiver.admit("10.0.0.1", 10)
    with pytest.raises(Refused) as refused:
        desk.receiver.admit("10.0.0.1", 10)
    assert (refused.value.status, refused.value.retry_after_s) == (429, 2)
    desk.receiver.admit("10.0.0.2", 10)
    desk.now_s += 1.0
    desk.receiver.admit("10.0.0.1", 10)
    with pytest.raises(Refused):
        desk.receiver.admit("10.0.0.1", 10)
    for i in range(3000):
        desk.receiver.admit(f"10.1.{i // 256}.{i % 256}", 10)
    desk.database.close()


def test_a_hundred_deliveries_are_one_job(desk: Desk) -> None:
    receipts = [desk.send() for _ in range(100)]
    assert [receipt.is_new for receipt in receipts] == [True] + [False] * 99
    assert {receipt.job for receipt in receipts} == {desk.only_job().id}


def test_a_second_sidecars_alarm_of_the_same_window_is_the_same_job(desk: Desk) -> None:
    first, second = desk.send(alarm="aaaa"), desk.send(alarm="bbbb", alarm_class="performance")
    assert second.is_new
    assert first.job == second.job == desk.only_job().id


@pytest.mark.parametrize(
    ("alarm", "state", "action", "says"),
    [
        ({"kind": "concept"}, "queued", "retrain", ""),
        ({"kind": "covariate"}, "queued", "retrain", ""),
        ({"kind": "prior"}, "queued", "recalibrate", ""),
        ({"kind": "data_quality"}, "recorded", "retrain", "pipeline"),
        ({"kind": "covariate", "alarm_class": "data_quality"}, "recorded", "retrain", "pipeline"),
        ({"kind": "covariate", "suggestion": "fix_the_pipeline"}, "recorded", "retrain", "pipeline"),
        ({"kind": "covariate", "suggestion": "watch"}, "queued", "retrain", ""),
        ({"kind": "novel"}, "recorded", "retrain", "unknown"),
        ({"version": "7"}, "recorded", "retrain", "version 7 is not the champion"),
    ],
)
def test_the_kind_of_drift_decides(desk: Desk, alarm: dict[str, Any], state: str, action: str, says: str) -> None:
    desk.send(**alarm)
    job = desk.only_job()
    assert (job.state, job.action) == (state, action)
    assert says in job.reason


def test_an_alarm_during_a_job_of_its_model_is_recorded_with_that_job(desk: Desk) -> None:
    first = desk.send(start=at(0)).job
    second = desk.send(start=at(5), alarm="bbbb")
    assert second.job != first
    assert first is not None
    assert first in desk.queue.get(second.job or "").reason


def test_labels_correct_the_kind_of_the_job_that_is_at_work(desk: Desk) -> None:
    job = desk.send(start=at(0), kind="prior").job or ""
    desk.send(start=at(1), alarm="bbbb", kind="covariate")  # without labels: no better than what was said before
    assert (desk.queue.get(job).kind, desk.queue.get(job).action) == ("prior", "recalibrate")
    desk.send(start=at(1), alarm="cccc", kind="concept", alarm_class="performance")
    assert (desk.queue.get(job).kind, desk.queue.get(job).action) == ("concept", "retrain")
    desk.send(start=at(0), kind="data_quality", transition="updated")
    assert desk.queue.get(job).state == "recorded"
    assert "pipeline" in desk.queue.get(job).reason


def test_after_a_job_the_next_waits_for_the_cool_down(tmp_path: Path) -> None:
    desk = Desk(tmp_path, cooldown_s=1000)
    first = desk.send(start=at(0)).job or ""
    end(desk, first)
    desk.now_s += 400
    job = desk.queue.get(desk.send(start=at(5), alarm="bbbb").job or "")
    assert (job.state, job.due_s) == ("queued", NOW_S + 1000)
    assert desk.queue.take("x", lease_s=1, now_s=NOW_S + 999) is None
    taken = desk.queue.take("x", lease_s=1, now_s=NOW_S + 1000)
    assert taken is not None
    assert taken.id == job.id
    desk.database.close()


def test_no_more_than_so_many_jobs_a_day(tmp_path: Path) -> None:
    desk = Desk(tmp_path, max_per_day=2)
    for i in range(2):
        end(desk, desk.send(start=at(i), alarm=f"a{i}").job or "")
        desk.now_s += 100
    job = desk.queue.get(desk.send(start=at(9), alarm="a9").job or "")
    assert job.due_s == NOW_S + DAY_S
    desk.database.close()


def test_a_flapping_alarm_leaves_nothing_queued(tmp_path: Path) -> None:
    desk = Desk(tmp_path, cooldown_s=1e6)
    end(desk, desk.send(start=at(0), alarm="first").job or "")
    for i in range(1, 20):
        desk.now_s += 1
        desk.send(start=at(i), alarm=f"a{i}")
        desk.send(start=at(i), alarm=f"a{i}", transition="resolved")
    assert {state: n for state, n in desk.queue.counts().items() if n} == {"rejected": 1, "recorded": 19}
    desk.database.close()


def test_a_resolved_alarm_leaves_a_running_job_alone(desk: Desk) -> None:
    job = desk.send().job or ""
    desk.queue.tell(job, Taken(), now_s=NOW_S)
    assert desk.send(transition="resolved", reason="superseded").said == "alarm resolved (superseded)"
    assert desk.only_job().state == "running"
    desk.queue.tell(job, Registered(2, ""), now_s=NOW_S)
    assert desk.send(transition="resolved", alarm="none").said == "resolved: nothing to do"


def test_without_a_champion_there_is_nothing_to_retrain(desk: Desk) -> None:
    desk.database.execute("DELETE FROM aliases")
    desk.send()
    assert "modelops train" in desk.only_job().reason


def test_a_webhook_that_cannot_be_kept_is_not_acknowledged(desk: Desk) -> None:
    desk.database.execute("DROP TABLE jobs")
    with pytest.raises(StateError):
        desk.send()
    assert desk.database.execute("SELECT count(*) FROM hooks").fetchone() == (0,)


def end(desk: Desk, job: str) -> None:
    """Ends a job by the gate."""
    from modelops.job import Rejected

    desk.queue.tell(job, Taken(), now_s=desk.now_s)
    desk.queue.tell(job, Rejected("not better"), now_s=desk.now_s)


def test_a_jobs_lease_is_one_owners_until_it_is_over(desk: Desk) -> None:
    desk.send()
    taken = desk.queue.take("a", lease_s=30, now_s=NOW_S)
    assert taken == desk.only_job()
    assert desk.queue.take("b", lease_s=30, now_s=NOW_S + 29) is None
    assert desk.queue.renew(taken.id, "a", lease_s=30, now_s=NOW_S + 29)
    assert desk.queue.take("b", lease_s=30, now_s=NOW_S + 58) is None
    assert desk.queue.take("b", lease_s=30, now_s=NOW_S + 60) == taken
    assert not desk.queue.renew(taken.id, "a", lease_s=30, now_s=NOW_S + 60)
    desk.queue.release(taken.id, "b")
    assert desk.queue.take("a", lease_s=30, now_s=NOW_S + 60) == msgspec.structs.replace(taken)


def test_a_service_that_begins_need_not_wait_for_the_lease_of_a_dead_one(desk: Desk) -> None:
    desk.send()
    taken = desk.queue.take("dead", lease_s=30, now_s=NOW_S)
    desk.queue.forget_leases()
    assert desk.queue.take("new", lease_s=30, now_s=NOW_S) == taken
