"""A detector's answer."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "drift", "undetermined"]


@dataclass(frozen=True, slots=True)
class Score:
    """One detector's answer on one feature of one window, or on two arrays.

    Larger `statistic` = more drift, always. `effect` is the size of the change in the detector's own unit (largest CDF
    gap, change of share, reference standard deviations …), comparable between sample sizes. `p_value` is None where
    none was computed. `verdict` is "undetermined" where `reason` says why nothing could be decided; otherwise None
    until a policy, which knows the alarm budget, has judged it.
    """

    detector: str
    statistic: float | None
    p_value: float | None
    effect: float | None
    n_reference: int
    n_current: int
    feature: str | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    detail: str | None = None  # the pair or the leading features of a multivariate score; the band of PSI
