"""What a single JSON value means: as a number, a category, an embedding, a time.

An invalid or absent number is a quiet NaN with a payload (a double has 2**51 of them, JSON can write none), so that it
passes through the packing of floats like any other and is found again by one pass over the matrix.
"""

import hashlib
import math
import struct
from datetime import UTC, datetime
from typing import cast

import msgspec

from driftwatch.records import Category, Mark

LONGEST_TEXT = 256  # characters; a longer category or id is replaced by a stand-in
INVALID, ABSENT = 1, 2  # of `Records.marks` and embedding states; also the payloads of the NaNs that carry them
MISSING = 3  # of embedding states only
END_S = datetime(2201, 1, 1, tzinfo=UTC).timestamp()  # event times lie in [0, END_S)
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

_NAN_BITS = 0x7FF8_0000_0000_0000


def _marked_nan(mark: int) -> float:
    return cast(float, struct.unpack("=d", struct.pack("=Q", _NAN_BITS | mark))[0])


MISSING_NUMBER = float("nan")
INVALID_NUMBER = _marked_nan(INVALID)
ABSENT_NUMBER = _marked_nan(ABSENT)


def shown(value: object) -> str:
    """A value as an error text shows it: its repr, cut short."""
    text = repr(value[:80] if isinstance(value, str | list) else value)
    return text if len(text) <= 80 else text[:79] + "…"


def bounded(text: str) -> str:
    """The text itself, or its stand-in where it has more than 256 characters.

    The stand-in is its first 64 characters, "…" and 16 hex digits of its BLAKE2 hash: equal texts stay equal, and a
    string of 10 MB does not stay in memory. Lone surrogates, which no file or database takes, become their escape.
    """
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:64]}…{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def number(value: object) -> float:
    """A value of a numeric column: null is missing, an integer beyond a float's range infinite, no coercion."""
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    return MISSING_NUMBER if value is None else INVALID_NUMBER


def category(value: object) -> Category:
    """A value of a categorical column as its JSON text: 3, 3.0 and "3" are one, true, "True" and "true" are one."""
    if value is None or isinstance(value, Mark):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.lower() if value in {"True", "False"} else bounded(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, int | float):
        return bounded(repr(int(value)) if isinstance(value, int) or value.is_integer() else repr(value))
    return Mark.INVALID


def vector(value: object) -> list[float] | Mark | None:
    """A value of an embedding column: a list of numbers, whose length is looked at when the column is made."""
    if value is None or isinstance(value, Mark):
        return value
    if not isinstance(value, list) or not {*map(type, value)} <= {int, float}:
        return Mark.INVALID
    return [number(v) for v in value]


def read_time(value: object) -> object:
    """A time as the struct decoders read it, datetime, float or None; what is none stays as it came."""
    if isinstance(value, str):
        try:
            return msgspec.convert(value, datetime)
        except (msgspec.ValidationError, UnicodeEncodeError):
            return value  # told from a time by its type; `why_no_time` shows it
    return number(value) if type(value) is int else value


def time_s(value: object, unit: str) -> float:
    """A time in epoch seconds; a naive one is UTC; NaN where there is none."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return value / PER_SECOND[unit] if isinstance(value, float) else MISSING_NUMBER


def why_no_time(value: object, unit: str, place: str) -> str:
    """What is wrong with a time: absent, unreadable or outside 1970–2200, and then the unit that it is likely in."""
    if value is None:
        return f"expected a time at {place}; got none, and the source knows no arrival time."
    if isinstance(value, datetime):
        return f"expected a time in 1970–2200 at {place}; got {value.isoformat()}."
    if not isinstance(value, float):
        return f"expected RFC 3339 or a number of {unit} at {place}; got {shown(value)}."
    likely = next((u for u, per_second in PER_SECOND.items() if 0 <= value / per_second < END_S), None)
    hint = f" This looks like `{likely}`: set `events.time_unit: {likely}`." if likely else ""
    return f"expected a time in 1970–2200 at {place}; got {value!r} {unit}.{hint}"
