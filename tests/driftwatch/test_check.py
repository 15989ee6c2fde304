"""`driftwatch check` on small references: what it prints, and what it refuses."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from detectors import calibration, power
from driftwatch import check, config, profiles
from driftwatch.errors import ConfigError

N_ROWS = 4000
EVERY_S = 5


def write_reference(path: Path) -> None:
    """Two hours and more of rows: independent ones, and `slow` with an autocorrelation of .9."""
    rng = np.random.default_rng(0)
    noise, slow = rng.normal(size=N_ROWS), np.empty(N_ROWS)
    slow[0] = noise[0]
    for i in range(1, N_ROWS):
        slow[i] = 0.9 * slow[i - 1] + noise[i]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "age", "slow", "region"])
        regions = rng.choice(["east", "west", "north"], N_ROWS, p=[0.6, 0.3, 0.1])
        times = 1_740_960_000 + EVERY_S * np.arange(N_ROWS)
        writer.writerows(zip(times, rng.normal(40, 10, N_ROWS), slow, regions, strict=True))


def write_config(folder: Path, **sections: object) -> Path:
    data: dict[str, object] = {
        "model": {"name": "credit", "version": "1"},
        "events": {"features": {"age": "numeric", "region": "categorical"}},
        "reference": {"path": "reference.csv"},
        "window": {"length": "10m", "min_records": 120},
        "alarms": {"budget": "1 per 7d"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(data | sections))
    return path


@pytest.fixture(scope="module", autouse=True)
def _few_draws() -> Iterator[None]:
    """What the figures are worth is tested with the statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "DRAWS_FIT", 4000)
        patch.setattr(calibration, "DRAWS_THRESHOLD", 8000)
        patch.setattr(power, "REFERENCES", 30)
        patch.setattr(power, "DRAWS", 60)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("check")
    write_reference(made / "reference.csv")
    settings = config.load(write_config(made))
    (made / "credit.profile").write_bytes(profiles.build_profile(settings, made / "reference.csv").to_bytes())
    return made


def line_of(report: str, begins: str) -> str:
    (found,) = [line for line in report.splitlines() if line.strip().startswith(begins)]
    return found


def numbers(text: str) -> list[float]:
    return [float(n.replace(",", "")) for n in re.findall(r"(?<![\w.])[\d,]+(?:\.\d+)?", text)]


def test_the_report_says_what_was_read_how_often_it_errs_and_what_it_finds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main(write_config(folder), folder / "credit.profile") == 0
    report = capsys.readouterr().out
    assert max(map(len, report.splitlines())) <= check.WIDTH
    assert line_of(report, "rows").split(maxsplit=1)[1] == "4,000 over 5.6 hours, 12 rows a minute"
    assert line_of(report, "features").split(maxsplit=1)[1] == "1 numeric, 1 categorical"
    assert line_of(report, "worth").split()[1] == "4,000"
    assert "10m, about 120 rows" in line_of(report, "windows")
    assert "1 false alarm in 1,008 windows" in line_of(report, "budget")

    assert "False alarms in 7d" in report
    (average,) = numbers(line_of(report, "on average"))
    assert 0.2 < average < 2.5  # about 9 of 9,000 windows
    low, high = numbers(line_of(report, "for this reference").split("of 10")[1])
    assert low <= average <= high

    mean, mean_in_ten, spread, spread_in_ten, missing, missing_in_ten = numbers(line_of(report, "age"))
    assert 0 < mean_in_ten < mean < 1
    assert 1 < spread_in_ten < spread < 2
    assert 0 < missing_in_ten < missing < 10
    assert len(numbers(line_of(report, "region"))) == 6


def test_dependent_rows_are_said_to_be_worth_fewer_and_windows_to_be_small(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = {
        "events": {"features": {"slow": "numeric"}},
        "window": {"length": "5m"},
        "detectors": {"mmd": {"rows": 0}},
    }
    assert check.main(write_config(folder, **features), None) == 0
    report = capsys.readouterr().out
    assert numbers(line_of(report, "worth"))[0] < N_ROWS / 10
    warned = " ".join(report.split("\n! ", 1)[1].split())
    assert "neighbouring rows depend on one another" in warned
    assert "fewer than `window.min_records` (200)" in warned
    assert "in every numeric feature one window does not show a shift of the mean by 1 sd" in warned


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"reference": None}, "`reference` must be given"),
        ({"reference": {"profile": "nothing.profile"}}, "nothing.profile"),
        ({"reference": {"profile": "."}, "model": {"name": "credit", "version": "2"}}, "a profile of version '2'"),
        (
            {"reference": {"profile": "credit.profile"}, "events": {"features": {"age": "categorical"}}},
            "age is numeric",
        ),
        ({"sinks": [{"kind": "webhook", "url": "https://a.test/", "secret_file": "no_secret"}]}, "no_secret"),
        ({"alarms": {"budget": "9 per 1m"}}, "alarms.budget"),
    ],
)
def test_what_cannot_work_is_refused_with_its_name_before_anything_is_measured(
    folder: Path, sections: dict[str, object], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        check.main(write_config(folder, **sections), None)
    assert capsys.readouterr().out == ""


def test_of_a_folder_of_profiles_the_configured_version_is_taken(folder: Path) -> None:
    settings = config.load(write_config(folder, reference={"profile": "."}))
    found = check.find_profile(settings, None)
    assert found.hash == profiles.load_profile(folder / "credit.profile").hash
    assert len(found.codes) == N_ROWS


def test_a_profile_made_for_other_windows_is_simulated_again(folder: Path) -> None:
    settings = config.load(write_config(folder, window={"count": 1000, "min_records": 1000}))
    old = profiles.load_profile(folder / "credit.profile")
    found = check.find_profile(settings, folder / "credit.profile")
    assert not profiles.fits(old, settings)
    assert profiles.fits(found, settings)
    assert found.about["simulated_from"] == old.hash


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0.4 seconds"), (90, "1.5 minutes"), (7200, "2.0 hours"), (864_000, "10.0 days")]
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert check.span(seconds) == words


@pytest.mark.parametrize(
    ("rate", "words"), [(1000, "1,000 rows a second"), (1 / 60, "60 rows an hour"), (1e-6, "0 rows a day")]
)
def test_a_rate_is_told_in_the_shortest_unit_that_holds_ten_rows(rate: float, words: str) -> None:
    assert check.per_time(rate) == words


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert check.shortened("a" * 24) == "a" * 24
    assert check.shortened("first_" + "x" * 40 + "_last") == "first_xxxxx…xxxxxx_last"
