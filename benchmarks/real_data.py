"""Decisions on public data with known truth.

`DRIFTWATCH_TEST_DATA=FOLDER python -m benchmarks.real_data` writes docs/real_data.md. FOLDER holds
occupancy/occupancy.csv.gz, elec2/electricity-normalized.csv.gz and car_loan/car_loan_{reference,analysis}.csv.gz.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from benchmarks import document
from driftwatch import app, config, profiles
from driftwatch.decision import Decision
from driftwatch.progress import record_bar, share_bar

VARIABLE = "DRIFTWATCH_TEST_DATA"


@dataclass(frozen=True, slots=True)
class Case:
    """One data set: how it is split into reference and events, what is configured, what is true of it."""

    name: str
    read: Callable[[Path], tuple[pd.DataFrame, pd.DataFrame]]
    settings: Mapping[str, Any]
    truth: str
    holds: Callable[[Sequence[Decision]], bool]


@dataclass
class Collected:
    """A sink that keeps decisions."""

    decisions: list[Decision] = field(default_factory=list)

    def write(self, decision: Decision, line: bytes) -> None:
        """Keeps it."""
        self.decisions.append(decision)


def occupancy(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sensors of a building, one row every three or four minutes."""
    rows = pd.read_csv(folder / "occupancy" / "occupancy.csv.gz", index_col=0)
    rows["time"] = pd.to_datetime(rows["time"], format="%m/%d/%Y %H:%M", utc=True)
    rows = rows.sort_values("time", kind="stable")
    before = rows["time"] < pd.Timestamp("2021-05-09", tz="UTC")
    return rows[before], rows[~before]


def elec2(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Half-hourly electricity prices from 7 May 1996 on; the first year is the reference."""
    rows = pd.read_csv(folder / "elec2" / "electricity-normalized.csv.gz")
    day = np.arange(len(rows)) // 48
    half_hours = np.rint(rows["period"] * 47).astype(int)
    rows["time"] = pd.Timestamp("1996-05-07", tz="UTC") + pd.to_timedelta(day * 48 + half_hours, unit="h") / 2
    return rows[day < 365], rows[day >= 365]


def car_loan(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Loans with model scores; the analysis part changes at its row 25,000."""
    reference, analysis = (
        pd.read_csv(folder / "car_loan" / f"car_loan_{part}.csv.gz", dtype={"repaid_loan_on_prev_car": str})
        for part in ("reference", "analysis")
    )
    for rows in (reference, analysis):
        rows["time"] = pd.to_datetime(rows.pop("timestamp"), utc=True)
    return reference, analysis


def opened(decisions: Sequence[Decision]) -> list[tuple[int, list[str]]]:
    """(window, features) of every alarm that opened."""
    return [
        (i, [f.feature for f in alarm.features])
        for i, d in enumerate(decisions)
        for alarm in d.alarms
        if alarm.transition == "opened"
    ]


def drifting(decisions: Sequence[Decision]) -> set[str | None]:
    """Every feature that drifted in some window."""
    return {s.feature for d in decisions for s in d.scores if s.verdict == "drift"}


def named(decisions: Sequence[Decision]) -> set[str]:
    """Every feature that an alarm named when it opened."""
    return {feature for _, features in opened(decisions) for feature in features}


CAR_LOAN_FEATURES = {
    "car_value": "numeric",
    "salary_range": "categorical",
    "debt_to_income_ratio": "numeric",
    "loan_length": "numeric",
    "repaid_loan_on_prev_car": "categorical",
    "size_of_downpayment": "categorical",
    "driver_tenure": "numeric",
}
CASES = (
    Case(
        "occupancy",
        occupancy,
        {
            "events": {"features": {"co2": "numeric", "temperature": "numeric", "measured": "categorical"}},
            "window": {"length": "1d"},
            "alarms": {"budget": "1 per 90d"},
        },
        "co2 and temperature change, measured does not",
        lambda decisions: {"co2", "temperature"} <= named(decisions) and "measured" not in drifting(decisions),
    ),
    Case(
        "elec2",
        elec2,
        {
            "events": {
                "features": dict.fromkeys(("nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"), "numeric"),
                "prediction": {"name": "class", "kind": "categorical", "path": "class"},
            },
            "window": {"length": "7d"},
            "alarms": {"budget": "1 per 365d"},
        },
        "no labelled drift; vicprice, vicdemand and transfer are constants for the first year, then move",
        lambda decisions: {"vicprice", "vicdemand", "transfer"} & named(decisions) != set(),
    ),
    Case(
        "car_loan",
        car_loan,
        {
            "events": {
                "features": CAR_LOAN_FEATURES,
                "prediction": {"name": "y_pred_proba", "kind": "probability"},
            },
            "window": {"count": 5000},
            "alarms": {"budget": "1 per 100 windows"},
        },
        "nothing before row 25,000 (the first five windows), an alarm in the sixth",
        lambda decisions: [i for i, _ in opened(decisions)][:1] == [5],
    ),
)


def judge(case: Case, data: Path) -> list[Decision]:
    """Profiles the reference and replays the events as the command line does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference, events = case.read(data)
        reference.to_csv(folder / "reference.csv", index=False, date_format="%Y-%m-%dT%H:%M:%SZ")
        events.to_csv(folder / "events.csv", index=False, date_format="%Y-%m-%dT%H:%M:%SZ")
        settings = {
            "model": {"name": case.name, "version": "1"},
            "reference": {"profile": "reference.profile"},
            **case.settings,
        }
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
        read = config.load(path)
        with share_bar(f"{case.name}: profile") as told:
            made = profiles.build_profile(read, folder / "reference.csv", told)
        for warning in profiles.warnings(made, read):
            tqdm.write(f"{case.name}: {warning}", file=sys.stderr)
        (folder / "reference.profile").write_bytes(made.to_bytes())
        sink = Collected()
        with record_bar(f"{case.name}: replay") as counted:
            app.replay(read, path, [folder / "events.csv"], sink, counted)
        return sink.decisions


def row(case: Case, decisions: Sequence[Decision]) -> list[str]:
    """A row of the table."""
    verdicts = [d.verdict for d in decisions]
    alarms = "; ".join(f"window {i + 1} ({', '.join(features)})" for i, features in opened(decisions)[:3])
    return [
        case.name,
        f"{len(decisions)}, {verdicts.count('drift')}, {verdicts.count('undetermined')}",
        f"{len(opened(decisions))}: {alarms}" if alarms else "none",
        case.truth,
        "yes" if case.holds(decisions) else "**no**",
    ]


def main() -> None:
    """Judges, prints, writes the document."""
    document.parser(__doc__).parse_args()
    place = os.environ.get(VARIABLE)
    if place is None:
        print(f"skipped: `{VARIABLE}` must name the folder of the data sets; got nothing. Set it.", file=sys.stderr)
        return
    rows = [row(case, judge(case, Path(place))) for case in CASES]
    head = ["data", "windows, in drift, undetermined", "alarms opened", "what is known", "holds"]
    settings = [f"{case.name}:\n\n```yaml\n{yaml.safe_dump(dict(case.settings), sort_keys=False)}```" for case in CASES]
    text = [
        "An alarm opens naming the features in drift, then those in caution; `holds` is about windows in drift and "
        "alarms that open.",
        document.table(head, rows),
        "The configurations, beside model and reference:",
        *settings,
    ]
    print("\n\n".join(text))
    document.write("real_data", "Decisions on public data", f"{VARIABLE}=FOLDER {document.command()}", text)


if __name__ == "__main__":
    main()
