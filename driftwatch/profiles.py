"""Profiles for a configuration: built from its reference, bound to its features, simulated for its windows."""

import contextlib
import hashlib
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detectors.calibration import Alarm
from detectors.grid import FeatureKind
from detectors.performance.outcome import LOSS
from detectors.profile import Profile
from detectors.reference import MIN_ROWS, build, recalibrate
from driftwatch.config import Config
from driftwatch.errors import ConfigError, DriftwatchError, SourceError
from driftwatch.records import Category, Column, LabelColumn, Mark, Schema

SUFFIX = ".profile"
DAY_S = 86_400.0
LADDER = 3.0  # from one simulated window size to the next, at most
UNKNOWN_ROWS = 1000  # of a window, where neither the configuration nor the reference's times tell


def alarm_policy(config: Config) -> Alarm:
    """The policy whose openings the budget counts."""
    window, persistence = config.window, config.alarms.persistence
    panes = 1 if window.length is None or window.slide is None else round(window.length / window.slide)
    return Alarm(persistence.k, persistence.n, panes)


def window_rows(config: Config, rows_per_second: float | None) -> float | None:
    """Rows that a window is expected to hold, None where nobody knows."""
    if config.window.count is not None:
        return float(config.window.count)
    if rows_per_second is None or config.window.length is None:
        return None
    return rows_per_second * config.window.length


def sizes(config: Config, rows_per_second: float | None, n_rows: int) -> list[int]:
    """Window sizes to simulate: the expected one in the middle, down to `min_records`, up for busier hours."""
    expected = window_rows(config, rows_per_second)
    least = min(max(config.window.min_records, 20), n_rows)
    if config.window.count is not None:
        return ladder(least, min(config.window.count, n_rows))
    middle = min(max(expected or UNKNOWN_ROWS, least), n_rows)
    up = 10 if expected is None else 3
    low = ladder(max(least, int(middle / up)), int(middle))
    high = ladder(int(middle), min(int(middle * up), n_rows))
    return sorted({*low, *high})


def ladder(low: int, high: int) -> list[int]:
    """From low to high in equal ratios of at most LADDER²; both ends are in it."""
    if high <= low * 1.05:
        return [high]
    steps = max(1, math.ceil(math.log(high / low) / (2 * math.log(LADDER))))
    return sorted({round(float(v)) for v in np.geomspace(low, high, steps + 1)})


@dataclass(frozen=True, slots=True)
class Material:
    """What a profile is built of: a reference's columns in time order, rows a second, and facts to keep with it."""

    columns: Mapping[str, np.ndarray | list[Category]]
    invalid: Mapping[str, np.ndarray]
    n_rows: int
    rows_per_second: float | None
    about: Mapping[str, str | float | None]


def build_profile(config: Config, path: Path, progress: Callable[[float], None] = lambda _: None) -> Profile:
    """Reads a reference file and builds its profile. Raises ConfigError where the file does not fit the configuration.

    Needs the memory of a whole reference: the sidecar does it in a process of its own.
    """
    from driftwatch import reference, reference_labels, tables  # pandas and pyarrow have no place in the hot process

    schema = config.event_schema()
    try:
        with tables.open_table(path) as table:
            names = table.names
    except SourceError as error:
        raise ConfigError(f"`reference.path` cannot be used: {error}") from error
    columns = [c for c in schema.columns if c.group == "features" or set(tables.candidates(c)) & set(names)]
    label = reference_labels.column(schema, names)
    if label is not None:
        columns.append(label)
    read = reference.read(path, columns, time_path=schema.time_path, time_unit=schema.time_unit)
    progress(0.1)
    if read.n_rows < MIN_ROWS:
        raise ConfigError(
            f"`{path.name}` must hold at least {MIN_ROWS} rows; got {read.n_rows}. A reference of some thousands of "
            "rows, ten times a window, keeps an alarm budget."
        )
    about = {"reference": reference_key(config, path)}
    material = Material(read.columns, read.invalid, read.n_rows, rows_per_second(read.times_s), about)
    return build_of(config, material, lambda share: progress(0.1 + 0.9 * share))


def build_of(config: Config, material: Material, progress: Callable[[float], None] = lambda _: None) -> Profile:
    """The profile of a reference that was read already."""
    from driftwatch import reference_labels

    label = config.event_schema().label
    kinds: dict[str, FeatureKind] = {c.name: c.kind for c in config.event_schema().columns}
    if label is not None:
        kinds[label.name] = label.kind
    values = {
        name: column if isinstance(column, np.ndarray) else [None if isinstance(v, Mark) else v for v in column]
        for name, column in material.columns.items()
    }
    rate, of_columns = material.rows_per_second, {name: kinds[name] for name in values}
    delayed = reference_labels.add_loss(label, values, of_columns)
    made = build(
        values,
        of_columns,
        sizes=sizes(config, rate, material.n_rows),
        alarm=alarm_policy(config),
        invalid=material.invalid,
        mmd_rows=config.detectors.mmd.rows,
        delayed=delayed,
        progress=progress,
    )
    model = {"model": config.model.name, "version": config.model.version, "rows_per_second": rate}
    return replace(made, about={**model, **material.about})


