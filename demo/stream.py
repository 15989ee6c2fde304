"""The demo's made-up service: applications for credit and, later, who defaulted; and what changes.

A recession comes: incomes fall and more apply by phone (covariate drift). And debts are forgiven, so that the debt
ratio tells less of a default, and the number of open accounts more (concept drift): a model of before loses a good part
of its AUC, and one that learns of the time after can win it back. Nothing is random but by the seed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

FEATURES = {
    "age": "numeric",
    "income": "numeric",
    "debt_ratio": "numeric",
    "employment_years": "numeric",
    "accounts": "numeric",
    "channel": "categorical",
    "region": "categorical",
}
CHANNELS = {"web": 0.45, "app": 0.3, "branch": 0.2, "phone": 0.05}
REGIONS = {"north": 0.3, "east": 0.25, "south": 0.2, "west": 0.15, "coast": 0.1}
INCOME_FACTOR = 0.85  # of before, in the recession
MORE_BY_PHONE = 0.1  # of all who come, in the recession

OF_DEBT, OF_ACCOUNTS = 1.9, 0.2  # what a standard deviation adds to the log odds of a default, before
OF_DEBT_AFTER, OF_ACCOUNTS_AFTER = 0.8, 1.8


@dataclass(frozen=True, slots=True)
class Applications:
    """n applications: columns by feature, and whether each defaulted, (n,) 0/1."""

    columns: dict[str, np.ndarray]
    defaulted: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """Each as the features of a request."""
        values = zip(*(column.tolist() for column in self.columns.values()), strict=True)
        return [dict(zip(self.columns, row, strict=True)) for row in values]


def applications(n: int, rng: np.random.Generator, *, changed: bool) -> Applications:
    """n applications of before the change, or of after it."""
    age, wealth, debt, tenure, accounts = rng.standard_normal((5, n))
    wealth = 0.3 * age + np.sqrt(1 - 0.3**2) * wealth  # the older earn more
    channel = rng.choice([*CHANNELS], n, p=[*CHANNELS.values()])
    columns = {
        "age": np.clip(np.rint(42 + 13 * age), 18, 90),
        "income": np.rint(36_000 * np.exp(0.5 * wealth) * (INCOME_FACTOR if changed else 1.0)),
        "debt_ratio": np.round(0.28 * np.exp(0.5 * debt), 3),
        "employment_years": np.round(6 * np.exp(0.7 * tenure), 1),
        "accounts": np.rint(4 * np.exp(0.45 * accounts)),
        "channel": np.where(changed & (rng.random(n) < MORE_BY_PHONE), "phone", channel),
        "region": rng.choice([*REGIONS], n, p=[*REGIONS.values()]),
    }
    of_debt, of_accounts = (OF_DEBT_AFTER, OF_ACCOUNTS_AFTER) if changed else (OF_DEBT, OF_ACCOUNTS)
    logit = -1.3 + of_debt * debt + of_accounts * accounts - 0.6 * tenure - 0.6 * np.log(columns["income"] / 36_000)
    return Applications(columns, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int))
