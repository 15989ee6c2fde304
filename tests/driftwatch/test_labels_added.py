"""`events.label` is added to the configuration of a sidecar that was killed with open panes, or changed in it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash_trials import KILLED, State, Trial, driving
from labelled import EVENTS, LABEL, apart, build, labelled, merged
from sidecar import (
    COUNT,
    T0,
    TIME,
    WINDOW,
    Receiver,
    decided,
    events,
    receiving,
    rounded,
    said,
    write_config,
    write_events,
)

from driftwatch.decision import rfc3339

N_WINDOWS, BEFORE = 8, 900  # rows
WITHOUT = {key: value for key, value in EVENTS.items() if key != "label"}
SLIDING = TIME | {"length": "500s", "slide": "250s"}


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, bytes]:
    """By whether it knows labels."""
    return {
        knows: build(tmp_path_factory.mktemp("labelled"), events=EVENTS if knows else WITHOUT)
        for knows in (False, True)
    }


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    with driving(tmp_path_factory.mktemp("driver") / "log") as driver:
        yield driver


def second(decisions: list[Any]) -> list[Any]:
    """The second judgements."""
    return rounded([d for d in decisions if d["revision"] == 1])


def stream(*, beside: bool) -> list[Any]:
    some = labelled(events(WINDOW * N_WINDOWS))
    return some if beside else merged(*apart(some))


def lives(driver: "subprocess.Popen[str]", config: Path, *, dies: bool) -> None:
    """A sidecar in the configuration's folder: killed once it has stored an open pane, or to the end."""
    with receiving(Receiver([])) as receiver:
        state = State(Trial(config.parent, {}, receiver, driver), config, "/")
        assert state.live("after a save", 2 if dies else 0) == (KILLED if dies else 0)


@pytest.mark.parametrize(
    ("window", "anew", "beside"),
    [
        (TIME, False, True),
        (SLIDING, False, False),
        (COUNT, False, True),
        pytest.param(SLIDING, True, True, marks=pytest.mark.slow),
        pytest.param(COUNT, True, False, marks=pytest.mark.slow),
    ],
)
def test_labels_are_asked_for_later(
    tmp_path: Path, profiles: dict[bool, bytes], driver: Any, window: Any, anew: bool, beside: bool
) -> None:
    """`anew`: with a profile that knows them. Windows that begin after the restart are judged on their labels."""
    (tmp_path / "reference.profile").write_bytes(profiles[False])
    path, some = tmp_path / "events.jsonl", stream(beside=beside)
    config = write_config(tmp_path, window=window, events=WITHOUT)
    write_events(path, some[:BEFORE])
    lives(driver, config, dies=True)
    assert second(decided(config)) == []
    write_events(path, some)
    (tmp_path / "reference.profile").write_bytes(profiles[anew])
    write_config(tmp_path, window=window, events=EVENTS)
    lives(driver, config, dies=False)
    found = second(decided(config))
    later = [d["window"] for d in decided(config) if d["window"]["start"] >= rfc3339(T0 + BEFORE)]
    judged = [d for d in found if d["window"] in later]
    assert [d["window"] for d in judged] == [window for i, window in enumerate(later) if window not in later[:i]]
    assert len(judged) >= 3
    assert all(d["performance"][0]["n"] >= 0.9 * d["window"]["n_records"] for d in judged)
    reasons = {d["reason"] for d in judged if d["window"]["n_records"] >= 80}
    assert reasons == ({None} if anew else {"no_reference_labels"})
    assert len({(str(d["window"]), d["part"]) for d in found}) == len(found)


def test_another_kind_of_label_beside_the_same_state_is_refused(
    tmp_path: Path, profiles: dict[bool, bytes], driver: Any
) -> None:
    (tmp_path / "reference.profile").write_bytes(profiles[False])
    config = write_config(tmp_path, window=TIME, events=EVENTS)
    write_events(tmp_path / "events.jsonl", stream(beside=False)[:BEFORE])
    lives(driver, config, dies=True)
    write_config(tmp_path, window=TIME, events=EVENTS | {"label": LABEL | {"kind": "numeric"}})
    found = said("run", "-c", config)
    assert found.code == 3
    assert "a numeric label" in found.err
    assert "a categorical label, its prediction a probability" in found.err
