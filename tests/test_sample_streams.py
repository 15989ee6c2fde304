"""The sample streams are what their generator writes, and what their truths say."""

import csv
import hashlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp, spearmanr

from detectors.two_sample.exact_mmd import mmd
from driftwatch.config import load
from driftwatch.decode.bodies import BodyDecoder
from driftwatch.decode.json import JsonDecoder
from driftwatch.halves import Halves
from driftwatch.records import Frames, Shard
from driftwatch.sources.ingest import IngestServer, Intake, Terms
from driftwatch.sources.spool import Spool

FOLDER = Path(__file__).parents[1] / "sample_streams"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
NUMERIC = ("age", "income", "spend", "tenure", "prediction")
WINDOW = 500


def digests(folder: Path) -> dict[str, str]:
    generated = [path for path in folder.iterdir() if path.suffix in {".jsonl", ".json", ".csv", ".http"}]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in generated}


def events(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]


def truth(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.truth.json").read_text("utf-8"))
    return document


def columns(name: str) -> dict[str, np.ndarray]:
    """Every column of a stream; missing is NaN, or the text `None`."""
    flat = [{**event["features"], "prediction": event["prediction"]} for event in events(name)]
    numeric = {key: np.array([row[key] for row in flat], np.float64) for key in NUMERIC}
    return {**numeric, "region": np.array([str(row["region"]) for row in flat])}


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with (FOLDER / "reference.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numeric = {key: np.array([row[key] for row in rows], np.float64) for key in NUMERIC}
    return {**numeric, "region": np.array([row["region"] for row in rows])}


def p_value(feature: str, reference: np.ndarray, current: np.ndarray) -> float:
    """Of the two marginals; missing numbers make a category of their own."""
    if feature != "region" and not np.isnan(current).any():
        return float(ks_2samp(reference, current).pvalue)
    if feature != "region":
        table = [[np.isnan(values).sum(), (~np.isnan(values)).sum()] for values in (reference, current)]
    else:
        categories = np.union1d(reference, current)
        table = [[(values == category).sum() for category in categories] for values in (reference, current)]
    return float(chi2_contingency(table).pvalue)


def test_the_generator_writes_the_same_files_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(FOLDER / "generate.py"), str(tmp_path)], check=True)
    written = digests(tmp_path)
    assert written == digests(FOLDER)
    assert len(written) == 2 * 10 + 2


def test_the_loggers_requests_are_the_rows_of_the_stream_without_drift(tmp_path: Path) -> None:
    schema = load(FOLDER / "config.yaml").event_schema()
    spool = Spool(tmp_path, position=0, max_bytes=2**30)
    intake = Intake(spool, Terms(), on_trouble=lambda t: None, on_answers=lambda n: None, on_shed=lambda: None)
    server = IngestServer("127.0.0.1", 0, intake)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall((FOLDER / "kserve_logger.http").read_bytes())
            client.shutdown(socket.SHUT_WR)
            answers = b"".join(iter(lambda: client.recv(65_536), b""))
    finally:
        server.close()
    entries = spool.read(0, most=1000, most_bytes=2**30)
    spool.close()
    assert answers.count(b"HTTP/1.1 200 OK") == len(entries) == 80
    frames = Frames(
        Shard("http"),
        [entry.body for entry in entries],
        np.array([*(entry.position for entry in entries), entries[-1].end]),
        np.array([entry.arrived_s for entry in entries]),
        [entry.headers for entry in entries],
    )
    found = BodyDecoder(schema, Halves(60.0)).decode(frames)
    assert (found.poison, found.discarded) == ((), {})
    messages = [json.dumps(event).encode() for event in events("no_drift")[:40]]
    want = JsonDecoder(schema).decode(Frames(Shard("file"), messages, np.arange(41)))
    order = np.argsort(found.records.ids)
    assert [found.records.ids[i] for i in order] == want.records.ids
    assert found.records.times_s[order].tolist() == want.records.times_s.tolist()
    assert found.records.numeric[order].tolist() == want.records.numeric.tolist()
    assert [found.records.categories[0][i] for i in order] == want.records.categories[0]


def test_the_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 6_000_000


