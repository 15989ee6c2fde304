"""The demo's made-up service: applications for credit, their scores, and later who defaulted; and two changes.

Twelve features as a lender has them: amounts with a long tail, years of which many are zero, counts with ties, codes
of few and of many values, a flag. A recession moves some of them; later debts are forgiven, which moves none: it
changes what the same features say of a default. Nothing is random but by the seed.
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
LABEL = "defaulted"
LABEL_AFTER_S = (600.0, 1200.0)  # of event time; a lender waits for months

DRIFTED = ("income", "channel", "accounts")
DRIFT_IN_WORDS = "incomes fall by a quarter, more come by phone, with more accounts"
INCOME_FACTOR = 0.75
MORE_CHANNEL, MORE_CHANNEL_SHARE = "phone", 0.25
MORE_ACCOUNTS = 1
CONCEPT_IN_WORDS = "debts are forgiven: debt_ratio tells no more who defaults; no feature shows it"
OF_DEBT = 10.0  # what a debt_ratio of 1 adds to the log-odds of a default
FORGIVEN = 0.34  # the debt_ratio that all have then, as it were
MISSING_SHARE = 0.01

REGIONS = ("north", "east", "south", "west", "coast", "lakes", "hills", "islands")
EMPLOYMENT = ("permanent", "self_employed", "temporary", "retired", "student")
CHANNELS = ("web", "app", "branch", "phone")
HOUSE_PURPOSES = ("kitchen", "bathroom", "furniture", "solar", "roof")
PURPOSES = ("car", *HOUSE_PURPOSES, "debt", "medical", "wedding", "education", "travel", "boat", "business", "other")


@dataclass(frozen=True, slots=True)
class Applications:
    """Applications in the order of time. NaN in a numeric column is missing.

    `defaulted` (n,): 0 or 1, which becomes known at `known_s` (n,). Times (n,) are epoch seconds.
    """

    columns: dict[str, np.ndarray]
    times_s: np.ndarray
    defaulted: np.ndarray
    known_s: np.ndarray
    first_id: int

    def events(self) -> list[tuple[float, bytes]]:
        """Predictions, and their labels when they are known, by their times; one JSON object a line."""
        found = [*zip(self.times_s.tolist(), self.lines(), strict=True)]
        for i, (known_s, label) in enumerate(
            zip(self.known_s.tolist(), self.defaulted.tolist(), strict=True), self.first_id
        ):
            event = {"id": f"application-{i}", "time": known_s, "label": label}
            found.append((known_s, msgspec.json.encode(event) + b"\n"))
        return sorted(found, key=lambda event: event[0])

    def lines(self, *, with_label: bool = False) -> Iterator[bytes]:
        """Each as a prediction event, one JSON object a line; in a reference the label stands beside it."""
        names = list(FEATURES)
        rows = zip(*(self.columns[name].tolist() for name in names), strict=True)
        scores, times = self.columns[SCORE].tolist(), self.times_s.tolist()
        for i, (row, score, time_s) in enumerate(zip(rows, scores, times, strict=True), self.first_id):
            features = dict(zip(names, row, strict=True))
            event = {"id": f"application-{i}", "time": time_s, "features": features, "prediction": score}
            if with_label:
                event["label"] = int(self.defaulted[i - self.first_id])
            yield msgspec.json.encode(event) + b"\n"  # which writes NaN as null


def applications(
    n: int,
    *,
    start_s: float,
    interval_s: float,
    seed: int,
    first_id: int,
    drift: slice = slice(0),
    concept: slice = slice(0),
) -> Applications:
    """n applications, one every `interval_s` seconds.

    The rows `drift` come from the recession; of the rows `concept` debts are forgiven.
    """
    rng = np.random.default_rng(seed)
    intensity = np.zeros(n)
    intensity[drift] = 1.0
    columns = people(n, intensity, rng)
    logit = log_odds(columns, rng)
    columns[SCORE] = np.clip(np.round(share(logit), 4), 0.0001, 0.9999)
    logit[concept] += OF_DEBT * (FORGIVEN - columns["debt_ratio"][concept])
    # A few ratios are lost on their way to the log, after the model has seen them.
    columns["debt_ratio"] = simulate.drop_values(columns["debt_ratio"], np.ones(n), rng, share=MISSING_SHARE)
    defaulted = (rng.random(n) < share(logit)).astype(np.int64)
    times_s = simulate.times(n, start_s=start_s, interval_s=interval_s)
    known_s = np.round(times_s + rng.uniform(*LABEL_AFTER_S, n), 3)
    return Applications(columns, times_s, defaulted, known_s, first_id)


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
        "accounts": whole(simulate.integer(z[2], median=4.5, sigma=0.5) + MORE_ACCOUNTS * intensity),
        "previous_defaults": whole(np.minimum(simulate.integer(z[3], median=0.5, sigma=0.8), 4)),
        "is_homeowner": simulate.boolean(z[4], share=0.55),
        "region": simulate.category(z[5], names=REGIONS, exponent=0.7),
        "employment": simulate.category(z[7], names=EMPLOYMENT, exponent=1.3),
        "channel": simulate.add_category(channel, intensity, rng, name=MORE_CHANNEL, share=MORE_CHANNEL_SHARE),
        "purpose": simulate.category(simulate.latent(n, 1, rng)[:, 0], names=PURPOSES, exponent=0.8),
    }


def whole(values: np.ndarray) -> np.ndarray:
    """The nearest whole numbers, int64: events are to say 42, not 42.0."""
    return np.asarray(np.rint(values), np.int64)


def log_odds(columns: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Of a default, as the model has learned them, (n,): what moves its inputs moves them too."""
    years_of_income = columns["loan_amount"] / np.maximum(columns["income"], 1.0)
    logit = -4.8 + OF_DEBT * columns["debt_ratio"] + 0.8 * columns["previous_defaults"] + 0.5 * years_of_income
    return np.asarray(logit + 0.3 * rng.standard_normal(len(logit)) - 0.03 * columns["employment_years"])


def share(logit: np.ndarray) -> np.ndarray:
    """Log-odds as a probability."""
    return np.asarray(1 / (1 + np.exp(-logit)))
