"""A decision as users read it: one JSON object a window, the same in `replay`, the store, the log and the report.

The keys stand in the order of the fields below. A number that is none is null, and a p-value is never below 1e-300.
Keys that speak of a few scores or alarms only (`band`, `detail`, an alarm's `version` and `reason`) are left out
elsewhere.
"""

import math
from datetime import UTC, datetime
from typing import Literal

import msgspec

from detectors.score import Verdict
from driftwatch.errors import DecodeError

Transition = Literal["opened", "continuing", "resolved", "updated"]
AlarmClass = Literal["drift", "data_quality", "performance"]

SMALLEST_P = 1e-300  # below it lies what doubles cannot order, and no log of it would be comparable


def rfc3339(epoch_s: float) -> str:
    """A time in UTC with `Z`; microseconds only where they are not zero.

    >>> rfc3339(0), rfc3339(1.5)
    ('1970-01-01T00:00:00Z', '1970-01-01T00:00:01.500000Z')
    """
    seconds, microseconds = divmod(round(epoch_s * 1_000_000), 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds, tzinfo=None).isoformat() + "Z"


class WindowLine(msgspec.Struct, frozen=True):
    """Which interval of which stream; `start` and `end` as `rfc3339` writes them."""

    model: str
    version: str
    segment: str | None
    start: str
    end: str
    n_records: int


class ScoreLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One detector's answer on one feature (`*` = on several at once), and what the policy made of it."""

    feature: str
    detector: str
    statistic: float | None
    p_value: float | None
    effect: float | None
    n_reference: int
    n_current: int
    verdict: Verdict
    reason: str | None
    band: str | None = None  # of PSI: stable, caution or unstable
    detail: str | None = None  # of a multivariate score: the pair, or the leading features

    def __post_init__(self) -> None:
        # A window has hundreds of these: one look tells that there is nothing to do.
        if not math.isfinite((self.statistic or 0.0) + (self.effect or 0.0)):
            _keep_finite(self, "statistic", "effect")
        if self.p_value is not None and not SMALLEST_P <= self.p_value <= 1.0:
            _keep_p(self)


class QualityLine(msgspec.Struct, frozen=True):
    """The share of a feature's rows that fail a check (missing, invalid, unseen), in the window and the reference."""

    feature: str
    check: str
    value: float | None
    reference: float | None
    verdict: Verdict

    def __post_init__(self) -> None:
        _keep_finite(self, "value", "reference")


class PerformanceLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A metric of the window, by what it is known (`labels`, `estimate`, `fields`), with its 95 % interval.

    Of predictions only what labels say is judged; a figure of a field has the verdict of the field's own scores.
    `estimate` stands beside it: what had been estimated of the same window.
    """

    metric: str
    source: str
    value: float | None
    low: float | None
    high: float | None
    reference: float | None
    n: int
    verdict: Verdict
    estimate: float | None = None

    def __post_init__(self) -> None:
        _keep_finite(self, "value", "low", "high", "reference", "estimate")


class AlarmFeature(msgspec.Struct, frozen=True):
    """A feature's part in an alarm, by the detector that spoke loudest on it.

    `contribution` is its share of the sum over the alarm's features. `severity` is how many times its floor the
    largest of the feature's effects is; null where no floor is named for any of its detectors.
    """

    feature: str
    detector: str
    effect: float | None
    p_value: float | None
    contribution: float | None
    score: float | None
    severity: float | None

    def __post_init__(self) -> None:
        _keep_finite(self, "effect", "contribution", "score", "severity")
        _keep_p(self)


class AlarmLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """An alarm that is open, or was until this window.

    `kind`, `evidence` and `suggestion` are those of the window in which it opened, or of the second judgement that last
    changed them, which happened `updates` times. `version` and `reason` stand only where an alarm of another version
    than the window's is resolved because that version has no rows any more (`superseded`).
    """

    id: str
    transition: Transition
    kind: str
    pattern: str | None
    started_at: str
    features: tuple[AlarmFeature, ...]
    of_class: AlarmClass = msgspec.field(name="class")
    evidence: tuple[str, ...]
    suggestion: str
    updates: int = 0
    version: str | None = None
    reason: str | None = None


class ShareLine(msgspec.Struct, frozen=True):
    """The shards that the window was counted on, where they are not all that the source has."""

    shards: tuple[str, ...]
    of: int


class Decision(msgspec.Struct, frozen=True):
    """A window's verdict over all its scores, and the alarms that opened, continue or were resolved in it.

    `reason` says why nothing could be decided where `verdict` is undetermined.
    """

    window: WindowLine
    verdict: Verdict
    scores: tuple[ScoreLine, ...]
    quality: tuple[QualityLine, ...]
    alarms: tuple[AlarmLine, ...]
    part: int
    partial: bool
    share: ShareLine | None
    revision: int
    p_value: float | None
    threshold: float | None
    caution: tuple[str, ...]
    reason: str | None = None
    performance: tuple[PerformanceLine, ...] = ()

    def __post_init__(self) -> None:
        _keep_finite(self, "threshold")
        _keep_p(self)


def encode(decision: Decision) -> bytes:
    """The decision as one line of JSON, without the newline; equal decisions give equal bytes."""
    return _encoder.encode(decision)


def decode(line: bytes) -> Decision:
    """The inverse of `encode`; unknown keys are ignored. Raises DecodeError for what is no decision."""
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"`decision` must be a line that `encode` wrote; got {line[:80]!r}. {error}") from error


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Decision)


def _keep_finite(line: msgspec.Struct, *names: str) -> None:
    """Sets what is no number to None, so that a decision equals its JSON read back."""
    for name in names:
        value = getattr(line, name)
        if value is not None and not math.isfinite(value):
            msgspec.structs.force_setattr(line, name, None)


def _keep_p(line: ScoreLine | AlarmFeature | Decision) -> None:
    _keep_finite(line, "p_value")
    if line.p_value is not None and line.p_value < SMALLEST_P:
        msgspec.structs.force_setattr(line, "p_value", SMALLEST_P)
