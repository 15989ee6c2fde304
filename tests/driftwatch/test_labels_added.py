"""`events.label` is added to, changed in or taken from the configuration of a sidecar that was killed with open panes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash_trials import KILLED, State, Trial, driving
from labelled import EVENTS, LABEL, apart, build, labelled, merged
from sidecar import (
    COUNT,
    TIME,
    WINDOW,
    Receiver,
    decided,
    events,
    receiving,
    replayed,
    rounded,
    write_config,
    write_events,
)

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


@pytest.mark.parametrize("beside", [False, True], ids=["by themselves", "beside"])
@pytest.mark.parametrize("anew", [False, True], ids=["the same profile", "another profile"])
@pytest.mark.parametrize("window", [TIME, SLIDING, COUNT], ids=["time", "sliding", "count"])
def test_labels_are_asked_for_later(
    tmp_path: Path, profiles: dict[bool, bytes], driver: Any, window: Any, anew: bool, beside: bool
) -> None:
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
    found, want = second(decided(config)), second(replayed(config, path))
    assert {d["reason"] for d in found if not anew} <= {"no_reference_labels"}
    if window != COUNT:  # those are cut elsewhere where the profile changed
        assert found[-2:] == want[-2:]
    assert 3 <= len(found) < len(want)
    assert all(d["performance"][0]["n"] > 0.9 * WINDOW for d in found[1:-1])
    assert len({str(d["window"]) for d in found}) == len(found)
