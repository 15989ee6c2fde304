"""The small model with labels: a probability, whether it came true, and streams in which the labels come late."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sidecar
from sidecar import Event

LABEL: dict[str, object] = {"name": "defaulted", "kind": "binary", "wait": "1h"}
EVENTS: dict[str, object] = {"features": sidecar.FEATURES, "prediction": {"kind": "probability"}, "label": LABEL}


def write_reference(path: Path, n: int = 3000) -> Path:
    """A CSV reference in which predictions are what they say."""
    sidecar.write_reference(path, n)
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    came_true = np.random.default_rng(3).random(n) < np.array([float(row[-1]) for row in rows])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [[*head, "defaulted"], *([*r, int(y)] for r, y in zip(rows, came_true, strict=True))]
        )
    return path


def build(folder: Path, **changed: Any) -> bytes:
    """A profile that knows labels."""
    write_reference(folder / "reference.csv")
    return sidecar.build(folder, **({"window": sidecar.TIME, "events": EVENTS} | changed))


def set_up(folder: Path, profile: bytes, **changed: Any) -> Path:
    """A folder with the profile; its configuration."""
    folder.mkdir(exist_ok=True)
    (folder / "reference.profile").write_bytes(profile)
    return sidecar.write_config(folder, **({"window": sidecar.TIME, "events": EVENTS} | changed))


def labelled(some: Sequence[Event], *, wrong: Sequence[float] = (), seed: int = 4) -> list[Event]:
    """The events with a label beside each; of window i so large a share is turned round."""
    dice = np.random.default_rng(seed)
    found = []
    for i, event in enumerate(some):
        share = wrong[i // sidecar.WINDOW] if i // sidecar.WINDOW < len(wrong) else 0.0
        came_true = dice.random() < event["prediction"]
        found.append(event | {"label": int(came_true ^ (dice.random() < share))})
    return found


def apart(some: Sequence[Event], *, delay_s: float = 300.0, seed: int = 5) -> tuple[list[Event], list[Event]]:
    """Predictions, and their labels as events of their own, each some minutes later, in the order of their times."""
    delays = np.random.default_rng(seed).exponential(delay_s, len(some))
    labels = [
        {"id": e["id"], "time": e["time"] + round(float(d), 3), "label": e["label"]}
        for e, d in zip(some, delays, strict=True)
    ]
    predictions = [{key: value for key, value in event.items() if key != "label"} for event in some]
    return predictions, sorted(labels, key=lambda label: label["time"])


def merged(predictions: Sequence[Event], labels: Sequence[Event]) -> list[Event]:
    """One stream of both by their times."""
    return sorted([*predictions, *labels], key=lambda event: event["time"])
