"""The demo's made-up service: applications for credit with their scores, and a recession that drifts them.

Twelve features as a lender has them: amounts with a long tail, years of which many are zero, counts with ties, codes
of few and of many values, a flag. Nothing is random but by the seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from detectors import simulate

Kind = Literal["numeric", "categorical"]

FEATURES: dict[str, Kind] = {
    "age": "numeric",
    "income": "numeric",
    "employment_years": "numeric",
    "loan_amount": "numeric",
    "debt_ratio": "numeric",
    "accounts": "numeric",
    "previous_defaults": "numeric",
    "is_homeowner": "categorical",
    "region": "categorical",
    "employment": "categorical",
    "channel": "categorical",
    "purpose": "categorical",
}
SCORE = "score"

DRIFTED = ("income", "channel", "debt_ratio")
DRIFT_IN_WORDS = "incomes fall by a quarter, a new channel appears, debt_ratio gets lost"
INCOME_FACTOR = 0.75
NEW_CHANNEL, NEW_CHANNEL_SHARE = "comparison_site", 0.08
MISSING_BEFORE, MISSING_ADDED = 0.01, 0.15

REGIONS = ("north", "east", "south", "west", "coast", "lakes", "hills", "islands")
EMPLOYMENT = ("permanent", "self_employed", "temporary", "retired", "student")
CHANNELS = ("web", "app", "branch", "phone")
HOUSE_PURPOSES = ("kitchen", "bathroom", "furniture", "solar", "roof")
PURPOSES = ("car", *HOUSE_PURPOSES, "debt", "medical", "wedding", "education", "travel", "boat", "business", "other")


@dataclass(frozen=True, slots=True)
class Applications:
    """Applications in the order of time. NaN in a numeric column is missing."""

    columns: dict[str, np.ndarray]
    times_s: np.ndarray  # (n,): epoch seconds
    first_id: int

    def lines(self) -> Iterator[bytes]:
        """Each as a prediction event, one JSON object a line."""
        names = list(FEATURES)
        rows = zip(*(self.columns[name].tolist() for name in names), strict=True)
        scores, times = self.columns[SCORE].tolist(), self.times_s.tolist()
        for i, (row, score, time_s) in enumerate(zip(rows, scores, times, strict=True), self.first_id):
            features = dict(zip(names, row, strict=True))
            event = {"id": f"application-{i}", "time": time_s, "features": features, "prediction": score}
            yield msgspec.json.encode(event) + b"\n"  # which writes NaN as null


def applications(n: int, *, start_s: float, interval_s: float, drift: slice, seed: int, first_id: int) -> Applications:
    """n applications, one every `interval_s` seconds; those in the rows `drift` come from the recession."""
    rng = np.random.default_rng(seed)
    intensity = np.zeros(n)
    intensity[drift] = 1.0
    columns = people(n, intensity, rng)
    columns[SCORE] = score(columns, rng)
    # The ratio is lost on its way to the log, after the model has seen it.
    missing_before = simulate.drop_values(columns["debt_ratio"], np.ones(n), rng, share=MISSING_BEFORE)
    columns["debt_ratio"] = simulate.drop_values(missing_before, intensity, rng, share=MISSING_ADDED)
    return Applications(columns, simulate.times(n, start_s=start_s, interval_s=interval_s), first_id)


def people(n: int, intensity: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The features of n applicants; `intensity` (n,) is 0 before the recession and 1 in it."""
    age, wealth, tenure, *z = simulate.latent(n, 11, rng).T
    wealth = 0.3 * age + np.sqrt(1 - 0.3**2) * wealth  # the older earn more and have been employed for longer
    tenure = 0.5 * age + np.sqrt(1 - 0.5**2) * tenure
    wish = 0.5 * wealth + np.sqrt(1 - 0.5**2) * z[0]
    income = simulate.lognormal(wealth, median=36_000, sigma=0.5) * (1 - (1 - INCOME_FACTOR) * intensity)
    channel = simulate.category(z[6], names=CHANNELS)
    return {
        "age": whole(np.clip(simulate.normal(age, mean=42, sd=13), 18, 90)),
        "income": whole(income),
        "employment_years": np.round(simulate.zero_inflated(tenure, zeros=0.2, median=6, sigma=0.8), 1),
        "loan_amount": 100 * whole(simulate.lognormal(wish, median=90, sigma=0.7)),
        "debt_ratio": np.round(simulate.lognormal(z[1], median=0.28, sigma=0.45), 3),
        "accounts": whole(simulate.integer(z[2], median=4.5, sigma=0.5)),
        "previous_defaults": whole(np.minimum(simulate.integer(z[3], median=0.5, sigma=0.8), 4)),
        "is_homeowner": simulate.boolean(z[4], share=0.55),
        "region": simulate.category(z[5], names=REGIONS, exponent=0.7),
        "employment": simulate.category(z[7], names=EMPLOYMENT, exponent=1.3),
        "channel": simulate.add_category(channel, intensity, rng, name=NEW_CHANNEL, share=NEW_CHANNEL_SHARE),
        "purpose": simulate.category(simulate.latent(n, 1, rng)[:, 0], names=PURPOSES, exponent=0.8),
    }


def whole(values: np.ndarray) -> np.ndarray:
    """The nearest whole numbers, int64: events are to say 42, not 42.0."""
    return np.asarray(np.rint(values), np.int64)


def score(columns: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The model's estimate of the probability of default, (n,): what moves its inputs moves it too."""
    years_of_income = columns["loan_amount"] / np.maximum(columns["income"], 1.0)
    logit = -3.2 + 2.0 * columns["debt_ratio"] + 0.8 * columns["previous_defaults"] + 1.5 * years_of_income
    logit += 0.3 * rng.standard_normal(len(logit)) - 0.03 * columns["employment_years"]
    return np.asarray(np.round(1 / (1 + np.exp(-logit)), 4))
