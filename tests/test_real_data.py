"""Real data with known truth; it is not part of the repository, and what needs it is skipped where it is absent."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.real_data import CAR_LOAN_FEATURES
from detectors import calibration
from driftwatch import app, config, profiles
from driftwatch.decision import Decision, decode

MAY_9 = datetime(2021, 5, 9, tzinfo=UTC)


class Kept:
    """A sink that keeps decisions as they are read back from their lines."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def write(self, decision: Decision, line: bytes) -> None:
        self.decisions.append(decode(line))


def unpacked(folder: Path, name: str) -> list[str]:
    """A compressed CSV's lines without quotes, its header first; skips the test where it is absent."""
    path = folder / name
    if not path.exists():
        pytest.skip(f"{name} is not here: DRIFTWATCH_TEST_DATA names the folder of real data")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().replace('"', "").splitlines()


def replay(folder: Path, stream: list[str], reference: list[str], **settings: Any) -> list[Decision]:
    """The decisions on a CSV stream beside a CSV reference. Thresholds come of fewer draws, for the sake of time."""
    for name, lines in (("stream.csv", stream), ("reference.csv", reference)):
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    path = folder / "config.yaml"
    whole = {
        "model": {"name": "m", "version": "1"},
        "reference": {"profile": "reference.profile"},
        "alarms": {"budget": "1 per 100 windows"},
        **settings,
    }
    path.write_text(json.dumps(whole), "utf-8")
    loaded = config.load(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "DRAWS_FIT", 1000)
        patch.setattr(calibration, "DRAWS_THRESHOLD", 4000)
        made = profiles.build_profile(loaded, folder / "reference.csv")
    (folder / "reference.profile").write_bytes(made.to_bytes())
    sink = Kept()
    app.replay(loaded, path, [folder / "stream.csv"], sink, lambda n: None)
    return sink.decisions


def opened(decisions: list[Decision]) -> list[int]:
    return [i for i, d in enumerate(decisions) if any(a.transition == "opened" for a in d.alarms)]


def test_occupancy_alarms_name_co2_and_temperature(data_folder: Path, tmp_path: Path) -> None:
    header, *rows = unpacked(data_folder / "occupancy", "occupancy.csv.gz")
    assert header.endswith(",time")
    written = [row.rpartition(",") for row in rows]  # times are written 3/30/2021 0:12
    timed = [(datetime.strptime(time, "%m/%d/%Y %H:%M").replace(tzinfo=UTC), row) for row, _, time in written]
    reference, stream = ([f"{row},{t.isoformat()}" for t, row in timed if (t < MAY_9) == old] for old in (True, False))
    assert len(reference) == 16_091
    decisions = replay(
        tmp_path,
        [header, *stream],
        [header, *reference],
        events={"features": {"co2": "numeric", "temperature": "numeric"}},
        window={"length": "1d"},
    )
    named = {f.feature for d in decisions for a in d.alarms for f in a.features}
    assert opened(decisions)
    assert {"co2", "temperature"} <= named


def test_car_loan_alarms_open_with_the_drift_and_not_before(data_folder: Path, tmp_path: Path) -> None:
    folder = data_folder / "car_loan"
    decisions = replay(
        tmp_path,
        unpacked(folder, "car_loan_analysis.csv.gz"),
        unpacked(folder, "car_loan_reference.csv.gz"),
        events={
            "time": "timestamp",
            "features": CAR_LOAN_FEATURES,
            "prediction": {"name": "y_pred_proba", "kind": "probability"},
        },
        window={"count": 5000},
    )
    assert len(decisions) == 10
    assert opened(decisions) == [5]
    named = {f.feature for d in decisions for a in d.alarms for f in a.features}
    assert "size_of_downpayment" not in named


def test_elec2_is_replayed_to_its_end(data_folder: Path, tmp_path: Path) -> None:
    header, *rows = unpacked(data_folder / "elec2", "electricity-normalized.csv.gz")
    timed = [f"{60 * 30 * i},{row}" for i, row in enumerate(rows)]
    names = [name for name in header.split(",") if name not in {"date", "class", "period", "day"}]
    decisions = replay(
        tmp_path,
        ["time," + header, *timed[10_000:]],
        ["time," + header, *timed[:10_000]],
        events={"features": dict.fromkeys(names, "numeric")},
        window={"count": 1344},
    )
    assert sum(d.window.n_records for d in decisions) == len(rows) - 10_000
    assert {d.verdict for d in decisions} <= {"ok", "drift", "undetermined"}
