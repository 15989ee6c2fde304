"""What becomes of an alarm after it opened: it changes, it resolves, the job that covered it ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelops.job import Crashed, Job, LabelsMissing, Registered, RolloutEnded, Taken
from modelops.policy import Limits
from tests.modelops.test_receiver import NOW_S, Desk, at, end

LIMITS = Limits(1000.0, 100)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, cooldown_s=LIMITS.cooldown_s)
    yield made
    made.database.close()


def opened(desk: Desk, alarm: str = "a", minute: int = 0, kind: str = "covariate") -> str:
    desk.now_s += 1
    return desk.send(alarm=alarm, start=at(minute), kind=kind).job or ""


def updated(desk: Desk, kind: str, alarm: str = "a", minute: int = 0) -> Job:
    """The alarm's job after its kind changed. driftwatch numbers updates in the webhook's id."""
    desk.now_s += 1
    said = desk.send(alarm=f"{alarm}:{int(desk.now_s)}", start=at(minute), kind=kind, transition="updated")
    return desk.queue.get(said.job or "")


def revived(desk: Desk, limits: Limits = LIMITS) -> list[Job]:
    desk.queue.revive("credit", limits, now_s=desk.now_s)
    return [job for job in desk.queue.jobs() if job.state == "queued"]


def test_a_job_that_waits_takes_the_new_kind(desk: Desk) -> None:
    job = opened(desk)
    after = updated(desk, "prior")
    assert (after.id, after.state, after.kind, after.action) == (job, "queued", "prior", "recalibrate")
    desk.queue.tell(job, Taken(), now_s=desk.now_s)
    desk.queue.tell(job, LabelsMissing("few", 100), now_s=desk.now_s)
    after = updated(desk, "concept")
    assert (after.state, after.kind, after.action) == ("waiting_for_labels", "concept", "retrain")
    assert after.deadline_s is not None


def test_data_quality_after_covariate_takes_a_waiting_job_back_and_leaves_one_that_runs(desk: Desk) -> None:
    opened(desk)
    after = updated(desk, "data_quality")
    assert (after.state, after.kind) == ("recorded", "data_quality")
    assert "changed from covariate to data_quality" in after.reason
    assert "pipeline" in after.reason
    end_at = desk.now_s + LIMITS.cooldown_s
    after = updated(desk, "concept")  # the pipeline was not it
    assert (after.state, after.kind, after.action) == ("queued", "concept", "retrain")
    assert after.due_s < end_at
    desk.queue.tell(after.id, Taken(), now_s=desk.now_s)
    assert updated(desk, "data_quality").state == "running"


def test_an_update_after_the_end_or_without_a_job_changes_nothing(desk: Desk) -> None:
    job = opened(desk)
    desk.send(alarm="a", start=at(0), transition="resolved")
    said = desk.send(alarm="a:9", start=at(0), kind="concept", transition="updated")
    assert (said.job, said.said) == (None, "updated: the alarm had resolved before")
    assert desk.queue.get(job).state == "recorded"
    assert desk.send(alarm="b:9", start=at(0), transition="updated").said == "updated: nothing to do"
    desk.send(alarm="c", start=at(3), transition="resolved")
    assert desk.send(alarm="c", start=at(3)).said == "opened: the alarm had resolved before"
    assert len(desk.queue.jobs()) == 1


def test_an_alarm_whose_cover_failed_gets_its_job_after_the_cool_down(desk: Desk) -> None:
    first, second, third = (opened(desk, alarm=name, minute=i) for i, name in enumerate("abc"))
    assert [desk.queue.get(job).covered_by for job in (second, third)] == [first, first]
    assert revived(desk)[0].id == first
    desk.queue.tell(first, Taken(), now_s=desk.now_s)
    desk.queue.tell(first, Crashed("out of memory.", attempts=1), now_s=desk.now_s)
    desk.now_s += 10
    (job,) = revived(desk)
    assert (job.id, job.due_s, job.covered_by) == (third, desk.queue.get(first).created_s + LIMITS.cooldown_s, None)
    assert f"job {first}, which covered it, is failed" in job.reason
    assert desk.queue.get(second).covered_by == third
    assert desk.queue.take("x", lease_s=1, now_s=job.due_s - 1) is None
    end(desk, third)
    (job,) = revived(desk)
    assert job.id == second
    end(desk, second)
    assert revived(desk) == []


def test_an_alarm_that_resolved_or_whose_cover_was_promoted_stays_recorded(desk: Desk) -> None:
    first, second = opened(desk), opened(desk, alarm="b", minute=3)
    desk.send(alarm="b", start=at(3), transition="resolved")
    assert desk.queue.get(second).covered_by is None
    end(desk, first)
    assert revived(desk) == []
    third, fourth = opened(desk, alarm="c", minute=4), opened(desk, alarm="d", minute=5)
    assert updated(desk, "data_quality", alarm="d", minute=5).covered_by is None
    fifth = opened(desk, alarm="e", minute=6)
    for what in (Taken(), Registered(2, ""), RolloutEnded(True, "")):
        desk.queue.tell(third, what, now_s=desk.now_s)
    assert revived(desk) == []
    assert {desk.queue.get(job).state for job in (fourth, fifth)} == {"recorded"}


def test_a_cover_whose_own_alarm_resolved_leaves_the_other_alarm_its_job(desk: Desk) -> None:
    opened(desk)
    second = opened(desk, alarm="b", minute=3)
    desk.send(alarm="a", start=at(0), transition="resolved")
    (job,) = revived(desk)
    assert (job.id, job.started_s) == (second, desk.queue.get(second).started_s)
    assert job.created_s > NOW_S
