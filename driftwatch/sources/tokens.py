"""Bearer tokens, which may change while the server runs."""

import hmac
import logging
from collections.abc import Callable
from pathlib import Path

from driftwatch.errors import ConfigError

_log = logging.getLogger(__name__)


class Tokens:
    """The tokens of a file, which `refresh` reads again once it is another. Raises ConfigError where there are none.

    A mounted secret is changed by turning a link to another folder: the file is another one then. While it is away or
    holds none, the tokens known last stay.
    """

    def __init__(self, path: Path, read: Callable[[], tuple[str, ...]]) -> None:
        self._path = path
        self._read = read
        self._version = _version(path)
        self._expected = _expected(read())
        self._is_lost = False

    def admit(self, authorization: str) -> bool:
        """Whether the value of `Authorization` names one of them."""
        given = authorization.encode()
        return any(hmac.compare_digest(given, expected) for expected in self._expected)

    def refresh(self) -> None:
        """Reads the file again if it has changed."""
        version = _version(self._path)
        if version == self._version and not self._is_lost:
            return
        try:
            self._expected = _expected(self._read())
        except ConfigError as error:
            if not self._is_lost:
                _log.error("the tokens known last stay: %s", error)
            self._is_lost = True
        else:
            _log.info("%s: %d tokens, read again", self._path, len(self._expected))
            self._version, self._is_lost = version, False


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _expected(tokens: tuple[str, ...]) -> list[bytes]:
    return [f"Bearer {token}".encode() for token in tokens]
