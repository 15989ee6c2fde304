"""A world in which a model's label follows from its features, and streams that change in one of four ways."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import sidecar
from labelled import LABEL
from sidecar import T0, Event

WINDOW = 500  # rows, and seconds
TIME: dict[str, object] = {"length": f"{WINDOW}s", "lateness": "60s", "min_records": 80}
CHANGED = (0, 0, 0, 1, 1, 0, 0, 0, 0)  # the windows of a stream that are changed
NAMES = ("a", "b", "c", "group")
WEIGHTS = np.array([1.0, -0.8, 0.6])
FEATURES = {"a": "numeric", "b": "numeric", "c": "numeric", "group": "categorical"}
PREDICTIONS = {"probability": "binary", "numeric": "numeric", "categorical": "categorical"}

Columns = dict[str, Any]


def events_of(kind: str) -> dict[str, object]:
    """The configuration's `events` for a kind of prediction."""
    label = {**LABEL, "kind": PREDICTIONS[kind]}
    return {"features": FEATURES, "prediction": {"kind": kind}, "label": label}


def features(n: int, rng: np.random.Generator) -> Columns:
    """Three numbers and a category."""
    a, b, c = rng.normal(size=(3, n))
    return {"a": a, "b": b, "c": np.exp(c), "group": rng.choice(["x", "y", "z"], n, p=[0.5, 0.3, 0.2])}


def says(columns: Columns, weights: np.ndarray = WEIGHTS) -> np.ndarray:
    """What the features say of the label."""
    linear = np.column_stack([columns["a"], columns["b"], np.log(np.clip(columns["c"], 1e-9, None))]) @ weights
    return np.asarray(2 * linear + (columns["group"] == "x") - 0.5)


def answered(kind: str, linear: np.ndarray, rng: np.random.Generator) -> list[Any]:
    """Labels."""
    if kind == "numeric":
        return list((linear + rng.normal(0, 1, len(linear))).round(4).tolist())
    came_true = rng.random(len(linear)) < 1 / (1 + np.exp(-linear))
    return came_true.astype(int).tolist() if kind == "probability" else np.where(came_true, "bad", "good").tolist()


def predicted(kind: str, columns: Columns) -> list[Any]:
    """What the model says; it takes a missing number for 0."""
    linear = says({name: np.nan_to_num(v) if name != "group" else v for name, v in columns.items()})
    if kind == "categorical":
        return np.where(linear > 0, "bad", "good").tolist()
    found = 1 / (1 + np.exp(-np.clip(linear, -30, 30))) if kind == "probability" else linear
    return list(found.round(4).tolist())


def changed(kind: str, how: str, rng: np.random.Generator) -> tuple[Columns, list[Any]]:
    """The features and labels of one window."""
    columns = features(WINDOW, rng)
    if how == "covariate":
        columns["b"] = columns["b"] + 1.5
    elif how == "prior":
        columns = features(20 * WINDOW, rng)
        label = answered(kind, says(columns), rng)
        high = np.array([v in (1, "bad") or (isinstance(v, float) and v > 0.5) for v in label])
        kept = rng.choice(len(label), WINDOW, p=np.where(high, 4.0, 1.0) / np.where(high, 4.0, 1.0).sum())
        return {name: values[kept] for name, values in columns.items()}, [label[i] for i in kept.tolist()]
    label = answered(kind, says(columns, -WEIGHTS if how == "concept" else WEIGHTS), rng)
    if how == "data_quality":
        columns["c"] = columns["c"] * 1000
    return columns, label


def stream(kind: str, how: str, seed: int = 11) -> list[Event]:
    """Nine windows of which two are changed; the label lies beside the prediction."""
    rng, found = np.random.default_rng(seed), []
    for is_changed in CHANGED:
        columns, label = changed(kind, how if is_changed else "", rng)
        rows = zip(*(columns[name].tolist() for name in NAMES), predicted(kind, columns), label, strict=True)
        for *values, prediction, y in rows:
            event = {"features": dict(zip(NAMES, values, strict=True)), "prediction": prediction, "label": y}
            found.append({"id": f"r{len(found)}", "time": T0 + len(found), **event})
    return found


def build(folder: Path, kind: str) -> bytes:
    """A profile of 6,000 rows of the world."""
    rng, n = np.random.default_rng(7), 6000
    columns = features(n, rng)
    rows = zip(
        range(T0 - n, T0),
        *(columns[name].tolist() for name in NAMES),
        predicted(kind, columns),
        answered(kind, says(columns), rng),
        strict=True,
    )
    with (folder / "reference.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("time", *NAMES, "prediction", "defaulted"), *rows])
    return sidecar.build(folder, window=TIME, events=events_of(kind))
