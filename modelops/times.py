"""Times and durations as people write them. Inside the code a time is epoch seconds and a duration is seconds."""

import re
from datetime import UTC, datetime

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?[smhd]$"


def rfc3339(epoch_s: float) -> str:
    """A time in UTC with `Z`; microseconds only where they are not zero.

    >>> rfc3339(0), rfc3339(1.5)
    ('1970-01-01T00:00:00Z', '1970-01-01T00:00:01.500000Z')
    """
    seconds, microseconds = divmod(round(epoch_s * 1_000_000), 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds, tzinfo=None).isoformat() + "Z"


def parse_time(text: str) -> float:
    """Epoch seconds of an RFC 3339 time; without an offset it is UTC. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def parse_duration(text: object) -> float:
    """Seconds of `30s`, `5m`, `1.5h` or `7d`. Raises ValueError.

    >>> parse_duration("5m")
    300.0
    """
    if not isinstance(text, str) or not re.fullmatch(DURATION_PATTERN, text):
        hint = f" Did you mean `{text}s`?" if isinstance(text, int | float) and not isinstance(text, bool) else ""
        raise ValueError(f"must be a duration such as 30s, 5m, 1h or 7d; got {text!r}.{hint}")
    return float(text[:-1]) * SECONDS[text[-1]]


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as the same number of seconds.

    >>> format_duration(300.0), format_duration(0.5)
    ('5m', '0.5s')
    """
    for unit in ("d", "h", "m"):
        if seconds and seconds % SECONDS[unit] == 0:
            return f"{int(seconds // SECONDS[unit])}{unit}"
    return f"{seconds:g}s"
