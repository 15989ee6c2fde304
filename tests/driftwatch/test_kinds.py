"""Streams that change in one of four ways, from events to alarms: each says of which kind it is, and why."""

from pathlib import Path
from typing import Any

import kinds_world
import pytest
from kinds_world import CHANGED, TIME, events_of, stream
from labelled import apart, merged
from sidecar import Receiver, decided, receiving, replayed, rounded, run, said, webhook_ids, write_config, write_events

from detectors.profile import Profile

KINDS = ("probability", "numeric", "categorical")
SUGGESTED = {"covariate": "watch", "prior": "recalibrate", "concept": "retrain", "data_quality": "fix_the_pipeline"}


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {kind: kinds_world.build(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def set_up(folder: Path, profile: bytes, kind: str = "probability", **changed: Any) -> Path:
    (folder / "reference.profile").write_bytes(profile)
    return write_config(folder, **({"window": TIME, "events": events_of(kind)} | changed))


def alarms(decisions: list[Any]) -> list[tuple[int, str, str, str]]:
    """(revision, class, transition, kind) of every change."""
    return [
        (d["revision"], a["class"], a["transition"], a["kind"])
        for d in decisions
        for a in d["alarms"]
        if a["transition"] != "continuing"
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["covariate", "prior"])
def test_what_moves_the_features_is_told_at_once_and_again_with_labels(
    tmp_path: Path, profiles: dict[str, bytes], kind: str, how: str
) -> None:
    settings = set_up(tmp_path, profiles[kind], kind)
    found = replayed(settings, write_events(tmp_path / "events.jsonl", stream(kind, how)))
    changes = alarms(found)
    assert changes[0] == (0, "drift", "opened", how)
    assert (1, "drift", "updated", how) in changes
    assert ("drift", "resolved") in [c[1:3] for c in changes]
    losses = [s for d in found for s in d["scores"] if s["feature"] == "loss" and s["verdict"] == "drift"]
    told = [c for c in changes if c[1] == "performance"]
    both = [(1, "performance", "opened", how), (1, "performance", "resolved", how)]
    assert told == (both if losses else [])  # where the labels moved alone, the alarm that is open says so
    for alarm in (a for d in found for a in d["alarms"]):
        assert alarm["suggestion"] == SUGGESTED[how]
        assert alarm["evidence"]
    first = next(a for d in found for a in d["alarms"])
    start = {d["window"]["start"] for d in found}
    assert first["started_at"] == sorted(start)[CHANGED.index(1)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_rule_is_seen_on_labels_only(tmp_path: Path, profiles: dict[str, bytes], kind: str) -> None:
    settings = set_up(tmp_path, profiles[kind], kind)
    found = replayed(settings, write_events(tmp_path / "events.jsonl", stream(kind, "concept")))
    assert alarms(found) == [(1, "performance", "opened", "concept"), (1, "performance", "resolved", "concept")]
    (alarm, *_) = [a for d in found for a in d["alarms"]]
    assert alarm["suggestion"] == "retrain"
    assert "is left" in alarm["evidence"][0]
    assert {f["feature"] for f in alarm["features"]} == {"loss"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_change_is_for_the_pipeline_whatever_the_loss_says(
    tmp_path: Path, profiles: dict[str, bytes], kind: str
) -> None:
    settings = set_up(tmp_path, profiles[kind], kind)
    found = replayed(settings, write_events(tmp_path / "events.jsonl", stream(kind, "data_quality")))
    assert [a[:3] for a in alarms(found)] == [
        (0, "data_quality", "opened"),
        (1, "performance", "opened"),
        (0, "data_quality", "resolved"),
        (1, "performance", "resolved"),
    ]
    for alarm in (a for d in found for a in d["alarms"]):
        assert (alarm["kind"], alarm["suggestion"]) == ("data_quality", "fix_the_pipeline")
        assert alarm["evidence"][0].startswith("100% of `c` lie where 1000 times")


def test_predictions_that_go_missing_are_for_the_pipeline(tmp_path: Path, profiles: dict[str, bytes]) -> None:
    some = stream("probability", "")
    for event in some[3 * kinds_world.WINDOW : 5 * kinds_world.WINDOW : 4]:
        event["prediction"] = None
    found = replayed(set_up(tmp_path, profiles["probability"]), write_events(tmp_path / "events.jsonl", some))
    assert alarms(found)[0] == (0, "data_quality", "opened", "data_quality")


def test_late_labels_come_to_the_same_kind_again_and_again(tmp_path: Path, profiles: dict[str, bytes]) -> None:
    settings = set_up(tmp_path, profiles["probability"])
    write_events(tmp_path / "events.jsonl", merged(*apart(stream("probability", "concept"))))
    out = [said("replay", tmp_path / "events.jsonl", "-c", settings, "--json").out for _ in range(2)]
    assert out[0] == out[1]
    want = replayed(settings, tmp_path / "events.jsonl")
    assert next(c for c in alarms(want) if c[0]) == (1, "performance", "opened", "concept")
    run(settings)
    assert rounded(decided(settings)) == rounded(want)


def test_estimates_come_before_labels_and_stand_beside_them(tmp_path: Path, profiles: dict[str, bytes]) -> None:
    settings = set_up(tmp_path, profiles["probability"])
    found = replayed(settings, write_events(tmp_path / "events.jsonl", stream("probability", "")))
    first, second = (
        [{line["metric"]: line for line in d["performance"]} for d in found if d["revision"] == r] for r in (0, 1)
    )
    for early, late in zip(first, second, strict=True):
        assert {(line["source"], line["verdict"]) for line in early.values()} == {("estimate", "undetermined")}
        assert early["roc_auc"]["value"] == late["roc_auc"]["estimate"]
        assert early["roc_auc"]["value"] == pytest.approx(late["roc_auc"]["value"], abs=0.05)
        assert early["roc_auc"]["reference"] == late["roc_auc"]["reference"]
        assert "estimate" not in late["calibration_error"]


def test_an_update_is_told_to_who_asks_for_it(tmp_path: Path, profiles: dict[str, bytes]) -> None:
    with receiving(Receiver()) as receiver:
        asked = receiver.sink("/asked", on=["drift.updated"])
        settings = set_up(tmp_path, profiles["probability"], sinks=[asked, receiver.sink("/usual")])
        write_events(tmp_path / "events.jsonl", stream("probability", "covariate"))
        run(settings)
    found = decided(settings)
    ids = {a["class"]: a["id"] for d in found for a in d["alarms"]}
    assert receiver.taken["/asked"] == [f"{ids['drift']}:updated"]
    assert set(receiver.taken["/usual"]) == webhook_ids(found)
    assert len(webhook_ids(found)) == 2  # of performance none: the loss stayed
    assert not receiver.faults


def test_a_profile_with_what_labels_say_is_read_back_whole(profiles: dict[str, bytes]) -> None:
    for data in profiles.values():
        again = Profile.from_bytes(data)
        assert again.to_bytes() == data
        assert again.outcome is not None
        assert again.outcome.performance is not None
        assert len(data) < 10_000_000
