"""Which profile a version's windows are counted on, over starts with other references."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sidecar import TIME, build, events, run, write_config, write_events, write_reference

from detectors import calibration
from detectors.profile import Profile
from detectors.summary import Table
from driftwatch import app, checkpoint, config, profiles, references
from driftwatch.errors import ConfigError
from driftwatch.records import Shard, Stream
from driftwatch.references import ALWAYS, Loaded
from driftwatch.store import Store, Transaction
from driftwatch.window import Pane, PaneKey


@pytest.fixture(scope="session")
def other_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A profile of the same features on another reference."""
    folder = tmp_path_factory.mktemp("other")
    write_reference(folder / "reference.csv", seed=5)
    return build(folder, window=TIME)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "state.db", model="credit")
    yield opened
    opened.close()


def found(path: Path, store: Store | None) -> dict[str, Loaded]:
    return references.profiles_for(config.load(path), path, store, lambda: None)


def assigned(path: Path, store: Store) -> dict[str, list[tuple[float, str]]]:
    """By version: since when, and the content hash."""
    made = references.assignments(store, found(path, store), store.load())
    return {version: [(since, p.hash) for since, p in pairs] for version, pairs in made.items()}


def test_the_first_profile_holds_from_the_beginning_and_a_second_start_changes_nothing(
    folder: Path, store: Store, profile_bytes: bytes
) -> None:
    path = write_config(folder)
    want = {"1": [(ALWAYS, Profile.from_bytes(profile_bytes).hash)]}
    assert assigned(path, store) == want
    assert assigned(path, store) == want
    assert [a.hash for a in store.current()] == [want["1"][0][1]]


def test_a_profile_that_replaces_another_holds_from_the_largest_event_time_seen(
    folder: Path, profile_bytes: bytes, other_bytes: bytes
) -> None:
    path = write_config(folder, window=TIME)
    stream = events(600)
    write_events(folder / "events.jsonl", stream)
    run(path)
    (folder / "reference.profile").write_bytes(other_bytes)
    store = Store.open(folder / "state" / "state.db", model="credit")
    first, second = Profile.from_bytes(profile_bytes), Profile.from_bytes(other_bytes)
    made = references.assignments(store, found(path, store), store.load())
    assert [p.hash for _, p in made["1"]] == [first.hash, second.hash]
    assert made["1"][1][0] == stream[-1]["time"]
    counters = app.Counters(config.load(path).event_schema(), made)
    stands = Stream("credit", "1")
    assert counters(stands, stream[-1]["time"] - 1.0).profile == first.hash
    assert counters(stands, stream[-1]["time"] + 1.0).profile == second.hash
    assert counters(stands, -1e9).profile == first.hash
    assert counters(Stream("credit", "9"), 0.0).profile == ""
    store.close()


def test_a_version_that_the_configuration_no_longer_names_has_no_profile(folder: Path, store: Store) -> None:
    assert assigned(write_config(folder), store).keys() == {"1"}
    renamed = write_config(folder, model={"name": "credit", "version": "2"})
    assert assigned(renamed, store).keys() == {"2"}


def never(*_: object) -> bytes:
    raise AssertionError("nothing needs to be simulated")


def test_a_reference_is_profiled_once_and_then_loaded_from_the_store(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_reference(folder / "reference.csv")
    path = write_config(folder, reference={"path": "reference.csv"})
    made: list[Path] = []

    def builds(config_path: Path, source: Path, turned: object) -> bytes:
        made.append(source)
        return build(folder, reference={"path": "reference.csv"})

    monkeypatch.setattr(profiles, "in_subprocess", builds)
    first = assigned(path, store)
    monkeypatch.setattr(profiles, "in_subprocess", never)
    assert assigned(path, store) == first
    assert made == [file]
    monkeypatch.setattr(profiles, "in_subprocess", builds)
    file.write_text(file.read_text().replace("red", "rouge"))
    assert [hashed for _, hashed in assigned(path, store)["1"]] != [hashed for _, hashed in first["1"]]
    assert made == [file, file]


def test_a_profile_for_other_windows_is_simulated_once_and_then_loaded_from_the_store(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(folder, window={**TIME, "length": "1000s"})

    def simulates(config_path: Path, source: Path, turned: object) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(calibration, "DRAWS_FIT", 500)
            patch.setattr(calibration, "DRAWS_THRESHOLD", 1000)
            return profiles.simulate_again(
                profiles.load_profile(source, codes=True), config.load(config_path)
            ).to_bytes()

    monkeypatch.setattr(profiles, "in_subprocess", simulates)
    first = assigned(path, store)
    monkeypatch.setattr(profiles, "in_subprocess", never)
    assert assigned(path, store) == first


def test_a_folder_gives_each_version_that_its_profiles_name_and_an_empty_one_is_refused(
    tmp_path: Path, profile_bytes: bytes
) -> None:
    made = tmp_path / "profiles"
    made.mkdir()
    path = write_config(tmp_path, reference={"profile": "profiles"})
    with pytest.raises(ConfigError, match=r"`reference\.profile` must hold \*\.profile files; got none in "):
        found(path, None)
    (made / "whatever.profile").write_bytes(profile_bytes)
    (made / "notes.txt").write_text("not a profile")
    assert found(path, None).keys() == {"1"}


def test_the_profile_of_an_open_pane_stays_known_though_two_came_after_it(
    folder: Path, store: Store, profile_bytes: bytes, other_bytes: bytes
) -> None:
    path = write_config(folder)
    assigned(path, store)
    first = Profile.from_bytes(profile_bytes)
    pane = Pane(
        PaneKey(Shard("a"), Stream("credit", "1"), 0, first.hash), 0.0, 1.0, 0, 1, Table(np.zeros(1), np.zeros(1))
    )
    store.save(Transaction(panes=checkpoint.stored_panes([pane])))
    for body in (other_bytes, replaced(other_bytes)):
        loaded = {"1": Loaded.of(body)}
        made = references.assignments(store, loaded, store.load())
    assert first.hash not in {p.hash for _, p in made["1"]}
    assert first.hash in {p.hash for p in references.known(store, made, store.load())}


def replaced(body: bytes) -> bytes:
    """A profile with another content hash."""
    profile = Profile.from_bytes(body)
    return replace(profile, about={**profile.about, "note": "another"}, content_hash="").to_bytes()
