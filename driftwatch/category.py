"""The text that a categorical value is compared by."""

from math import isnan
from zlib import crc32

from driftwatch.records import Category, Mark

LONGEST_CATEGORY = 256  # characters: a longer one is kept as its beginning and a checksum
KEPT_OF_LONG = 64


def category_text(value: object) -> Category:
    """What a value of a categorical column is counted as: its JSON text, None where it is missing.

    The decoder applies the same rules on its fast path; the two must agree, or a reference and its stream would not.

    - text stays as it is, but "True" and "False" are "true" and "false"; over 256 characters it becomes its first 64,
      "…" and the eight hex digits of the CRC-32 of its UTF-8, so that no 10 MB string stays in memory
    - a boolean is "true" or "false", an integer its digits
    - a float is the integer that it equals (3.0 is "3"; the text "3.0" stays "3.0"), else its shortest text
    - None and NaN are missing; anything else (list, object) is `Mark.INVALID`
    """
    match value:
        case None:
            return None
        case str():
            return _short(_BOOLEAN_TEXT.get(value, value))
        case bool():
            return "true" if value else "false"
        case int():
            return _short(str(value))
        case float():
            if isnan(value):
                return None
            return _short(str(int(value)) if value.is_integer() else repr(float(value)))
    return Mark.INVALID


_BOOLEAN_TEXT = {"True": "true", "False": "false"}


def _short(text: str) -> str:
    if len(text) <= LONGEST_CATEGORY:
        return text
    # JSON may hold half of a surrogate pair, which plain UTF-8 refuses.
    return f"{text[:KEPT_OF_LONG]}…{crc32(text.encode('utf-8', 'surrogatepass')):08x}"
