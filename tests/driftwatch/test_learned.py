"""A profile of rows that were learned: what commands say of it, and where a saved one is used."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sidecar import TIME, decided, events, run, said, write_config, write_events

from detectors import calibration
from detectors.profile import Profile
from driftwatch import check, config, learned
from driftwatch.errors import ConfigError
from driftwatch.learning import decoded_state
from driftwatch.store import Store

LEARN = {"learn": "1h", "save": "saved.profile"}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "DRAWS_FIT", 300)
    monkeypatch.setattr(calibration, "DRAWS_THRESHOLD", 600)


@pytest.fixture
def learning(tmp_path: Path) -> Path:
    """The configuration of a sidecar that has learned 1,200 rows of an hour's."""
    write_events(tmp_path / "events.jsonl", events(1200))
    path = write_config(tmp_path, window=TIME, reference=LEARN, detectors={"mmd": {"rows": 0}})
    run(path)
    return path


def test_the_rows_that_are_there_so_far_can_be_checked_and_profiled(learning: Path, tmp_path: Path) -> None:
    settings = config.load(learning)
    profile = check.find_profile(settings, None)
    assert profile.n_rows == 1200
    assert list(profile.kinds) == ["x", "y", "c", "prediction"]
    assert profile.about["learned_from"] == "2023-11-14T22:13:20Z"
    assert profile.about["rows_seen"] == 1200.0
    assert profile.about["rows_per_second"] == pytest.approx(1200 / 1199)
    done = said("profile", settings.state.path, "-c", learning, "-o", tmp_path / "so-far.profile")
    assert done.code == 0, done.err
    assert Profile.from_bytes((tmp_path / "so-far.profile").read_bytes()).hash == profile.hash


def test_check_says_how_many_days_were_learned_and_what_they_are_worth(
    learning: Path,
) -> None:
    settings = config.load(learning)
    profile = check.find_profile(settings, None)
    nothing: Any = None  # of what this table does not show
    measured = check.Measured(250, 0.01, 5.0, nothing, nothing, {})
    lines = "\n".join(check.what_was_read(settings, profile, measured))
    assert "learned" in lines
    assert "0.01 daily cycles; hours that it does not hold may look like drift" in lines
    assert "1,200 over 20.0 minutes" in lines


def test_the_columns_are_those_of_the_events(learning: Path) -> None:
    settings = config.load(learning)
    state, rows = learned.read(settings, settings.state.path)
    material = learned.material(settings.event_schema(), state, rows)
    want = events(1200)
    assert list(material.columns["x"]) == [e["features"]["x"] for e in want]
    assert material.columns["c"] == [e["features"]["c"] for e in want]
    assert list(material.columns["prediction"]) == [e["prediction"] for e in want]


def test_where_nothing_was_learned_yet_it_is_said_what_to_do(tmp_path: Path) -> None:
    path = write_config(tmp_path, window=TIME, reference=LEARN)
    settings = config.load(path)
    with pytest.raises(ConfigError, match=r"`reference\.learn` has learned nothing yet: there is no state at "):
        check.find_profile(settings, None)
    write_events(tmp_path / "events.jsonl", events(30))
    run(path)
    with pytest.raises(ConfigError, match=r"at least 50 rows make a profile; learning has kept 30 so far"):
        check.find_profile(settings, None)
    other = config.load(write_config(tmp_path, window=TIME, reference=LEARN, model={"name": "credit", "version": "2"}))
    with pytest.raises(ConfigError, match=r"must hold rows to learn version '2' from; got none of these features"):
        check.find_profile(other, None)


def test_another_version_begins_anew_and_other_references_forget_what_was_learned(learning: Path, folder: Path) -> None:
    state = config.load(learning).state.path
    run(write_config(folder, window=TIME, reference=LEARN, model={"name": "credit", "version": "2"}))
    with closing(Store.open(state, model="credit", read_only=True)) as store:
        assert decoded_state(store.learning() or b"").version == "2"
        assert store.learned() == []
    write_events(folder / "events.jsonl", events(300, start=1200), "ab")
    run(write_config(folder, window=TIME, reference=LEARN, model={"name": "credit", "version": "2"}))
    with closing(Store.open(state, model="credit", read_only=True)) as store:
        assert decoded_state(store.learning() or b"").n_rows == 300
    run(write_config(folder, window=TIME))
    with closing(Store.open(state, model="credit", read_only=True)) as store:
        assert (store.learning(), store.learned()) == (None, [])


def test_a_saved_profile_is_used_where_there_is_no_state_but_for_its_version_only(
    folder: Path, profile_bytes: bytes
) -> None:
    (folder / "saved.profile").write_bytes(profile_bytes)
    stream = write_events(folder / "events.jsonl", events(750))
    path = write_config(folder, window=TIME, reference=LEARN)
    assert check.find_profile(config.load(path), None).hash == Profile.from_bytes(profile_bytes).hash
    assert "0 alarms" in said("replay", stream, "-c", path).err
    run(path)
    assert {d["reason"] for d in decided(path)} == {None}
    profile = Profile.from_bytes(profile_bytes)
    old = replace(profile, about={**profile.about, "version": "0"}, content_hash="")
    (folder / "saved.profile").write_bytes(old.to_bytes())
    fresh = write_config(folder, window=TIME, reference=LEARN, state={"path": "fresh/state.db"})
    run(fresh)
    assert {d["reason"] for d in decided(fresh)} == {"learning"}


def test_a_folder_to_save_in_must_be_there(tmp_path: Path) -> None:
    write_events(tmp_path / "events.jsonl", events(10))
    path = write_config(tmp_path, reference={"learn": "1h", "save": "nowhere/saved.profile"})
    done = said("run", "-c", path)
    assert done.code == 2
    assert "`reference.save` must lie in a folder; there is none at" in done.err
