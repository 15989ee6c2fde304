"""What the loop does about profiles between two transactions, step by step, with making them under the test's hand."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from sidecar import TIME, write_config

from detectors.profile import Profile
from driftwatch import app, config, live_profiles
from driftwatch.counters import Counters
from driftwatch.errors import DriftwatchError
from driftwatch.learning import Learner, decoded_state
from driftwatch.live_profiles import RETRY_S, Judging, Live, LiveProfiles
from driftwatch.metrics import Metrics
from driftwatch.monitor import Monitor
from driftwatch.records import Records, Shard, Stream
from driftwatch.store import Store
from driftwatch.store_profiles import Given

WIDE = {**TIME, "length": "2000s"}  # windows for which the profile of the tests has to be simulated again


class FakeMaking:
    """In place of `Making`; `result`: what is made by and by."""

    made: ClassVar[list["FakeMaking"]] = []

    def __init__(self, config_path: Path, source: Path | bytes) -> None:
        self.source, self.is_closed = source, False
        self.result: bytes | DriftwatchError | None = None
        self.made.append(self)

    def wait(self, seconds: float) -> bytes | None:
        if isinstance(self.result, DriftwatchError):
            raise self.result
        return self.result

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Loop:
    """A loop without a source."""

    store: Store
    judging: Judging
    steps: LiveProfiles
    made: list[FakeMaking]
    lacks: list[str | None]
    now_s: list[float]  # the clock's only value

    def wait(self) -> None:
        """Until what failed may be tried again."""
        self.now_s[0] += RETRY_S

    def profile_of(self, version: str, start_s: float = 1e12) -> str:
        return self.judging.counters(Stream("credit", version), start_s).profile


@pytest.fixture
def loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """It learns version 1 and has no other profile."""
    monkeypatch.setattr(live_profiles, "Making", FakeMaking)
    FakeMaking.made = []
    path = write_config(folder, window=WIDE, reference={"learn": "1000s", "save": "saved.profile"})
    settings = config.load(path)
    with Store.open(settings.state.path, model="credit") as store:
        schema = settings.event_schema()
        counters = Counters(schema, {}, learning="1")
        learner = Learner.of(schema, 1000.0, 60.0, 3, None)
        judging = Judging(app.make_windower(settings, counters), counters, Monitor({}, min_records=1), learner)
        lacks: list[str | None] = []
        metrics = Metrics(CollectorRegistry(), model="credit", version="1")
        live = Live(settings, path, store, judging, lacks.append, metrics)
        now_s = [0.0]
        steps = LiveProfiles(live, clock=lambda: now_s[0])
        yield Loop(store, judging, steps, FakeMaking.made, lacks, now_s)
        steps.close()


@pytest.fixture
def other_bytes(profile_bytes: bytes) -> bytes:
    return variant(profile_bytes, "other")


def variant(body: bytes, note: str) -> bytes:
    """The same profile with another content hash."""
    profile = Profile.from_bytes(body)
    return replace(profile, about={**profile.about, "note": note}, content_hash="").to_bytes()


def hash_of(body: bytes) -> str:
    return Profile.from_bytes(body).hash


def put(loop: Loop, version: str, body: bytes) -> None:
    loop.store.give(Given(version, hash_of(body), "", in_use=False), body)


def some_rows(time_s: float, n: int = 500, start: int = 0) -> Records:
    """One row a second."""
    nothing, marks, places = np.zeros((n, 3)), np.empty(0, np.uint8), np.empty((0, 2), np.intp)
    positions, times_s = np.arange(start, start + n), np.arange(n) + time_s
    return Records(Shard("a"), positions, times_s, [""] * n, nothing, places, marks, (["red"] * n,))


def learn_all(loop: Loop) -> None:
    """Rows past the stretch."""
    learner = loop.judging.learner
    assert learner is not None
    rows = some_rows(0.5, 1500)
    learner.assign(Shard("a"), anew=False)
    learner.add(rows, ahead=np.empty(0, np.intp), end=1500)
    assert learner.is_complete


def test_a_put_that_is_replaced_while_it_is_simulated_is_dropped_for_the_other(
    loop: Loop, profile_bytes: bytes, other_bytes: bytes
) -> None:
    put(loop, "2", profile_bytes)
    loop.steps.step()
    loop.steps.step()
    assert [making.source for making in loop.made] == [profile_bytes]
    put(loop, "2", other_bytes)
    loop.steps.step()
    assert [making.is_closed for making in loop.made] == [True, False]
    assert loop.profile_of("2") == ""
    loop.made[1].result = variant(other_bytes, "simulated")
    loop.steps.step()
    assert loop.profile_of("2") == hash_of(loop.made[1].result)
    assert [(a.version, a.origin) for a in loop.store.current()] == [("2", hash_of(other_bytes))]
    assert loop.store.given(waiting=True) == []
    assert loop.lacks == []  # of another version than the configured one


def test_puts_of_several_versions_are_simulated_one_after_the_other(
    loop: Loop, profile_bytes: bytes, other_bytes: bytes
) -> None:
    put(loop, "2", profile_bytes)
    put(loop, "3", other_bytes)
    loop.steps.step()
    assert len(loop.made) == 1
    loop.made[0].result = variant(profile_bytes, "simulated")
    loop.steps.step()
    assert [making.source for making in loop.made] == [profile_bytes, other_bytes]
    assert loop.profile_of("2") != ""
    assert loop.profile_of("3") == ""


def test_what_could_not_be_made_is_said_and_tried_again_later(loop: Loop, profile_bytes: bytes) -> None:
    put(loop, "2", profile_bytes)
    loop.steps.step()
    loop.made[0].result = DriftwatchError("no memory")
    for _ in range(3):
        loop.steps.step()
    assert [making.is_closed for making in loop.made] == [True]
    loop.wait()
    loop.steps.step()
    assert [making.is_closed for making in loop.made] == [True, False]


def test_learned_rows_are_built_once_complete_and_a_failure_makes_it_unready_until_it_succeeds(
    loop: Loop, profile_bytes: bytes, folder: Path
) -> None:
    learn_all(loop)
    loop.steps.step()
    assert [making.source for making in loop.made] == [folder / "state" / "state.db"]
    learner = loop.judging.learner
    assert learner is not None
    n_rows = learner.state.n_rows
    learner.add(some_rows(0.0, start=9000), ahead=np.empty(0, np.intp), end=9500)  # nothing more is taken
    assert (learner.state.n_rows, learner.changes()) == (n_rows, None)
    assert decoded_state(loop.store.learning() or b"").is_closed
    loop.made[0].result = DriftwatchError("no memory")
    loop.steps.step()
    assert loop.lacks == ["version 1 is not learned: no memory"]
    loop.wait()
    loop.steps.step()
    loop.made[1].result = profile_bytes
    assert loop.profile_of("1") == "learning"
    loop.steps.step()
    assert loop.profile_of("1") == hash_of(profile_bytes)
    assert loop.lacks[-1] is None
    assert (folder / "saved.profile").read_bytes() == profile_bytes
    assert learner.is_stopped
    loop.steps.step()
    assert len(loop.made) == 2


def test_a_profile_put_while_the_learned_one_is_built_ends_the_building(
    loop: Loop, profile_bytes: bytes, other_bytes: bytes
) -> None:
    learn_all(loop)
    loop.steps.step()
    put(loop, "1", profile_bytes)
    loop.steps.step()
    assert [(making.source, making.is_closed) for making in loop.made][1:] == [(profile_bytes, False)]
    assert loop.made[0].is_closed
    loop.made[1].result = variant(profile_bytes, "simulated")
    loop.steps.step()
    assert loop.profile_of("1") == hash_of(loop.made[1].result)
    loop.steps.step()
    assert len(loop.made) == 2  # nothing is built of the learned rows any more


def test_a_saved_file_that_cannot_be_written_costs_nothing_but_the_file(
    loop: Loop, profile_bytes: bytes, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "saved.profile").mkdir()
    learn_all(loop)
    loop.steps.step()
    loop.made[0].result = profile_bytes
    loop.steps.step()
    assert "saved.profile cannot be written" in caplog.text
    assert loop.profile_of("1") == hash_of(profile_bytes)


def test_while_the_state_cannot_be_written_nothing_changes_and_the_next_step_tries_again(
    loop: Loop, profile_bytes: bytes
) -> None:
    put(loop, "2", profile_bytes)
    loop.steps.step()
    loop.made[0].result = variant(profile_bytes, "simulated")
    with loop.store.profiles() as other:
        other._database.execute("BEGIN IMMEDIATE")
        loop.steps.step()
        assert loop.profile_of("2") == ""
        other._database.execute("ROLLBACK")
    loop.steps.step()
    assert loop.profile_of("2") == hash_of(loop.made[0].result)
