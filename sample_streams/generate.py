"""Writes the sample streams, their truths and the reference, byte for byte the same each time.

`python sample_streams/generate.py [FOLDER]` writes to this folder, or to FOLDER.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from detectors import simulate
from detectors.simulate import Schedule, Stream, Truth

INTERVAL_S = 60
REFERENCE_START_S = datetime(2025, 3, 3, tzinfo=UTC).timestamp()
LOGGED_ROWS = 40
REFERENCE_ROWS = 7 * 24 * 60  # a week at one event a minute
STREAM_START_S = REFERENCE_START_S + REFERENCE_ROWS * INTERVAL_S  # the streams go on where the reference ends
REGIONS = ("north", "south", "east", "west", "islands")
CORRELATION = 0.6  # of age and income
DECIMALS = {"time": 0, "age": 1, "income": 2, "spend": 2, "tenure": 0, "prediction": 3}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What makes a stream: its name, its length in rows, the seed and what shall be true of it."""

    name: str
    rows: int
    seed: int
    truth: Truth | None


STEP = Schedule("abrupt", 1500, 3500)
RECIPES = (
    Recipe("no_drift", 4000, 1, None),
    Recipe("abrupt_mean", 5000, 2, Truth(Schedule("abrupt", 1500, 3000), "mean", ("age",))),
    Recipe("gradual_mean", 4000, 3, Truth(Schedule("gradual", 1000, 4000, ramp_rows=2000), "mean", ("age",))),
    Recipe("incremental_mean", 4000, 4, Truth(Schedule("incremental", 1000, 4000, ramp_rows=2000), "mean", ("age",))),
    Recipe(
        "recurring_mean",
        5000,
        5,
        Truth(Schedule("recurring", 1000, 5000, on_rows=500, off_rows=1500), "mean", ("age",)),
    ),
    Recipe("variance", 3500, 6, Truth(STEP, "variance", ("age",))),
    Recipe("tail", 3500, 11, Truth(STEP, "tail", ("income",))),
    Recipe("new_category", 3500, 8, Truth(STEP, "category", ("region",))),
    Recipe("missing", 3500, 9, Truth(STEP, "missing", ("income",))),
    Recipe("correlation", 3500, 10, Truth(STEP, "correlation", ("age", "income"))),
)


def stream(n: int, seed: int, start_s: float, truth: Truth | None) -> Stream:
    """n rows of a made-up credit model with the drift that the truth describes.

    The prediction depends on tenure alone, which never drifts, so that the truth names all that does.
    """
    rng = np.random.default_rng(seed)
    pair = simulate.latent(n, 2, rng, correlation=CORRELATION)
    spend, region, tenure, noise = simulate.latent(n, 4, rng).T
    drifted = np.zeros(n) if truth is None else truth.schedule.intensity(n, rng)
    change = None if truth is None else truth.change
    if change == "correlation":
        pair[:, 1] = simulate.recorrelate(pair[:, 0], pair[:, 1], drifted, before=CORRELATION, after=0.0)
    columns = {
        "age": simulate.normal(pair[:, 0], mean=42, sd=12),
        "income": simulate.lognormal(pair[:, 1], median=32, sigma=0.5),
        "spend": simulate.zero_inflated(spend, zeros=0.6, median=9, sigma=0.9),
        "tenure": simulate.integer(tenure, median=14, sigma=0.8),
        "region": simulate.category(region, names=REGIONS),
        "prediction": 1 / (1 + np.exp(0.9 * tenure + 0.5 * noise + 1.5)),
    }
    if change == "mean":
        columns["age"] = simulate.shift_mean(columns["age"], drifted, by=9)
    elif change == "variance":
        columns["age"] = simulate.scale_spread(columns["age"], drifted, centre=42, factor=1.6)
    elif change == "tail":
        columns["income"] = simulate.stretch_tail(columns["income"], drifted, above=65, factor=8)
    elif change == "category":
        columns["region"] = simulate.add_category(columns["region"], drifted, rng, name="offshore", share=0.08)
    elif change == "missing":
        columns["income"] = simulate.drop_values(columns["income"], drifted, rng, share=0.15)
    return Stream(columns, simulate.times(n, start_s=start_s, interval_s=INTERVAL_S), truth)


def rows(stream: Stream) -> Iterator[dict[str, float | str | None]]:
    """The rows with rounded numbers, in the order of the columns; a missing value is None."""
    columns = {
        name: [
            value if isinstance(value, str) else None if np.isnan(value) else rounded(value, DECIMALS[name])
            for value in values.tolist()
        ]
        for name, values in {"time": stream.times_s, **stream.columns}.items()
    }
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def rounded(value: float, decimals: int) -> float:
    """The value with so many decimals; without any, as an int."""
    return round(value, decimals) if decimals else round(value)


