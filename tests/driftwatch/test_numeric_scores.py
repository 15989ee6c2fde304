"""A numeric score with a binary label: judged as a probability where the reference's scores are probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sidecar
from labelled import EVENTS, labelled, write_reference
from sidecar import TIME, WINDOW, events, replayed, said, transitions, write_config, write_events

from driftwatch import reference_labels

SCORE = EVENTS | {"prediction": {"name": "score", "kind": "numeric"}}
WRONG = (0, 0, 0.5, 0.5, 0, 0, 0, 0, 0)


def built(folder: Path, *, factor: float = 1.0) -> Path:
    """The configuration beside a profile of a reference whose scores are multiplied."""
    folder.mkdir()
    head, *rows = write_reference(folder / "reference.csv").read_text().splitlines()
    at = head.split(",").index("prediction")
    cells = [row.split(",") for row in rows]
    for row in cells:
        row[at] = str(factor * float(row[at]))
    (folder / "reference.csv").write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n")
    settings = {"window": TIME, "events": SCORE}
    (folder / "reference.profile").write_bytes(sidecar.build(folder, **settings))
    return write_config(folder, **settings)


def test_a_score_within_0_and_1_is_judged_as_the_probability_that_it_is(tmp_path: Path) -> None:
    settings = built(tmp_path / "score")
    stream = labelled(events(WINDOW * len(WRONG)), wrong=WRONG)
    found = replayed(settings, write_events(tmp_path / "events.jsonl", stream))
    late = [d for d in found if d["revision"] == 1]
    assert [d["verdict"] for d in late] == ["drift" if wrong else "ok" for wrong in WRONG]
    assert {s["feature"] for d in late for s in d["scores"]} == {"defaulted", "loss"}
    assert [what for _, what in transitions(found)] == ["opened", "resolved"]
    for one, rows in zip(late, (stream[i : i + WINDOW] for i in range(0, len(stream), WINDOW)), strict=True):
        by_name = {line["metric"]: line["value"] for line in one["performance"] if line["source"] == "labels"}
        p, y = (np.array([row[key] for row in rows], float) for key in ("prediction", "label"))
        assert by_name["brier"] == pytest.approx(((p - y) ** 2).mean())
        given = np.maximum(np.abs(1 - y - p), 1e-15)
        assert by_name["log_loss"] == pytest.approx(-np.log(given).mean())
    assert {line["metric"] for line in found[0]["performance"] if line["source"] == "estimate"} >= {"roc_auc", "brier"}


def test_a_score_beyond_1_has_no_loss_and_is_told_so(tmp_path: Path) -> None:
    settings = built(tmp_path / "score", factor=2.0)
    stream = labelled(events(WINDOW * 2), wrong=(0, 0.5))
    found = replayed(settings, write_events(tmp_path / "events.jsonl", stream))
    late = [d for d in found if d["revision"] == 1]
    assert {s["feature"] for d in late for s in d["scores"]} == {"defaulted"}
    assert [d["performance"] for d in late] == [[], []]
    told = " ".join(said("check", "-c", settings).out.split())
    assert "no loss of 'score' against the label 'defaulted'" in told
    assert "send the probability" in told


def test_without_a_label_in_the_reference_nobody_knows_what_a_score_is(folder: Path) -> None:
    settings = write_config(folder, window=TIME, events=EVENTS | {"prediction": {"kind": "numeric"}})
    found = replayed(settings, write_events(folder / "events.jsonl", labelled(events(WINDOW))))
    assert [(d["reason"], d["performance"]) for d in found if d["revision"] == 1] == [("no_reference_labels", [])]


@pytest.mark.parametrize(
    ("scores", "are"),
    [
        ([0, 1, 0.5], True),
        ([0, np.nan, 1], True),
        ([0.2, 1.01], False),
        ([-1e-9, 0.5], False),
        ([np.inf], False),
        ([np.nan], False),
    ],
)
def test_scores_are_probabilities_where_every_one_of_them_is(scores: list[Any], are: bool) -> None:
    assert reference_labels.are_probabilities(np.array(scores, float)) is are
