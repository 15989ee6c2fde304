"""Published data with labels through the sidecar's own commands: a profile, then a replay of predictions and labels."""

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks import document
from benchmarks.real_data import CAR_LOAN_FEATURES

START = 1_600_000_000  # epoch seconds of the first row of the reference; one row a second from there
LATE_S = 1800.0  # a label comes so long after its prediction, on average
BUDGET = "1 per 100 windows"

Frames = tuple[pd.DataFrame, pd.DataFrame]  # reference and later rows, both with labels


@dataclass(frozen=True)
class Case:
    """A data set: its columns, the rows of a window, and the windows in which its performance really changes."""

    name: str
    features: Mapping[str, str]
    prediction: Mapping[str, str]
    label: Mapping[str, str]
    n_window: int
    fallen: frozenset[int] = frozenset()

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration."""
        return {
            "model": {"name": self.name, "version": "1"},
            "events": {
                "features": dict(self.features),
                "prediction": dict(self.prediction),
                "label": {**self.label, "wait": "1d"},
            },
            "reference": {"profile": "reference.profile"},
            "window": {"count": self.n_window},
            "alarms": {"budget": BUDGET},
        }


def _table(wheel: Path, name: str) -> pd.DataFrame:
    with zipfile.ZipFile(wheel) as archive:
        held = io.BytesIO(archive.read(f"nannyml/datasets/data/{name}"))
    return pd.read_parquet(held) if name.endswith(".pq") else pd.read_csv(held)


def employment(wheel: Path) -> Frames:
    """Who is employed, of Massachusetts: 2015 is the reference."""
    reference, later, truth = (
        _table(wheel, f"employment_MA_{part}.pq") for part in ("reference", "analysis", "analysis_target")
    )
    return reference, later.merge(truth, on="id")


def prices(wheel: Path) -> Frames:
    """Prices of used cars."""
    reference, later, truth = (
        _table(wheel, f"regression_synthetic_{part}.csv") for part in ("reference", "analysis", "analysis_targets")
    )
    return reference, later.merge(truth, on="id")


def loans(folder: Path) -> Frames:
    """Car loans; from row 25,000 on they change."""
    reference, later, truth = (
        pd.read_csv(folder / f"car_loan_{part}.csv.gz", dtype={"repaid_loan_on_prev_car": str})
        for part in ("reference", "analysis", "analysis_target")
    )
    return reference.astype({"repaid": int}), later.merge(truth, on="id")


HOUSEHOLD = ("SCHL", "MAR", "RELP", "ESP", "MIG", "MIL")  # names of the American Community Survey
PERSON = ("DIS", "CIT", "ANC", "NATIVITY", "DEAR", "DEYE", "DREM", "SEX", "RAC1P")
EMPLOYMENT = Case(
    "employment",
    {"AGEP": "numeric", **dict.fromkeys((*HOUSEHOLD, *PERSON), "categorical")},
    {"name": "predicted_probability", "kind": "probability"},
    {"name": "employed", "kind": "binary"},
    5000,
    frozenset({27, 28}),
)
LOANS = Case(
    "car_loan",
    CAR_LOAN_FEATURES,
    {"name": "y_pred_proba", "kind": "probability"},
    {"name": "repaid", "kind": "binary"},
    5000,
)
PRICES = Case(
    "used_cars",
    {
        **dict.fromkeys(("car_age", "km_driven", "price_new", "accident_count", "door_count"), "numeric"),
        **dict.fromkeys(("fuel", "transmission"), "categorical"),
    },
    {"name": "y_pred", "kind": "numeric"},
    {"name": "y_true", "kind": "numeric"},
    6000,
)


def decisions(case: Case, frames: Frames) -> list[dict[str, Any]]:
    """What `driftwatch profile` and `driftwatch replay PREDICTIONS LABELS --json` say."""
    reference, later = frames
    label, said = case.label["name"], case.prediction["name"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = START + np.arange(len(reference) + len(later), dtype=np.float64)
        columns = [*case.features, said]
        reference[[*columns, label]].assign(time=times[: len(reference)]).to_csv(folder / "reference.csv", index=False)
        times = times[len(reference) :]
        rows = later.assign(time=times, id=np.arange(len(later)))
        rows[["id", "time", *columns]].to_csv(folder / "predictions.csv", index=False)
        known = rows.assign(time=times + np.random.default_rng(0).exponential(LATE_S, len(later)).round(3))
        known.sort_values("time")[["id", "time", label]].to_csv(folder / "labels.csv", index=False)
        (folder / "config.yaml").write_text(yaml.safe_dump(case.settings, sort_keys=False), "utf-8")
        driftwatch = [sys.executable, "-m", "driftwatch"]
        subprocess.run(
            [*driftwatch, "profile", "reference.csv", "-c", "config.yaml", "-o", "reference.profile"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        replayed = subprocess.run(
            [*driftwatch, "replay", "predictions.csv", "labels.csv", "-c", "config.yaml", "--json"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
    return [json.loads(line) for line in replayed.stdout.splitlines()]


def whole(found: Sequence[Mapping[str, Any]], n_window: int) -> list[Mapping[str, Any]]:
    """The second judgements of whole windows, in their order."""
    return [d for d in found if d["revision"] == 1 and d["window"]["n_records"] == n_window]


def lines(decision: Mapping[str, Any]) -> dict[str, Any]:
    """What the labels said, by the name of the figure; each with its estimate."""
    return {line["metric"]: line for line in decision["performance"] if line["source"] == "labels"}


def apart(found: Sequence[Mapping[str, Any]], metrics: Sequence[str], *, relative: bool) -> str:
    """How far the estimates were from what the labels said, a row for each metric."""
    body = []
    for metric in metrics:
        estimate, realised = (np.array([lines(d)[metric][side] for d in found]) for side in ("estimate", "value"))
        error = np.abs(estimate - realised) / (realised if relative else 1)
        text = "{:.1%}" if relative else "{:.4f}"
        span = f"{realised.min():.4g} to {realised.max():.4g}"
        body.append([metric, span, text.format(error.mean()), text.format(error.max())])
    return document.table(["metric", "realised", "mean error", "largest error"], body)


def alarmed(case: Case, found: Sequence[Mapping[str, Any]]) -> str:
    """Windows whose loss is in drift, beside those in which the area under the ROC curve really falls."""
    body = []
    for i, decision in enumerate(found):
        realised = lines(decision)
        if realised["roc_auc"]["verdict"] == "drift" or i in case.fallen:
            kinds = [f"{a['transition']} ({a['kind']})" for a in decision["alarms"] if a["class"] == "performance"]
            figures = [f"{realised[m]['value']:.4f} ({realised[m]['reference']:.4f})" for m in ("roc_auc", "brier")]
            row = [str(i + 1), *figures, "yes" if i in case.fallen else "no", realised["roc_auc"]["verdict"]]
            body.append([*row, ", ".join(kinds) or "–"])
    head = ["window", "ROC AUC (reference)", "Brier (reference)", "falls", "loss", "alarm of class performance"]
    return document.table(head, body)


def section(folder: Path, wheel: Path) -> list[str]:
    """The paragraphs on what the commands say."""
    found = {
        case.name: (case, whole(decisions(case, frames), case.n_window))
        for case, frames in (
            (EMPLOYMENT, employment(wheel)),
            (LOANS, loans(folder)),
            (PRICES, prices(wheel)),
        )
    }
    of_jobs, of_loans, of_cars = (found[case.name][1] for case in (EMPLOYMENT, LOANS, PRICES))
    return [
        "## Through the sidecar's own commands, with late labels",
        "`driftwatch profile` on the reference, then `driftwatch replay PREDICTIONS LABELS`; a label comes half an "
        f"hour (1,800 rows) after its prediction on average, `wait: 1d`, budget {BUDGET}. The labels' figures are of "
        "the 95 to 100 % of a window's rows whose label came in time; the estimate is that of the same decision. Whole "
        "windows only.",
        f"**Employment** in Massachusetts (NannyML's wheel), {len(of_jobs)} windows of {EMPLOYMENT.n_window:,} after "
        "2015. The labels' share moves from 50 to 53 % from window 15 on, for which an alarm of class `drift` is open; "
        "performance falls in windows 28 and 29 alone. Every window whose loss is in drift, and those two:",
        alarmed(EMPLOYMENT, of_jobs),
        apart(of_jobs, ("roc_auc", "accuracy", "brier"), relative=False),
        f"**Car loans**, {len(of_loans)} windows of {LOANS.n_window:,}; the loss is in drift in windows "
        f"{drifting(of_loans)}:",
        apart(of_loans, ("roc_auc", "accuracy", "brier"), relative=False),
        f"**Used-car prices**, {len(of_cars)} windows of {PRICES.n_window:,} (errors relative); the loss is in drift "
        f"in windows {drifting(of_cars)}:",
        apart(of_cars, ("mae", "rmse"), relative=True),
    ]


def drifting(found: Sequence[Mapping[str, Any]]) -> str:
    """The windows whose loss is in drift."""
    return ", ".join(str(i + 1) for i, d in enumerate(found) if any(v["verdict"] == "drift" for v in lines(d).values()))
