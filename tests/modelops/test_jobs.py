"""A job's states as a pure function."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelops.errors import StateError
from modelops.job import (
    ACTIVE,
    STEPS,
    WAIT_S,
    AlarmResolved,
    Corrected,
    Crashed,
    Done,
    Happening,
    Job,
    LabelsMissing,
    Registered,
    Rejected,
    RolloutEnded,
    Taken,
    advance,
)

JOB = Job(
    id="j", model="credit", version="1", kind="concept", action="retrain", alarm_id="a", started_s=0.0, created_s=10.0,
    due_s=10.0,
)  # fmt: skip

HAPPENINGS: st.SearchStrategy[Happening] = st.one_of(
    st.just(Taken()),
    st.sampled_from(STEPS).map(Done),
    st.just(LabelsMissing("too few", 100.0)),
    st.just(Rejected("worse")),
    st.just(Crashed("killed.", 3)),
    st.just(Registered(2, "better")),
    st.booleans().map(lambda ok: RolloutEnded(ok, "done")),
    st.just(AlarmResolved("")),
    st.sampled_from([Corrected("concept", "retrain", ""), Corrected("data_quality", None, "repair it")]),
)


def after(*happenings: Happening, job: Job = JOB, now_s: float = 20.0) -> Job:
    for happening in happenings:
        job = advance(job, happening, now_s)
    return job


def test_the_straight_way_ends_promoted() -> None:
    job = after(Taken(), *map(Done, STEPS), Registered(2, "better"), RolloutEnded(True, "champion"))
    assert (job.state, job.new_version, job.done, job.finished_s) == ("promoted", 2, STEPS, 20.0)
    assert after(Taken(), Registered(2, ""), RolloutEnded(False, "slow")).state == "rolled_back"
    assert after(Taken(), Rejected("worse")).reason == "worse"


def test_labels_are_waited_for_until_the_first_deadline() -> None:
    job = after(Taken(), LabelsMissing("5 of 9", 100.0))
    assert (job.state, job.deadline_s, job.due_s) == ("waiting_for_labels", 120.0, 20.0 + WAIT_S)
    job = after(Taken(), LabelsMissing("7 of 9", 100.0), job=job, now_s=90.0)
    assert (job.state, job.deadline_s, job.due_s) == ("waiting_for_labels", 120.0, 90.0 + 80.0 / 10)
    job = after(Taken(), LabelsMissing("8 of 9", 100.0), job=job, now_s=120.0)
    assert (job.state, job.reason) == ("failed", "labels did not come in time: 8 of 9")


def test_a_crash_is_tried_again_with_pauses_and_then_named() -> None:
    job = JOB
    for tried in (1, 2):
        job = after(Taken(), Crashed("killed.", 3), job=job)
        assert (job.state, job.attempts, job.due_s) == ("queued", tried, 20.0 + 2.0**tried)
    job = after(Taken(), Crashed("killed.", 3), job=job)
    assert (job.state, job.reason) == ("failed", "killed. It was tried 3 times.")


def test_labels_correct_the_kind_of_a_job_and_what_it_does_before_it_has_trained() -> None:
    queued = msgspec.structs.replace(JOB, kind="prior", action="recalibrate")
    concept = Corrected("concept", "retrain", "")
    assert (after(concept, job=queued).kind, after(concept, job=queued).action) == ("concept", "retrain")
    trained = after(Taken(), Done("train"), concept, job=queued)
    assert (trained.kind, trained.action) == ("concept", "recalibrate")
    fault = Corrected("data_quality", None, "repair it")
    assert (after(fault).state, after(fault).kind) == ("recorded", "data_quality")
    assert after(fault).reason.endswith("data_quality: repair it")
    assert after(Taken(), fault).state == "running"
    ended = after(Taken(), Rejected("worse"))
    assert after(concept, job=ended) == ended


def test_a_step_told_twice_is_done_once() -> None:
    assert after(Taken(), Done("train"), Taken(), Done("train")).done == ("train",)


def test_what_cannot_happen_is_refused() -> None:
    with pytest.raises(StateError, match="queued cannot see Registered"):
        after(Registered(2, ""))
    with pytest.raises(StateError, match="rolling_out cannot see Taken"):
        after(Taken(), Registered(2, ""), Taken())


@given(st.lists(HAPPENINGS, max_size=12))
def test_whatever_happens_a_finished_job_stays_and_every_job_says_when_it_ended(happenings: list[Happening]) -> None:
    job = JOB
    for now_s, happening in enumerate(happenings, 20):
        try:
            changed = advance(job, happening, float(now_s))
        except StateError:
            assert job.is_active
            continue
        if not job.is_active:
            assert changed == job
        assert (changed.finished_s is None) == (changed.state in ACTIVE)
        assert len(set(changed.done)) == len(changed.done)
        assert msgspec.json.decode(msgspec.json.encode(changed), type=Job) == changed
        job = changed