def test_there_is_a_stream_of_each_shape_and_change() -> None:
    truths = [truth(name) for name in NAMES]
    assert {t["shape"] for t in truths} == {None, "abrupt", "gradual", "incremental", "recurring"}
    assert {t["change"] for t in truths} == {None, "mean", "variance", "tail", "category", "missing", "correlation"}


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_distinct_and_times_go_on_every_minute_after_the_reference(name: str) -> None:
    stream = events(name)
    last = (FOLDER / "reference.csv").read_text("utf-8").splitlines()[-1]
    assert len({event["id"] for event in stream}) == len(stream)
    times = [int(last.split(",")[0]), *(event["time"] for event in stream)]
    assert set(np.diff(times).tolist()) == {60}


@pytest.mark.parametrize("name", NAMES)
def test_the_intervals_in_time_are_those_in_rows(name: str) -> None:
    stream = events(name)
    for interval in truth(name)["intervals"]:
        for edge in ("start", "end"):
            moment = np.datetime64(interval[edge].removesuffix("Z"), "s").astype(np.int64)
            assert moment == stream[0]["time"] + 60 * interval[f"{edge}_row"]
        assert 0 <= interval["start_row"] < interval["end_row"] <= len(stream)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_truth_does_not_name_looks_like_the_reference(name: str, reference: dict[str, np.ndarray]) -> None:
    stream, told = columns(name), truth(name)
    drifted = np.zeros(len(stream["age"]), bool)
    for interval in told["intervals"]:
        drifted[interval["start_row"] : interval["end_row"]] = True
    for feature, values in stream.items():
        untouched = values[~drifted] if feature in told["features"] and told["change"] != "correlation" else values
        for start in range(0, len(untouched), WINDOW):
            assert p_value(feature, reference[feature], untouched[start : start + WINDOW]) > 1e-3


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"no_drift", "correlation"}])
def test_the_last_window_of_each_drift_shows_it_in_the_feature_named(
    name: str, reference: dict[str, np.ndarray]
) -> None:
    stream, told = columns(name), truth(name)
    (feature,) = told["features"]
    for interval in told["intervals"]:
        window = slice(interval["end_row"] - WINDOW, interval["end_row"])
        current, base = stream[feature][window], reference[feature]
        if told["change"] == "tail":
            above = np.quantile(base, 0.99)
            assert (current > above).mean() > 0.04
        else:
            assert p_value(feature, base, current) < 1e-5


def test_gradual_and_incremental_drift_differ_in_how_single_rows_move() -> None:
    # half way a gradual drift is a mixture of two laws, wider than either; an incremental one has moved as a whole
    spread = {name: columns(name)["age"][1750:2250].std() for name in ("gradual_mean", "incremental_mean")}
    centre = {name: columns(name)["age"][1750:2250].mean() for name in ("gradual_mean", "incremental_mean")}
    assert abs(centre["gradual_mean"] - centre["incremental_mean"]) < 2
    assert spread["gradual_mean"] > spread["incremental_mean"]


def test_the_correlation_goes_and_only_joint_statistics_see_it(reference: dict[str, np.ndarray]) -> None:
    stream = columns("correlation")
    (interval,) = truth("correlation")["intervals"]
    before, after = slice(interval["start_row"]), slice(interval["start_row"], interval["end_row"])
    assert spearmanr(stream["age"][before], stream["income"][before]).statistic == pytest.approx(0.58, abs=0.06)
    assert abs(spearmanr(stream["age"][after], stream["income"][after]).statistic) < 0.1

    def standardised(data: dict[str, np.ndarray], rows: slice) -> np.ndarray:
        z = [(values - reference[key].mean()) / reference[key].std() for key, values in data.items() if key in pair]
        return np.column_stack(z)[rows]

    pair = ("age", "income")
    base = standardised(reference, slice(1500))
    assert (mmd(base, standardised(stream, slice(0, 500)), permutations=199).p_value or 0) > 0.01
    assert mmd(base, standardised(stream, slice(1500, 2000)), permutations=199).p_value == 1 / 200


def test_the_config_is_valid_and_names_the_columns_of_the_reference() -> None:
    config = load(FOLDER / "config.yaml")
    assert config.window.count == WINDOW
    header = (FOLDER / "reference.csv").read_text("utf-8").split("\n", 1)[0].split(",")
    assert [column.name for column in config.event_schema().columns] == header[1:]
