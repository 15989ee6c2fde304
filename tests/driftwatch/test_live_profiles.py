"""Profiles that come while the sidecar runs: which windows are judged on them, also after SIGKILL at any time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from following import Following, following
from sidecar import COUNT, TIME, Event, build, decided, events, run, write_config, write_events, write_reference

from detectors.profile import Profile
from driftwatch.store import PaneKey, PaneRow, Store, StoredDecision, Transaction
from driftwatch.store_profiles import Assignment, Given


@pytest.fixture(scope="session")
def other_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A profile of 2,000 rows of another reference: `n_reference` of a score tells it from the other."""
    folder = tmp_path_factory.mktemp("other")
    write_reference(folder / "reference.csv", n=2000, seed=5)
    return build(folder, window=TIME)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "other.db", model="credit", keep_s=1000.0) as opened:
        yield opened


def two_versions(n: int, start: int) -> list[Event]:
    """Events of the versions 1 and 2 in turn."""
    some = events(n, start=start, seed=start + 3)
    return [{**event, "version": "12"[i % 2]} for i, event in enumerate(some)]


def n_references(decisions: list[Any]) -> list[int | None]:
    """Of each window the rows of the profile that it is judged on; None: of none."""
    return [max((s["n_reference"] for s in d["scores"]), default=None) for d in decisions]


def test_a_profile_for_an_unknown_version_survives_a_kill_and_the_next_window_is_judged_on_it(
    folder: Path, other_bytes: bytes
) -> None:
    with following(folder, window=TIME) as sidecar:
        sidecar.add(two_versions(700, 0))
        assert [d["reason"] for d in sidecar.wait_for_windows(2, "2")] == ["no_profile"] * 2
        assert sidecar.ask("PUT", "/v1/profile/2", other_bytes)[0] == 201
        sidecar.kill()
        sidecar.start()
        said = sidecar.wait_for_use("2")
        assert said["id"] == Profile.from_bytes(other_bytes).hash
        sidecar.kill()
        sidecar.start()
        assert sidecar.profile("2") == said
        sidecar.add(two_versions(700, 700))
        found = sidecar.wait_for_windows(5, "2")
        assert n_references(found) == [None, None, None, 2000, 2000]
        assert [d["reason"] for d in found] == ["no_profile"] * 3 + [None] * 2
        assert {d["window"]["n_records"] for d in found} == {125}
        assert said["since"] == found[3]["window"]["start"]
        assert n_references(sidecar.wait_for_windows(5)) == [3000] * 5
        assert sidecar.ask("PUT", "/v1/profile/2", other_bytes)[0] == 200
        assert json.loads(sidecar.ask("GET", "/v1/profile/1")[1])["since"] is None


@pytest.mark.slow
def test_with_count_windows_the_one_that_fills_goes_on_as_it_began_also_after_a_kill(
    folder: Path, other_bytes: bytes
) -> None:
    with following(folder, window=COUNT) as sidecar:
        sidecar.add(events(300))
        sidecar.wait_for_windows(1)
        assert sidecar.ask("PUT", "/v1/profile", other_bytes)[0] == 201
        sidecar.wait_for_use("1")
        sidecar.wait(lambda: "counts from the next window" in sidecar.said(), "its use")
        sidecar.kill()
        sidecar.start()
        sidecar.add(events(500, start=300, seed=4))
        found = sidecar.wait_for_windows(3)
        assert n_references(found) == [3000, 3000, 2000]
        assert [(d["window"]["n_records"], d["partial"]) for d in found] == [(250, False)] * 3


def test_a_profile_put_while_one_is_learned_ends_the_learning(tmp_path: Path, profile_bytes: bytes) -> None:
    with following(tmp_path / "run", window=TIME, reference={"learn": "30d"}) as sidecar:
        sidecar.add(events(700))
        assert [d["reason"] for d in sidecar.wait_for_windows(2)] == ["learning"] * 2
        assert sidecar.ask("GET", "/readyz")[0] == 200
        assert 0 < learning_ratio(sidecar) < 0.001
        assert sidecar.ask("GET", "/v1/profile/1")[0] == 404
        assert sidecar.ask("PUT", "/v1/profile/1", profile_bytes)[0] == 201
        sidecar.wait_for_use("1")
        sidecar.add(events(700, start=700, seed=4))
        assert [d["reason"] for d in sidecar.wait_for_windows(5)] == ["learning"] * 3 + [None] * 2
        assert str(learning_ratio(sidecar)) == "nan"
    with Store.open(tmp_path / "run" / "state" / "state.db", model="credit", read_only=True) as store:
        assert (store.learning(), store.learned()) == (None, [])


def learning_ratio(sidecar: Following) -> float:
    """The gauge."""
    lines = sidecar.ask("GET", "/metrics")[1].splitlines()
    return float(next(line for line in lines if line.startswith("driftwatch_learning_ratio")).split()[-1])


