"""Profiles for a configuration: what fits, what is bound, what is simulated, what is said."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sidecar import TIME, build, write_config, write_reference

from detectors import calibration
from detectors.calibration import Alarm
from detectors.profile import Profile
from driftwatch import config, profiles
from driftwatch.config import Config
from driftwatch.errors import ConfigError, DriftwatchError


@pytest.fixture(scope="session")
def profile(profile_bytes: bytes) -> Profile:
    return Profile.from_bytes(profile_bytes)


def loaded(folder: Path, **changed: object) -> Config:
    return config.load(write_config(folder, **changed))


@given(st.integers(20, 10**6), st.floats(1, 1e4))
def test_a_ladder_goes_from_end_to_end_in_steps_that_are_not_too_long(low: int, times: float) -> None:
    high = int(low * times)
    steps = profiles.ladder(low, high)
    assert steps == sorted(set(steps))
    assert steps[-1] == high
    assert steps[0] <= 1.05 * low or high <= 1.05 * low
    assert all(b <= 1.06 * profiles.LADDER**2 * a for a, b in pairwise(steps))


def test_windows_are_simulated_from_the_least_that_is_judged_to_more_than_is_expected(tmp_path: Path) -> None:
    over_time = loaded(tmp_path, window=TIME)
    assert profiles.sizes(over_time, 1.0, 3000)[0] == 83
    assert 250 in profiles.sizes(over_time, 1.0, 3000)
    assert profiles.sizes(over_time, 1.0, 3000)[-1] == 750
    assert profiles.sizes(over_time, None, 30_000)[-1] == 10 * profiles.UNKNOWN_ROWS
    over_rows = loaded(tmp_path)
    assert (profiles.sizes(over_rows, None, 3000)[0], profiles.sizes(over_rows, None, 3000)[-1]) == (80, 250)
    assert profiles.sizes(over_rows, None, 100)[-1] == 100  # a window cannot be longer than its reference


def test_a_profile_fits_windows_that_it_was_simulated_for_and_no_others(profile: Profile, tmp_path: Path) -> None:
    fits = {
        "the same": {"window": TIME},
        "rows": {},
        "another lateness": {"window": {**TIME, "lateness": "90s"}},
        "another budget": {"window": TIME, "alarms": {"budget": "1 per 5000 windows"}},
    }
    not_fit = {
        "ten times as long": {"window": {**TIME, "length": "2500s"}},
        "a tenth": {"window": {**TIME, "length": "25s", "min_records": 20}},
        "overlapping": {"window": {**TIME, "slide": "50s"}},
        "k of n": {"window": TIME, "alarms": {"for": "2 of 3"}},
    }
    assert [what for what, changed in fits.items() if not profiles.fits(profile, loaded(tmp_path, **changed))] == []
    assert [what for what, changed in not_fit.items() if profiles.fits(profile, loaded(tmp_path, **changed))] == []


def test_the_policy_that_is_simulated_is_the_configured_one(tmp_path: Path) -> None:
    settings = loaded(tmp_path, window={**TIME, "slide": "50s"}, alarms={"for": "2 of 3"})
    assert profiles.alarm_policy(settings) == Alarm(2, 3, 5)


BINDINGS: dict[str, tuple[dict[str, str], str]] = {
    "another kind": ({"x": "categorical", "y": "numeric", "c": "categorical"}, "x is numeric there, categorical here"),
    "one more": ({"x": "numeric", "y": "numeric", "c": "categorical", "z": "numeric"}, "z is not in the profile"),
    "one less": ({"x": "numeric", "c": "categorical"}, "y is not configured"),
    "another order": ({"y": "numeric", "x": "numeric", "c": "categorical"}, "their order differs"),
}


@pytest.mark.parametrize("case", BINDINGS)
def test_a_profile_of_other_features_is_refused_with_the_difference(
    profile: Profile, tmp_path: Path, case: str
) -> None:
    features, words = BINDINGS[case]
    schema = loaded(tmp_path, events={"features": features, "prediction": {"kind": "numeric"}}).event_schema()
    with pytest.raises(ConfigError) as raised:
        profiles.check_binding(profile, schema, "here")
    assert str(raised.value) == (
        f"here: the profile must be of the features in `events`: {words}. Build it again with `driftwatch profile`."
    )


def test_a_profile_may_lack_the_prediction(tmp_path: Path) -> None:
    lines = write_reference(tmp_path / "reference.csv", n=200).read_text().splitlines()
    (tmp_path / "reference.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    settings = loaded(tmp_path)
    made = Profile.from_bytes(build(tmp_path))
    assert list(made.kinds) == ["x", "y", "c"]
    profiles.check_binding(made, settings.event_schema(), "here")


def test_the_key_of_a_reference_changes_with_all_that_a_profile_depends_on(tmp_path: Path) -> None:
    file = write_reference(tmp_path / "reference.csv", n=100)
    changes: list[dict[str, object]] = [
        {},
        {"window": {"count": 300, "min_records": 80}},
        {"alarms": {"for": "2 of 3"}},
        {"detectors": {"mmd": {"rows": 100}}},
        {"events": {"features": {"x": "numeric"}}},
    ]
    keys = [profiles.reference_key(loaded(tmp_path, **changed), file) for changed in changes]
    file.write_text(file.read_text() + "1700000000,1.0,2.0,red,0.5\n")
    keys.append(profiles.reference_key(loaded(tmp_path), file))
    assert len(set(keys)) == len(keys)
    budget = loaded(tmp_path, alarms={"budget": "1 per 7 windows"}, sinks=[{"kind": "log"}])
    assert profiles.reference_key(budget, file) == keys[-1]


def test_the_events_schema_learns_what_the_profile_knows_of_categories(profile: Profile, tmp_path: Path) -> None:
    schema = profiles.with_hints(loaded(tmp_path).event_schema(), profile)
    (column,) = schema.of_kind("categorical")
    assert set(column.categories) == {"red", "green", "blue", "grey"}


def test_a_budget_over_time_needs_to_know_how_long_a_window_of_rows_lasts(profile: Profile, tmp_path: Path) -> None:
    over_time = loaded(tmp_path, alarms={"budget": "1 per 250000s", "replicas": 2})
    assert profiles.rate_per_window(over_time, profile) == pytest.approx(1 / 1000 / 2, rel=0.01)  # one row a second
    timeless = replace(profile, about={**profile.about, "rows_per_second": None})
    with pytest.raises(ConfigError, match="budget"):
        profiles.rate_per_window(over_time, timeless)
    assert profiles.rate_per_window(loaded(tmp_path), timeless) == pytest.approx(1 / 100)


def test_what_weakens_a_profile_is_said_in_sentences(profile: Profile, tmp_path: Path) -> None:
    assert profiles.warnings(profile, loaded(tmp_path)) == []
    short = replace(profile, n_rows=400)
    (said,) = profiles.warnings(short, loaded(tmp_path))
    assert said.startswith("windows of 250 rows are large beside a reference of 400:")
    dependent = replace(profile, need=100.0)
    (said,) = profiles.warnings(dependent, loaded(tmp_path))
    assert said.startswith("neighbouring rows depend on one another over about 100 rows: a window of 250 rows")
    seasonal = replace(profile, need=1000.0, segments=True, periodic=True)
    (said,) = profiles.warnings(seasonal, loaded(tmp_path))
    assert said.startswith("the reference holds a season over 1,000 rows: it is worth about 3 independent stretches.")


def test_a_profile_that_is_simulated_again_says_of_which_it_was(profile: Profile, tmp_path: Path) -> None:
    settings = loaded(tmp_path, window={"count": 100, "min_records": 90})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "DRAWS_FIT", 500)
        patch.setattr(calibration, "DRAWS_THRESHOLD", 1000)
        again = profiles.simulate_again(profile, settings)
    assert profiles.fits(again, settings)
    assert again.about["simulated_from"] == profile.hash
    assert again.hash != profile.hash
    assert again.kinds == profile.kinds
    assert again.counts.tolist() == profile.counts.tolist()


def test_a_process_that_fails_for_the_configuration_fails_for_the_configuration_here(tmp_path: Path) -> None:
    write_reference(tmp_path / "reference.csv", n=10)
    path = write_config(tmp_path, reference={"path": "reference.csv"})
    with pytest.raises(ConfigError, match=r"no profile could be built of it; the reason stands above\.$"):
        profiles.in_subprocess(path, tmp_path / "reference.csv")
    # Ends only once it was waited for, so that a fast child cannot end before the first turn.
    turned = tmp_path / "turned"
    waits = tmp_path / "waits"
    waits.write_text(f"#!/bin/sh\nuntil [ -e {turned} ]; do sleep 0.01; done\nexit 1\n")
    waits.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles.sys, "executable", str(waits))
        with pytest.raises(DriftwatchError, match=r"building its profile ended with exit code 1\.$") as raised:
            profiles.in_subprocess(path, tmp_path / "reference.csv", turned.touch)
    assert not isinstance(raised.value, ConfigError)
