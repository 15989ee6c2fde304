"""`driftwatch check`: what a configuration would find, and how often it would err, measured on its own reference."""

import math
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detectors.grid import FeatureKind
from detectors.power import MANY_WINDOWS, FalseAlarms, false_alarms, smallest_changes
from detectors.profile import Profile
from driftwatch import app, config, profiles, progress, references
from driftwatch.config import Config
from driftwatch.errors import ConfigError
from driftwatch.learned import build_learned
from driftwatch.monitor import OF_ROWS, windows_rate
from driftwatch.store import Store
from driftwatch.units import format_duration

WIDTH = 100  # columns of a terminal
LONGER = 4  # times as long a reference, to show what one would buy
WIDE_SHIFT = 1.0  # standard deviations: windows that show no smaller one are too small for the budget
NAME_WIDTH = 24
UNITS = (("day", 86_400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on a profile for windows of `n_current` rows."""

    n_current: int
    rate: float  # alarms a window that the budget allows
    threshold: float
    now: FalseAlarms
    longer: FalseAlarms
    changes: dict[str, np.ndarray]


def main(config_path: Path, profile_path: Path | None) -> int:
    """Validates, measures, prints a report to standard output. Raises ConfigError."""
    settings = config.load(config_path)
    app.make_targets(settings)  # secrets can be read, addresses are allowed
    profile = find_profile(settings, profile_path)
    measured = measure(settings, profile)
    sys.stdout.write("\n".join(report(settings, profile, measured)) + "\n")
    return 0


def find_profile(settings: Config, path: Path | None) -> Profile:
    """The profile with its codes, simulated for the configuration's windows: of the file, else of `reference`."""
    reference = settings.reference
    if path is None and reference is not None and reference.path is not None:
        with progress.share_bar("profile") as told:
            return profiles.build_profile(settings, reference.path, told)
    if path is None and reference is not None and reference.learn is not None:
        return find_learned(settings)
    if path is None and reference is not None and reference.profile is not None:
        path = dict(references.profile_files(settings, reference.profile)).get(settings.model.version)
        if path is None:
            raise ConfigError(
                f"`reference.profile` must hold a profile of version {settings.model.version!r} to be checked; got "
                f"none in {reference.profile}. Name one with `--profile`."
            )
    if path is None:
        raise ConfigError("`reference` must be given to be checked; got none. Add it, or name a file with `--profile`.")
    return fitting_profile(settings, path)


def fitting_profile(settings: Config, path: Path) -> Profile:
    """The profile of a file with its codes, simulated for the configuration's windows. Raises ConfigError."""
    profile = profiles.load_profile(path, codes=True)
    profiles.check_binding(profile, settings.event_schema(), str(path))
    return simulated(settings, profile)


def simulated(settings: Config, profile: Profile) -> Profile:
    """The profile, simulated again where it was made for other windows."""
    if profiles.fits(profile, settings):
        return profile
    with progress.share_bar("windows") as told:
        return profiles.simulate_again(profile, settings, told)


def find_learned(settings: Config) -> Profile:
    """The profile that was learned and saved, else one of the rows that the state has kept so far."""
    saved = dict(references.named_profiles(settings)).get(settings.model.version)
    if saved is not None:
        return fitting_profile(settings, saved)
    path = settings.state.path
    if path.exists():
        with closing(Store.open(path, model=settings.model.name, read_only=True)) as store:
            body = store.given_body(settings.model.version)
        if body is not None:
            return simulated(settings, Profile.from_bytes(body, codes=True))
        with progress.share_bar("profile") as told:
            return build_learned(settings, path, told)
    raise ConfigError(
        f"`reference.learn` has learned nothing yet: there is no state at {path}. Start `driftwatch run`, or check a "
        "reference with `--profile`."
    )


def measure(settings: Config, profile: Profile) -> Measured:
    """Simulates windows of the expected size, unchanged and changed."""
    expected = profiles.window_rows(settings, profiles.known_rate(profile)) or profiles.UNKNOWN_ROWS
    n = round(min(max(expected, settings.window.min_records), profile.n_rows))
    rate = profiles.rate_per_window(settings, profile)
    of_windows = windows_rate(profile, rate) if settings.events.label is not None else rate
    threshold = profile.calibration.threshold(of_windows, n)
    with progress.share_bar("false alarms") as told:
        now = false_alarms(profile, threshold=threshold, n_current=n, progress=lambda share: told(share / 2))
        longer = false_alarms(
            profile, threshold=threshold, n_current=n, longer=LONGER, progress=lambda share: told((1 + share) / 2)
        )
    floors = {str(name): floor for name, floor in settings.alarms.effect.items()}
    with progress.share_bar("smallest changes") as told:
        changes = smallest_changes(profile, threshold=threshold, n_current=n, floors=floors, progress=told)
    return Measured(n, rate, threshold, now, longer, changes)


def report(settings: Config, profile: Profile, measured: Measured) -> list[str]:
    """The lines that a person reads, none wider than WIDTH but for long names."""
    model = settings.model
    return [
        f"driftwatch check: {model.name}, version {model.version}",
        "",
        *what_was_read(settings, profile, measured),
        "",
        *errors(settings, profile, measured),
        "",
        *changes(settings, profile, measured),
        *[line for warning in cautions(settings, profile, measured) for line in ["", *wrapped("! ", warning)]],
    ]


def what_was_read(settings: Config, profile: Profile, measured: Measured) -> list[str]:
    """The reference, the windows and the budget."""
    rate, window = profiles.known_rate(profile), settings.window
    expected = profiles.window_rows(settings, rate)
    rows = f"{profile.n_rows:,}"
    if rate is not None:
        rows += f" over {span(profiles.covered_s(profile) or 0.0)}, {per_time(rate)}"
    kinds = Counter(profile.kinds.values())
    if window.length is None or window.slide is None:
        size = f"{measured.n_current:,} rows"
    else:
        size = format_duration(window.length)
        if window.slide < window.length:
            size += f", one every {format_duration(window.slide)}"
        if expected is None:
            size += f", taken to be {measured.n_current:,} rows: the reference has no times"
        else:
            size += f", about {expected:,.0f} rows"
    alarms = settings.alarms
    budget = f"{alarms.budget}, which is 1 false alarm in {1 / measured.rate:,.0f} windows"
    if alarms.replicas > 1:
        budget += f" for each of {alarms.replicas} replicas"
    alarm = "one window has" if alarms.persistence.n == 1 else f"{alarms.persistence} windows have"
    worth = profile.n_rows / max(profile.need, 1.0)
    worth_in_words = "neighbouring rows do not depend on one another"
    if profile.need > 1:
        worth_in_words = f"neighbouring rows depend on one another over about {profile.need:,.0f}"
    return table(
        "The reference",
        [
            ("rows", rows),
            *[("learned", profiles.cycles(profile))] * ("rows_seen" in profile.about),
            ("features", ", ".join(f"{n} {kind}" for kind, n in kinds.items())),
            ("worth", f"{worth:,.0f} independent rows: {worth_in_words}"),
            ("windows", size),
            ("budget", budget),
            ("alarm", f"opens when {alarm} a score over {measured.threshold:.2f} (`threshold` in a decision)"),
        ],
    )


def errors(settings: Config, profile: Profile, measured: Measured) -> list[str]:
    """False alarms in the budget's own unit."""
    budget = settings.alarms.budget
    period = f"{budget.per_windows} windows" if budget.per_seconds is None else format_duration(budget.per_seconds)
    unit = budget.alarms / measured.rate

    def between(found: FalseAlarms) -> str:
        return f"{rounded(unit * found.low)} to {rounded(unit * found.high)}"

    lines = [("on average over references like this one", f"about {rounded(unit * measured.now.mean)}")]
    if settings.events.label is not None and windows_rate(profile, 1.0) < 1.0:
        lines.append(("beside these, of the losses row by row, at most", rounded(budget.alarms * OF_ROWS)))
    if not profile.periodic:
        lines += [
            ("for this reference, 9 times out of 10", between(measured.now)),
            (f"for one {LONGER} times as long, 9 times out of 10", between(measured.longer)),
        ]
    return table(f"False alarms in {period} while nothing changes (the budget allows {budget.alarms})", lines)


def rounded(alarms: float) -> str:
    """To what the simulation can tell: 30,000 windows give a rare rate to about a fifth."""
    return f"{alarms:.1f}" if alarms >= 0.1 else f"{alarms:.1g}"


@dataclass(frozen=True, slots=True)
class Column:
    """Two columns of a table of changes: the change, its title and how an amount is written."""

    change: str
    title: str
    write: Callable[[float], str]


def percent(share: float) -> str:
    """Per cent without the sign, which the title has."""
    return f"{100 * share:.2f}" if share < 0.1 else f"{100 * share:.1f}"


MORE_MISSING = Column("missing", "missing, + %", percent)
COLUMNS: Mapping[FeatureKind, tuple[Column, ...]] = {
    "numeric": (
        Column("mean", "mean, + sd", lambda sd: f"{sd:.2f}"),
        Column("spread", "spread, times", lambda more: f"{1 + more:.2f}"),
        MORE_MISSING,
    ),
    "categorical": (
        Column("category", "1st to 2nd, %", percent),
        Column("unseen", "new, + %", percent),
        MORE_MISSING,
    ),
    "embedding": (MORE_MISSING,),
}
LEGEND = (
    "mean: every value rises by so many standard deviations, counted on ranks so that outliers do not matter. spread: "
    "distances from the median grow so many times. missing: of so many rows in 100 the value is lost. 1st to 2nd: so "
    "many rows in 100 go from the commonest category to the second. new: so many get a category never seen. A dash: "
    "found at no size, or not possible."
)


def changes(settings: Config, profile: Profile, measured: Measured) -> list[str]:
    """Tables of the features by kind, and what their columns mean."""
    k = settings.alarms.persistence.k
    soonest = "1 window" if k == 1 else f"{k} windows"
    lines = [f"Smallest change that opens an alarm 4 times out of 5, in {soonest} and within {MANY_WINDOWS} windows"]
    width = max(len("categorical"), *(min(len(name), NAME_WIDTH) for name in profile.kinds))
    for kind, columns in COLUMNS.items():
        named = [(j, name) for j, (name, its) in enumerate(profile.kinds.items()) if its == kind]
        if not named:
            continue
        lines.append(f"  {'':<{width}}" + "".join(f"   {column.title:>16}" for column in columns))
        lines.append(f"  {kind:<{width}}" + f"   {f'in {k}':>8}{f'in {MANY_WINDOWS}':>8}" * len(columns))
        for j, name in named:
            pairs = ((column.write, measured.changes[column.change][j].tolist()) for column in columns)
            cells = ("".join(f"{in_words(amount, write):>8}" for amount in pair) for write, pair in pairs)
            lines.append(f"  {shortened(name):<{width}}" + "".join(f"   {cell}" for cell in cells))
        lines.append("")
    return [*lines, *wrapped("  ", LEGEND)]


def in_words(amount: float, write: Callable[[float], str]) -> str:
    """The amount, or a dash where there is none."""
    return write(amount) if math.isfinite(amount) else "-"


def shortened(name: str) -> str:
    """At most NAME_WIDTH characters: the beginning and the end of a longer name."""
    half = (NAME_WIDTH - 1) // 2
    return name if len(name) <= NAME_WIDTH else f"{name[:half]}…{name[-half:]}"


def cautions(settings: Config, profile: Profile, measured: Measured) -> list[str]:
    """What a person should know before trusting the configuration, each a sentence or two."""
    said = profiles.warnings(profile, settings)
    expected = profiles.window_rows(settings, profiles.known_rate(profile))
    least = settings.window.min_records
    if expected is not None and expected < least:
        said.append(
            f"a window is expected to hold {expected:,.0f} rows, fewer than `window.min_records` ({least}): most will "
            f"be undetermined. The figures above are for {measured.n_current:,} rows. Choose longer windows."
        )
    shifts = measured.changes["mean"][:, 0]
    numeric = np.flatnonzero(~np.isnan(shifts))
    blind = numeric[shifts[numeric] > WIDE_SHIFT]
    if len(blind):
        which = (
            "every numeric feature"
            if len(blind) == len(numeric)
            else f"{len(blind)} of {len(numeric)} numeric features"
        )
        said.append(
            f"windows are small for this budget: in {which} one window does not show a shift of the mean by "
            f"{WIDE_SHIFT:g} sd. Choose longer windows, or a larger budget."
        )
    if profile.calibration.alarm.panes > 1:
        said.append(f"windows overlap; the figures within {MANY_WINDOWS} windows are for windows that do not.")
    if profile.periodic:
        said.append("how one season differs from the next is not in one reference: no range of false alarms is given.")
    return said


def span(seconds: float) -> str:
    """A stretch of time in its largest unit: `27.8 days`."""
    unit, length = next((u, s) for u, s in UNITS if seconds >= s or u == "second")
    return f"{seconds / length:,.1f} {unit}s"


def per_time(rate_per_second: float) -> str:
    """A rate in the shortest unit of time that holds ten rows: `1,440 rows an hour`."""
    unit, length = next(((u, s) for u, s in reversed(UNITS) if rate_per_second * s >= 10), UNITS[0])
    return f"{rate_per_second * length:,.0f} rows {'an' if unit == 'hour' else 'a'} {unit}"


def table(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    """A title and aligned lines of a name and what there is to say of it."""
    width = max(len(name) for name, _ in rows)
    return [title, *(line for name, text in rows for line in wrapped(f"  {name:<{width}}  ", text))]


def wrapped(head: str, text: str) -> list[str]:
    """Lines of at most WIDTH columns; those after the first begin below the text."""
    return textwrap.wrap(head + text, WIDTH, subsequent_indent=" " * len(head), break_long_words=False)
