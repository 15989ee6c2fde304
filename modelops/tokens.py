"""Bearer tokens from a file, which may change while the service runs."""

import hmac
import logging
from pathlib import Path

from modelops.errors import ConfigError

log = logging.getLogger("modelops")


class Tokens:
    """The tokens of a file, one a line; read again when it is another. Raises ConfigError where there are none.

    While the file is away or empty, those known last stay.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._expected = _read(path)
        self._seen = _seen(path)

    def admit(self, authorization: str) -> bool:
        """Whether the value of `Authorization` names one of them."""
        seen = _seen(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._expected = _read(self._path)
            except ConfigError as error:
                log.warning("the tokens known last stay: %s", error)
        given = authorization.encode()
        matches = [hmac.compare_digest(given, expected) for expected in self._expected]
        return any(matches)


def _read(path: Path) -> list[bytes]:
    try:
        words = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the tokens cannot be read: {error}. Make the file readable.") from error
    if not words:
        raise ConfigError(f"{path}: must hold a token, one a line; it is empty.")
    return [f"Bearer {word}".encode() for word in words]


def _seen(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
