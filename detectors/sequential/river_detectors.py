"""river's drift detectors behind the fold; they need the extra `analysis`.

Each is river's own, untouched. What it remembers stands in the state as bytes and is put into a fresh object for each
update, so that nothing is remembered beside the state. river's ADWIN is compiled and writes its own bytes; of the
others, which are Python, the attributes are written as JSON, whose floats come back bit for bit.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from detectors.score import Score
from detectors.sequential.change import Answer, Change, Floats, as_rows, none_for_nan

FORMAT = "river1"


@dataclass(frozen=True, slots=True)
class RiverState:
    """`memory` is the river object's; `n` counts the finite values since the last change, `n_rows` all rows ever."""

    n_rows: int
    n: int
    memory: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _River(ABC):
    """The fold over a river object. The fields of each class are river's parameters, with river's defaults.

    Where river tells how many rows the new level holds, `began_row` is that many back, skipped ones not counted.
    """

    @abstractmethod
    def _fresh(self) -> Any:
        """A new river object."""

    def _scaled(self, losses: Floats) -> list[float]:
        """The losses as this detector reads them."""
        return [float(loss) for loss in losses]

    def _width(self, detector: Any) -> int | None:
        """How many rows the new level holds, where river tells; asked when a change has just been found."""
        return None

    def _parameters(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def init(self) -> RiverState:
        """The state before the first row."""
        return RiverState(0, 0, pack(self._fresh()))

    def update(self, state: RiverState, values: Floats, times_s: Floats | None = None) -> tuple[RiverState, Answer]:
        """The state after these values, and the changes in them; values that are not finite are skipped."""
        values, times = as_rows(values, times_s)
        places = np.flatnonzero(np.isfinite(values))
        detector = unpack(self._fresh(), state.memory)
        changes: list[Change] = []
        n = state.n
        for place, loss in zip(places.tolist(), self._scaled(values[places]), strict=True):
            detector.update(loss)
            n += 1
            if detector.drift_detected:
                changes.append(self._change(detector, state.n_rows + place, float(times[place])))
                detector, n = self._fresh(), 0
        after = RiverState(state.n_rows + len(values), n, pack(detector))
        score = Score(type(self).__name__.lower(), None, None, None, n, 0)
        return after, Answer(tuple(changes), score, len(values) - len(places))

    def _change(self, detector: Any, row: int, time_s: float) -> Change:
        width = self._width(detector)
        began = None if width is None else max(row + 1 - width, 0)
        return Change(row, began, none_for_nan(time_s), None, None, None, None)

    def to_bytes(self, state: RiverState) -> bytes:
        """The state as bytes."""
        return json.dumps([FORMAT, type(self).__name__, state.n_rows, state.n, state.memory.decode()]).encode()

    def from_bytes(self, data: bytes) -> RiverState:
        """The state that `to_bytes` wrote, bit for bit. Raises ValueError for that of another detector."""
        kind, name, n_rows, n, memory = json.loads(data)
        if (kind, name) != (FORMAT, type(self).__name__):
            raise ValueError(
                f"`data` must be a {FORMAT} state of {type(self).__name__}; got {kind} of {name}. "
                "Pass what `to_bytes` of the same detector wrote."
            )
        return RiverState(n_rows, n, memory.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class ADWIN(_River):
    """Detects that the mean of a window differs before and after some row, in either direction.

    References: Bifet & Gavaldà (2007), Learning from time-changing data with adaptive windowing, SDM.

    See also: `glr.GLR`, which keeps a budget of false alarms.
    """

    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10

    def _fresh(self) -> Any:
        return _drift().ADWIN(**self._parameters())

    def _width(self, detector: Any) -> int | None:
        return int(detector.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class HDDMA(_River):
    """Detects that the mean of values in [0, 1] rose above its lowest prefix, by Hoeffding's bound.

    References: Frías-Blanco et al. (2015), Online and non-parametric drift detection methods based on Hoeffding's
    bounds, IEEE Transactions on Knowledge and Data Engineering 27.
    """

    drift_confidence: float = 0.001
    warning_confidence: float = 0.005
    two_sided_test: bool = False

    def _fresh(self) -> Any:
        return _drift().binary.HDDMA(**self._parameters())


@dataclass(frozen=True, slots=True, kw_only=True)
class DDM(_River):
    """Detects that the error rate rose some standard deviations above its lowest.

    References: Gama et al. (2004), Learning with drift detection, SBIA.
    """

    warm_start: int = 30
    warning_threshold: float = 2.0
    drift_threshold: float = 3.0

    def _fresh(self) -> Any:
        return _drift().binary.DDM(**self._parameters())


@dataclass(frozen=True, slots=True, kw_only=True)
class EDDM(_River):
    """Detects that errors, values of exactly 1, follow one another more closely than they did.

    References: Baena-García et al. (2006), Early drift detection method, Workshop on Knowledge Discovery from Data
    Streams.
    """

    warm_start: int = 30
    alpha: float = 0.95
    beta: float = 0.9

    def _fresh(self) -> Any:
        return _drift().binary.EDDM(**self._parameters())


@dataclass(frozen=True, slots=True, kw_only=True)
class KSWIN(_River):
    """Detects that the newest values are distributed otherwise than a sample of those before, by a KS test each row.

    Blind to little in 0/1 errors that a mean would miss, and slow: half a millisecond a row. The sample is drawn with
    `seed`, so that a stream gives the same changes each time.

    References: Raab, Heusinger & Schleif (2020), Reactive soft prototype computing for concept drift streams,
    Neurocomputing 416.
    """

    alpha: float = 0.005
    window_size: int = 100
    stat_size: int = 30
    seed: int = 0

    def _fresh(self) -> Any:
        return _drift().KSWIN(**self._parameters())


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHinkley(_River):
    """Detects that the mean rose, from the cumulative sum of (x − mean) / sd over its lowest.

    The test depends on the scale of what it reads; so losses are divided by `sd`, that of the reference's losses, and
    `delta` and `threshold` are in its standard deviations. (What is taken off them does not matter: the test learns the
    mean.) The defaults are not river's, under which standardised noise alarms about every thousand rows: a rise by half
    a standard deviation is found after some 125 rows, and normal noise alarms once in about exp(2·.1·50) / (2·.1²) =
    a million rows (Siegmund's approximation).

    References: Page (1954), Continuous inspection schemes, Biometrika 41; Siegmund (1985), Sequential analysis, ch. 2.
    """

    sd: float
    min_instances: int = 30
    delta: float = 0.1
    threshold: float = 50.0
    alpha: float = 1 - 0.0001

    def __post_init__(self) -> None:
        if not self.sd > 0:
            raise ValueError(f"`sd` must be above 0; got {self.sd!r}. Pass that of the reference's losses.")

    def _scaled(self, losses: Floats) -> list[float]:
        return [float(loss) for loss in losses / self.sd]

    def _fresh(self) -> Any:
        own = {name: value for name, value in self._parameters().items() if name != "sd"}
        return _drift().PageHinkley(mode="up", **own)


def _drift() -> Any:
    """river's module of detectors, imported when the first of them is used."""
    try:
        from river import drift
    except ImportError as error:
        raise ImportError(
            "the detectors of `river_detectors` need river; it is not installed. "
            "Run: pip install 'driftwatch-sidecar[analysis]'."
        ) from error
    return drift


def pack(detector: Any) -> bytes:
    """What a river object remembers, as bytes of ASCII."""
    return json.dumps({name: _plain(value) for name, value in vars(detector).items() if not callable(value)}).encode()


def unpack(fresh: Any, memory: bytes) -> Any:
    """The fresh object, now remembering what `pack` wrote."""
    for name, value in json.loads(memory).items():
        setattr(fresh, name, _restored(getattr(fresh, name), value))
    return fresh


def _plain(value: Any) -> Any:
    """A value of a river object as JSON can write it. Raises TypeError for a kind that no release so far held."""
    kind = type(value).__name__
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if kind == "AdaptiveWindowing":
        return value.__getstate__().hex()
    if kind in {"Mean", "Var"}:
        return {name: _plain(part) for name, part in vars(value).items()}
    if kind == "deque":
        return [_plain(part) for part in value]
    if kind == "Random":
        version, numbers, gauss = value.getstate()
        return [version, list(numbers), gauss]
    raise TypeError(
        f"`detector` must hold numbers and river's own kinds; got {kind}. Use a release of river that pyproject names."
    )


def _restored(fresh: Any, value: Any) -> Any:
    """The value that `_plain` wrote, of the kind that the fresh object has there."""
    kind = type(fresh).__name__
    if kind == "AdaptiveWindowing":
        fresh.__setstate__(bytes.fromhex(value))
        return fresh
    if isinstance(value, dict):
        for name, part in value.items():
            setattr(fresh, name, _restored(getattr(fresh, name), part))
        return fresh
    if kind == "deque":
        fresh.extend(value)
        return fresh
    if kind == "Random":
        version, numbers, gauss = value
        fresh.setstate((version, tuple(numbers), gauss))
        return fresh
    return value