def event_lines(stream: Stream) -> Iterator[str]:
    """The stream as prediction events, one JSON document a line."""
    for number, row in enumerate(rows(stream)):
        time, prediction = row.pop("time"), row.pop("prediction")
        event = {"id": f"{number:04d}", "time": time, "features": row, "prediction": prediction}
        yield json.dumps(event, separators=(",", ":"))


def csv_lines(stream: Stream) -> Iterator[str]:
    """The stream as CSV with a header; no value holds a comma or a quote."""
    for number, row in enumerate(rows(stream)):
        if number == 0:
            yield ",".join(row)
        yield ",".join("" if value is None else str(value) for value in row.values())


def truth_document(stream: Stream) -> dict[str, object]:
    """The truth with its intervals in rows (the first that drifts, the first that no longer does) and in time."""
    truth = stream.truth
    if truth is None:
        return {"shape": None, "change": None, "features": [], "ramp_rows": 0, "intervals": []}
    intervals = [
        {"start_row": start, "end_row": end, "start": event_time(start), "end": event_time(end)}
        for start, end in truth.schedule.intervals()
    ]
    return {
        "shape": truth.schedule.shape,
        "change": truth.change,
        "features": list(truth.features),
        "ramp_rows": truth.schedule.ramp_rows,
        "intervals": intervals,
    }


def event_time(row: int) -> str:
    """RFC 3339 of a row of a stream."""
    return datetime.fromtimestamp(STREAM_START_S + row * INTERVAL_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def logged(stream: Stream, n: int) -> bytes:
    """The first n rows as the logger of a KServe pod posts them, one HTTP request after the other.

    Two a row: what the model was asked and what it answered, under one `Ce-Id`. The first half of the rows speaks the
    V1 protocol, the rest V2; of every fourth row the answer comes before the question.
    """
    posts: list[bytes] = []
    for number, row in zip(range(n), rows(stream), strict=False):
        time, prediction = float(row.pop("time") or 0), row.pop("prediction")
        asked: dict[str, object] = {"instances": [row]}
        answered: dict[str, object] = {"predictions": [prediction]}
        if number >= n // 2:
            asked = {"inputs": [tensor(name, value) for name, value in row.items()]}
            answered = {"model_name": "credit", "outputs": [tensor("predict", prediction)]}
        pair = [post(number, time, "request", asked), post(number, time, "response", answered)]
        posts += pair[::-1] if number % 4 == 3 else pair
    return b"".join(posts)


def tensor(name: str, value: float | str | None) -> dict[str, object]:
    """A V2 tensor of one value."""
    return {"name": name, "shape": [1, 1], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value]}


def post(number: int, time_s: float, kind: str, document: dict[str, object]) -> bytes:
    """One HTTP request of the logger: a binary CloudEvent."""
    body = json.dumps(document, separators=(",", ":")).encode()
    stamp = datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    headers = {
        "Host": "driftwatch.default",
        "User-Agent": "Go-http-client/1.1",
        "Content-Length": len(body),
        "Ce-Component": "predictor",
        "Ce-Endpoint": "",
        "Ce-Id": f"{number:04d}",
        "Ce-Inferenceservicename": "credit",
        "Ce-Metadata": "{}",
        "Ce-Namespace": "default",
        "Ce-Source": "http://localhost:9081/",
        "Ce-Specversion": "1.0",
        "Ce-Time": f"{stamp}.123456789Z" if kind == "response" else f"{stamp}Z",
        "Ce-Type": f"org.kubeflow.serving.inference.{kind}",
        "Content-Type": "application/json",
        "Accept-Encoding": "gzip",
    }
    lines = ["POST / HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def write(folder: Path) -> None:
    """Write every file that is generated into the folder."""
    reference = stream(REFERENCE_ROWS, 0, REFERENCE_START_S, None)
    write_lines(folder / "reference.csv", csv_lines(reference))
    for recipe in RECIPES:
        made = stream(recipe.rows, recipe.seed, STREAM_START_S, recipe.truth)
        write_lines(folder / f"{recipe.name}.jsonl", event_lines(made))
        write_lines(folder / f"{recipe.name}.truth.json", [json.dumps(truth_document(made), indent=2)])
        if recipe.name == "no_drift":
            (folder / "kserve_logger.http").write_bytes(logged(made, LOGGED_ROWS))


def write_lines(path: Path, lines: Iterator[str] | list[str]) -> None:
    """UTF-8 with line feeds on every platform."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