def rows_per_second(times_s: np.ndarray | None) -> float | None:
    """Rows of a reference a second of its event time; None where it has no times, or one only."""
    if times_s is None or len(times_s) < 2 or not times_s[-1] > times_s[0]:
        return None
    return float((len(times_s) - 1) / (times_s[-1] - times_s[0]))


def known_rate(profile: Profile) -> float | None:
    """Rows a second of the profile's reference, where it had times."""
    rate = profile.about.get("rows_per_second")
    return rate if isinstance(rate, float) else None


def reference_key(config: Config, path: Path) -> str:
    """What a stored profile depends on: the reference file's content and the columns, MMD rows and windows."""
    digest = file_digest(path)
    columns: list[object] = [(c.name, c.kind, c.path) for c in config.event_schema().columns]
    if config.event_schema().label is not None:
        columns.append(config.event_schema().label)
    window = (config.window.length, config.window.slide, config.window.count, config.window.min_records)
    digest.update(repr((columns, config.detectors.mmd.rows, window, alarm_policy(config))).encode())
    return digest.hexdigest()[:32]


def file_digest(path: Path) -> "hashlib._Hash":
    """The digest of a reference file's content. Raises ConfigError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ConfigError(f"`reference.path` must name a file that can be read; got {path}: {error}.") from error
    return digest


def load_profile(path: Path, *, codes: bool = False) -> Profile:
    """A profile from its file; without `codes` the reference's rows stay on disk. Raises ConfigError."""
    try:
        return Profile.from_bytes(path.read_bytes(), codes=codes)
    except OSError as error:
        raise ConfigError(
            f"{path}: the profile cannot be read: {error.strerror}. Build it with `driftwatch profile`."
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def check_binding(profile: Profile, schema: Schema, where: str) -> None:
    """Raises ConfigError where a profile's features or kinds are not the configuration's."""
    known: dict[str, Column | LabelColumn] = {c.name: c for c in schema.columns}
    if schema.label is not None:
        known[schema.label.name] = schema.label
    bound = {name: kind for name, kind in profile.kinds.items() if name != LOSS or not profile.grid.delayed.any()}
    wrong = [
        f"{name} is {kind} there, {known[name].kind} here" if name in known else f"{name} is not configured"
        for name, kind in bound.items()
        if name not in known or known[name].kind != kind
    ]
    lacking = [c.name for c in schema.columns if c.group == "features" and c.name not in profile.kinds]
    wrong += [f"{name} is not in the profile" for name in lacking]
    if not wrong and list(bound) != [n for n in known if n in bound]:
        wrong.append("their order differs")
    if wrong:
        raise ConfigError(
            f"{where}: the profile must be of the features in `events`: {'; '.join(wrong)}. "
            "Build it again with `driftwatch profile`."
        )


def fits(profile: Profile, config: Config) -> bool:
    """Whether the profile's null distributions are those of the configuration's windows and policy."""
    curves = profile.calibration
    if curves.alarm != alarm_policy(config):
        return False
    wanted = sizes(config, known_rate(profile), profile.n_rows)
    return bool(curves.sizes[0] <= 1.05 * wanted[0] and curves.sizes[-1] >= 0.95 * wanted[-1])


def simulate_again(profile: Profile, config: Config, progress: Callable[[float], None] = lambda _: None) -> Profile:
    """The profile with null distributions for the configuration's windows and policy; it must have its codes."""
    wanted = sizes(config, known_rate(profile), profile.n_rows)
    return recalibrate(profile, sizes=wanted, alarm=alarm_policy(config), progress=progress)


class Making:
    """A profile that is being made by `driftwatch profile` in a process of its own, whose memory goes with it.

    `source` is a reference, a profile whose null distributions are simulated again, or the state file that holds rows
    to learn from. `close` ends it.
    """

    def __init__(self, config_path: Path, source: Path | bytes) -> None:
        self._name = str(source) if isinstance(source, Path) else "the profile that was put"
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="driftwatch-")
            self._out = Path(self._folder.name) / f"made{SUFFIX}"
            if isinstance(source, bytes):
                data, source = source, Path(self._folder.name) / f"given{SUFFIX}"
                source.write_bytes(data)
            command = [sys.executable, "-m", "driftwatch", "profile", str(source), "-c", str(config_path)]
            self._child = subprocess.Popen([*command, "-o", str(self._out)], stdout=subprocess.DEVNULL)
        except OSError as error:
            raise DriftwatchError(f"{self._name}: its profile cannot be built now: {error}.") from error

    def wait(self, seconds: float) -> bytes | None:
        """The profile file's bytes once it is made, None where it takes longer. Raises DriftwatchError."""
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if code == ConfigError.exit_code:
            raise ConfigError(f"{self._name}: no profile could be built of it; the reason stands above.")
        if code:
            raise DriftwatchError(f"{self._name}: building its profile ended with exit code {code}.")
        return self._out.read_bytes()

    def close(self) -> None:
        """Ends the process where it runs, and removes its files."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        self._folder.cleanup()


def in_subprocess(config_path: Path, source: Path | bytes, turned: Callable[[], None] = lambda: None) -> bytes:
    """A profile file made in a process of its own; `turned` is called meanwhile. Raises DriftwatchError."""
    with contextlib.closing(Making(config_path, source)) as making:
        while (made := making.wait(1.0)) is None:
            turned()
        return made


def rate_per_window(config: Config, profile: Profile) -> float:
    """Alarms a window that the budget allows this process. Raises ConfigError where it cannot be told."""
    seconds = config.window.slide
    if config.window.count is not None:
        rate = known_rate(profile)
        seconds = None if rate is None else config.window.count / rate
    return config.alarms.budget.rate_per_window(seconds) / config.alarms.replicas


def with_hints(schema: Schema, profile: Profile) -> Schema:
    """The schema with the categories and embedding lengths that the profile knows, which make decoding fast."""
    features = {f.name: f for f in profile.grid.features}

    def hinted(column: Column) -> Column:
        feature = features.get(column.name)
        if feature is None:
            return column
        return replace(column, categories=feature.categories, length=feature.length)

    return replace(schema, columns=tuple(hinted(c) for c in schema.columns))


def warnings(profile: Profile, config: Config) -> list[str]:
    """What a person should know of a profile before trusting it, each a sentence."""
    said = []
    n = window_rows(config, known_rate(profile)) or UNKNOWN_ROWS
    worth = profile.n_rows / max(profile.need, 1.0)
    if profile.segments:
        season = "a season" if profile.periodic else "dependence"
        said.append(
            f"the reference holds {season} over {profile.need:,.0f} rows: it is worth about {worth:,.0f} independent "
            "stretches. Thresholds are wide; a longer reference helps."
        )
    elif profile.need > n / 4:
        said.append(
            f"neighbouring rows depend on one another over about {profile.need:,.0f} rows: a window of {n:,.0f} "
            f"rows is worth about {max(n / profile.need, 1):,.1f} independent ones. Longer windows find more."
        )
    said += label_warnings(profile, config)
    if n > profile.n_rows / 2:
        said.append(
            f"windows of {n:,.0f} rows are large beside a reference of {profile.n_rows:,}: the rate of false alarms is "
            "unproven there. Use a reference of at least ten windows."
        )
    return said


def covered_s(profile: Profile) -> float | None:
    """Seconds of event time that the reference covers, where it had times; of learned rows not all are kept."""
    rate, seen = known_rate(profile), profile.about.get("rows_seen")
    n_rows = seen if isinstance(seen, float) else profile.n_rows - 1
    return None if rate is None else n_rows / rate


def cycles(profile: Profile) -> str:
    """How many days a reference covers, in words."""
    days = (covered_s(profile) or 0.0) / DAY_S
    others = "" if days >= 1 else "; hours that it does not hold may look like drift"
    return f"{days:,.2f} daily cycles{others}"


def coverage(profile: Profile, config: Config) -> list[str]:
    """What a learned reference is worth, each a sentence: daily cycles and effective rows, then the warnings."""
    worth = profile.n_rows / max(profile.need, 1.0)
    said = f"{profile.n_rows:,} rows of {cycles(profile)}; they are worth about {worth:,.0f} independent rows."
    return [said, *warnings(profile, config)]


def label_warnings(profile: Profile, config: Config) -> list[str]:
    """What a person should know of labels: what of them cannot be judged."""
    label = config.event_schema().label
    if label is None or profile.outcome is not None:
        return []
    if not profile.grid.delayed.any():
        return [
            f"the reference has no column {label.name!r}: what labels say of performance is shown, and nothing is "
            "judged on it. Give a reference with labels."
        ]
    if label.judged_as == "score" and label.prediction in profile.kinds:
        return [
            f"there is no loss of {label.prediction!r} against the label {label.name!r}: only the label's distribution "
            "is judged. A numeric prediction is taken for a probability where it lies in [0, 1] throughout the "
            "reference, and here it does not; send the probability, or the class with `kind: binary`."
        ]
    return [
        f"there is no loss of the prediction against the label {label.name!r}: only the label's distribution is "
        "judged. A loss needs both in the reference, and kinds that go together: numeric with numeric, probability "
        "or binary with binary, categorical with categorical."
    ]


def warn_of_labels(config: Config, found: Mapping[str, Profile], say: Callable[[str], object]) -> None:
    """Says of each version what of its labels cannot be judged."""
    for version, profile in found.items():
        for warning in label_warnings(profile, config):
            say(f"version {version}: {warning}")
