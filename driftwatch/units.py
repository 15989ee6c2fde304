"""Quantities as people write them in a configuration: durations, byte sizes, the alarm budget, `k of n`."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from driftwatch.errors import ConfigError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
BYTES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
LONGEST_S = 36_500 * 86_400  # a hundred years: a longer one is a slip, and would leave the range of time stamps

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?[smhd]$"
BYTES_PATTERN = r"^[0-9]+ ?(B|kB|MB|GB|KiB|MiB|GiB)?$"
BUDGET_PATTERN = r"^[0-9]+ +per +([0-9]+(\.[0-9]+)?[smhd]|[0-9]+ +windows?)$"
PERSISTENCE_PATTERN = r"^[0-9]+ +of +[0-9]+$"


def parse_duration(text: object) -> float:
    """Seconds of `30s`, `5m`, `1.5h` or `7d`. Raises ValueError."""
    if not isinstance(text, str) or not re.fullmatch(DURATION_PATTERN, text):
        hint = f" Did you mean `{text}s`?" if isinstance(text, int | float) and not isinstance(text, bool) else ""
        raise ValueError(f"must be a duration such as 30s, 5m, 1h or 7d; got {text!r}.{hint}")
    seconds = float(text[:-1]) * SECONDS[text[-1]]
    if seconds > LONGEST_S:
        raise ValueError(f"must be at most {format_duration(LONGEST_S)}; got {text!r}.")
    return seconds


def parse_positive_duration(text: object) -> float:
    """Like `parse_duration`, but refuses 0s."""
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError(f"must be longer than 0s; got {text!r}.")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as the same number of seconds."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % SECONDS[unit] == 0:
            return f"{int(seconds // SECONDS[unit])}{unit}"
    return f"{int(seconds) if seconds == int(seconds) else format(Decimal(repr(seconds)), 'f')}s"


def parse_bytes(text: object) -> int:
    """Bytes of `1GiB`, `8 MiB`, `500kB` or a whole number. Raises ValueError."""
    match = re.fullmatch(r"^([0-9]+) ?([A-Za-z]*)$", str(text)) if not isinstance(text, bool) else None
    if match is None or match[2] not in BYTES or int(match[1]) == 0:
        raise ValueError(f"must be a size above 0 such as 500kB, 8MiB or 1GiB; got {text!r}.")
    return int(match[1]) * BYTES[match[2]]


def format_bytes(size: int) -> str:
    """The text with the largest binary unit that `parse_bytes` reads back as the same size."""
    unit = next((u for u in ("GiB", "MiB", "KiB") if size % BYTES[u] == 0), "B")
    return f"{size // BYTES[unit]}{unit}"


@dataclass(frozen=True, slots=True)
class Budget:
    """How many false alarms are acceptable: `alarms` in `per_seconds` of event time, or in `per_windows` windows."""

    alarms: int
    per_seconds: float | None = None
    per_windows: int | None = None

    @classmethod
    def parse(cls, text: object) -> Self:
        """Reads `1 per 30d` or `1 per 1000 windows`. Raises ValueError."""
        if isinstance(text, str) and re.fullmatch(BUDGET_PATTERN, text):
            alarms, per = re.split(r" +per +", text)
            if int(alarms) == 0:
                raise ValueError(
                    f"must allow at least 1 alarm; got {text!r}. Choose a longer period, such as 1 per 3650d."
                )
            if "window" not in per:
                return cls(int(alarms), per_seconds=parse_positive_duration(per))
            windows = int(per.split()[0])
            if windows <= int(alarms):
                raise ValueError(f"must allow fewer alarms than windows; got {text!r}.")
            return cls(int(alarms), per_windows=windows)
        raise ValueError(
            f"must be `N per DURATION` or `N per M windows`, such as 1 per 30d or 1 per 1000 windows; got {text!r}."
        )

    def __str__(self) -> str:
        per = f"{self.per_windows} windows" if self.per_seconds is None else format_duration(self.per_seconds)
        return f"{self.alarms} per {per}"

    def rate_per_window(self, window_seconds: float | None) -> float:
        """False alarms a window, below 1.

        `window_seconds` is the event time from one window's end to the next one's: `slide`, or for count windows what
        the reference shows; None where nobody knows. Raises ConfigError where the budget cannot be turned into a rate.
        """
        if self.per_windows is not None:
            return self.alarms / self.per_windows
        if self.per_seconds is None or window_seconds is None:
            raise ConfigError(
                "`alarms.budget` must be `N per M windows` where nothing says how long a count window lasts;"
                f" got {str(self)!r}. Write 1 per 1000 windows, or give the reference a time column."
            )
        rate = self.alarms * window_seconds / self.per_seconds
        if rate >= 1:
            raise ConfigError(
                f"`alarms.budget` must allow fewer alarms than windows; got {str(self)!r} with a window every"
                f" {window_seconds:g} s. Choose fewer alarms or a longer period."
            )
        return rate


@dataclass(frozen=True, slots=True)
class Persistence:
    """An alarm opens when `k` of the last `n` determined windows drift."""

    k: int
    n: int

    @classmethod
    def parse(cls, text: object) -> Self:
        """Reads `2 of 3`. Raises ValueError."""
        if isinstance(text, str) and re.fullmatch(PERSISTENCE_PATTERN, text):
            k, n = (int(part) for part in re.split(r" +of +", text))
            if 1 <= k <= n <= 100:
                return cls(k, n)
        raise ValueError(f"must be `k of n` with 1 ≤ k ≤ n ≤ 100, such as 2 of 3; got {text!r}.")

    def __str__(self) -> str:
        return f"{self.k} of {self.n}"