def test_what_was_put_outranks_the_configured_profile_until_its_file_is_another(
    folder: Path, other_bytes: bytes, profile_bytes: bytes
) -> None:
    path = write_config(folder, window=TIME)
    write_events(folder / "events.jsonl", events(500))
    run(path)
    configured, other = (Profile.from_bytes(body).hash for body in (profile_bytes, other_bytes))
    state = folder / "state" / "state.db"
    with Store.open(state, model="credit") as store:
        store.give(Given("1", other, configured, in_use=False), other_bytes)
    for start in (500, 1000, 1500):
        write_events(folder / "events.jsonl", events(500, start=start, seed=start), "ab")
        run(path)
    assert n_references(decided(path))[-2:] == [2000] * 2
    assert holds(state) == other
    (folder / "reference.profile").write_bytes(other_bytes)  # another content now, as it happens the same profile
    run(path)
    (folder / "reference.profile").write_bytes(profile_bytes)
    write_events(folder / "events.jsonl", events(500, start=2000, seed=9), "ab")
    assert "is used no longer" not in run(path).err  # nothing was put since
    assert n_references(decided(path))[-2:] == [3000] * 2
    assert holds(state) == configured


def holds(state: Path) -> str:
    """The profile that holds for version 1."""
    with Store.open(state, model="credit", read_only=True) as store:
        return [a.hash for a in store.current() if a.version == "1"][-1]


def test_one_that_was_put_for_features_that_are_no_longer_configured_is_taken_back(
    folder: Path, other_bytes: bytes
) -> None:
    write_events(folder / "events.jsonl", events(300))
    run(write_config(folder))
    with Store.open(folder / "state" / "state.db", model="credit") as store:
        store.give(Given("9", Profile.from_bytes(other_bytes).hash, "", in_use=False), other_bytes)
    fewer = {"features": {"x": "numeric"}, "prediction": {"kind": "numeric"}}
    said = run(write_config(folder, events=fewer, reference=None, state={"path": "state/state.db"}))
    assert said.code == 0
    with Store.open(folder / "state" / "state.db", model="credit", read_only=True) as store:
        assert store.given() == []


def test_profiles_of_versions_that_were_not_used_for_as_long_as_decisions_are_kept_are_forgotten(store: Store) -> None:
    for version, since_s in (("old", 0.0), ("judged", 0.0), ("counted", 0.0), ("young", 9500.0), ("known", 0.0)):
        store.assign(Assignment(version, since_s, f"hash {version}"), b"body")
    store.give(Given("old", "hash old", "", in_use=True), b"body")
    store.give(Given("waiting", "hash waiting", "", in_use=False), b"body")
    assert store.prune({"known"}) == []  # nothing was decided yet: no time has passed
    pane = {PaneKey("a", "counted", 0, "hash counted"): PaneRow(0.0, 1.0, 0, 1, b"")}
    store.save(Transaction(panes=pane, decisions=[StoredDecision("judged", 10_000.0, 1, b"{}")]))
    assert store.prune({"known"}) == ["old"]
    assert {a.version for a in store.current()} == {"judged", "counted", "young", "known"}
    assert [given.version for given in store.given()] == ["waiting"]
    assert store.profile("hash old") is None
    assert store.profile("hash known") == b"body"


@pytest.mark.slow
def test_one_for_other_windows_is_simulated_beside_the_loop_and_keeps_the_id_under_which_it_was_put(
    folder: Path, profile_bytes: bytes
) -> None:
    with following(folder, window={**TIME, "length": "500s"}, reference=None) as sidecar:
        sidecar.add(events(1100))
        sidecar.wait_for_windows(1)
        assert sidecar.ask("PUT", "/v1/profile/1", profile_bytes)[0] == 201
        assert sidecar.profile("1")["state"] == "waiting"
        sidecar.add(events(500, start=1100, seed=5))
        assert [d["reason"] for d in sidecar.wait_for_windows(2)] == ["no_profile"] * 2  # it turns meanwhile
        assert sidecar.ask("GET", "/livez")[0] == 200
        said = sidecar.wait_for_use("1")
        assert said["id"] == Profile.from_bytes(profile_bytes).hash
        sidecar.kill()
        sidecar.start()
        assert sidecar.profile("1") == said
        sidecar.add(events(1500, start=1600, seed=6))
        assert n_references(sidecar.wait_for_windows(5))[-1] == 3000


@pytest.mark.slow
def test_what_is_learned_live_is_the_same_after_a_kill_amid_learning_and_amid_building(tmp_path: Path) -> None:
    saved = []
    for name in ("undisturbed", "killed"):
        reference = {"learn": "1500s", "save": "saved.profile"}
        with following(tmp_path / name, window=TIME, reference=reference) as sidecar:
            for start in range(0, 2000, 500):
                sidecar.add(events(500, start=start, seed=start))
                sidecar.wait_for_windows(start // 250 + 1 if start else 1)
                if name == "killed":
                    sidecar.kill()
                    sidecar.start()
            sidecar.wait(lambda s=sidecar: "are kept" in s.said(), "the building")
            if name == "killed":
                sidecar.kill()
                sidecar.start()
            assert sidecar.ask("GET", "/livez")[0] == 200
            said = sidecar.wait_for_use("1")
            sidecar.add(events(1000, start=2000, seed=7))
            found = sidecar.wait_for_windows(11)
            assert [d["reason"] for d in found][:7] == ["learning"] * 7
            assert found[-1]["reason"] is None
            saved.append((sidecar.folder / "saved.profile").read_bytes())
            assert said["id"] == Profile.from_bytes(saved[-1]).hash
            sidecar.kill()
            sidecar.start()
            assert sidecar.profile("1") == said
    assert saved[0] == saved[1]
