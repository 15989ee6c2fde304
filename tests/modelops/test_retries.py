"""An alarm that is open still when its job has ended in vain is tried again, ever more rarely, until it is over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelops.job import Crashed, Job, LabelsMissing, Registered, RolloutEnded, Taken
from modelops.job_queue import KEPT_S
from modelops.policy import DAY_S, Limits
from tests.modelops.test_receiver import NOW_S, Desk, at, end

HOUR_S = 3600.0
LIMITS = Limits(HOUR_S, 4)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, cooldown_s=LIMITS.cooldown_s, max_per_day=LIMITS.max_per_day)
    yield made
    made.database.close()


def looked(desk: Desk, limits: Limits = LIMITS) -> list[Job]:
    """The active jobs, after the service has looked."""
    desk.queue.revive("credit", limits, now_s=desk.now_s)
    return [job for job in desk.queue.jobs() if job.is_active]


def retried(desk: Desk, after_s: float, limits: Limits = LIMITS) -> Job:
    """The job that begins after a wait, and not a second before."""
    desk.now_s += after_s - 1
    assert looked(desk, limits) == []
    desk.now_s += 1
    (job,) = looked(desk, limits)
    return job


def test_a_rejected_jobs_alarm_is_tried_again_and_each_attempt_stays_with_its_reason(desk: Desk) -> None:
    first = desk.send(start=at(0)).job or ""
    end(desk, first)
    desk.now_s += 10
    assert looked(desk) == []
    assert desk.queue.get(first).retry_s == NOW_S + HOUR_S
    second = retried(desk, HOUR_S - 10)
    assert (second.id, second.retry, second.retry_of) == (f"{first}-2", 1, first)
    assert (second.started_s, second.kind, second.action) == (desk.queue.get(first).started_s, "concept", "retrain")
    assert second.reason == f"the alarm is open still; job {first} is rejected."
    assert desk.queue.take("x", lease_s=1, now_s=desk.now_s) == second
    end(desk, second.id)
    third = retried(desk, 2 * HOUR_S)
    assert (third.id, third.previous_id) == (f"{first}-3", second.id)
    assert [job.reason for job in desk.queue.jobs()][1:] == ["not better", "not better"]
    assert desk.queue.get(first).retry_s is None


@pytest.mark.parametrize("how", ["failed", "labels", "rolled back"])
def test_whatever_it_ended_in_vain_by(desk: Desk, how: str) -> None:
    job = desk.send(start=at(0)).job or ""
    desk.queue.tell(job, Taken(), now_s=desk.now_s)
    if how == "failed":
        desk.queue.tell(job, Crashed("out of memory.", attempts=1), now_s=desk.now_s)
    elif how == "labels":
        desk.queue.tell(job, LabelsMissing("few", 0.0), now_s=desk.now_s)
    else:
        desk.queue.tell(job, Registered(2, ""), now_s=desk.now_s)
        desk.queue.tell(job, RolloutEnded(False, "slow"), now_s=desk.now_s)
    assert retried(desk, HOUR_S).retry == 1


def test_the_wait_doubles_up_to_a_day_and_a_day_has_so_many_jobs(desk: Desk) -> None:
    job = desk.send(start=at(0)).job or ""
    end(desk, job)
    for hours in (1, 2, 4, 17, 16, 24, 24, 24):  # 8 would be the fifth job of 24 hours
        made = retried(desk, hours * HOUR_S)
        end(desk, made.id)
    assert made.retry == 8


@pytest.mark.parametrize("how", ["resolved", "promoted", "aborted", "another champion", "data quality"])
def test_it_ends(desk: Desk, how: str) -> None:
    job = desk.send(start=at(0)).job or ""
    desk.queue.tell(job, Taken(), now_s=desk.now_s)
    desk.queue.tell(job, Registered(2, ""), now_s=desk.now_s)
    desk.queue.tell(job, RolloutEnded(how == "promoted", "", by_person=how == "aborted"), now_s=desk.now_s)
    looked(desk)
    assert (desk.queue.get(job).retry_s is None) == (how in ("promoted", "aborted"))
    if how == "resolved":
        desk.send(start=at(0), transition="resolved")
    elif how == "another champion":
        desk.database.execute("UPDATE aliases SET version = 2")
    elif how == "data quality":
        desk.send(start=at(0), alarm="a1:9", transition="updated", kind="data_quality")
    desk.now_s += 9 * DAY_S
    assert looked(desk) == []
    assert desk.queue.get(job).retry_s is None
    if how == "data quality":  # the pipeline was not it
        desk.send(start=at(0), alarm="a1:10", transition="updated", kind="covariate")
        (made,) = looked(desk)
        assert made.kind == "covariate"


def test_of_several_open_alarms_the_newest_is_tried_and_a_new_one_waits_for_no_retry(desk: Desk) -> None:
    first = desk.send(start=at(0)).job or ""
    end(desk, first)
    looked(desk)
    desk.now_s += 60
    second = desk.send(start=at(5), alarm="b").job or ""
    assert desk.queue.get(second).due_s == NOW_S + HOUR_S
    assert [job.id for job in looked(desk)] == [second]
    assert desk.queue.get(first).retry_s is None
    desk.now_s += HOUR_S
    end(desk, second)
    made = retried(desk, HOUR_S)
    assert made.retry_of == second
    desk.send(start=at(5), alarm="b", transition="resolved")
    assert desk.queue.get(made.id).state == "recorded"
    (made,) = looked(desk)
    assert made.retry_of == first


def test_a_retry_that_waits_is_taken_back_and_begins_again_with_its_alarms_kind(desk: Desk) -> None:
    first = desk.send(start=at(0)).job or ""
    end(desk, first)
    made = retried(desk, HOUR_S)
    desk.send(start=at(0), alarm="a1:7", transition="updated", kind="data_quality")
    assert "pipeline" in desk.queue.get(made.id).reason
    assert looked(desk) == []
    desk.send(start=at(0), alarm="a1:8", transition="updated", kind="prior")
    (made,) = looked(desk)
    assert (made.id, made.retry_of, made.action) == (f"{first}-2", first, "recalibrate")


def test_a_job_of_two_alarms_goes_on_until_both_are_over(desk: Desk) -> None:
    job = desk.send(start=at(0)).job or ""
    assert desk.send(start=at(0), alarm="b", alarm_class="performance").job == job
    said = desk.send(start=at(0), transition="resolved").said
    assert said == "alarm resolved; another one of its window is open"
    assert desk.queue.get(job).state == "queued"
    end(desk, job)
    assert retried(desk, HOUR_S).alarm_id == "a1"
    desk.send(start=at(0), alarm="b", alarm_class="performance", transition="resolved")
    assert looked(desk) == []


def test_recorded_alarms_hide_neither_the_cool_down_nor_the_days_jobs(desk: Desk) -> None:
    job = desk.send(start=at(0)).job or ""
    end(desk, job)
    for i in range(1, 250):
        desk.now_s += 1
        desk.send(start=at(i), alarm=f"x{i}")
        desk.send(start=at(i), alarm=f"x{i}", transition="resolved")
    late = desk.queue.get(desk.send(start=at(400), alarm="late").job or "")
    assert late.due_s == NOW_S + HOUR_S


def test_what_is_kept_of_webhooks_is_bounded_and_an_open_alarm_stays(desk: Desk) -> None:
    job = desk.send(start=at(0)).job
    for i in range(1, 50):
        desk.send(start=at(i), alarm=f"x{i}")
        desk.send(start=at(i), alarm=f"x{i}", transition="resolved")
    desk.send(start=at(0), alarm="old", version="7")
    assert rows(desk) == (100, 51)
    desk.now_s += KEPT_S - 1
    assert not desk.send(start=at(0)).is_new
    desk.send(start=at(60), alarm="new")
    assert rows(desk) == (101, 52)
    desk.now_s += 2
    desk.send(start=at(60), alarm="new", transition="resolved")
    assert rows(desk) == (2, 2)  # the open alarm of the champion, and the new one
    again = desk.send(start=at(0))  # what a person sends again so late: the same job
    assert (again.is_new, again.job) == (True, job)


def rows(desk: Desk) -> tuple[int, int]:
    """How many webhooks and alarms are kept."""
    counted = (desk.database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("hooks", "alarms"))
    hooks, alarms = counted
    return hooks, alarms
