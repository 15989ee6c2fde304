"""What is answered to `GET` and `PUT` of `/v1/profile/{version}` before anything is read of a profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from http import HTTPStatus
from typing import Protocol
from urllib.parse import unquote

MOST_BYTES = 32 * 2**20  # of a profile file; those of 25 features are under 10 MB
MOST_UNPACKED = 1024 * 2**20
_ROOT = "/v1/profile"


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer: a body, or `detail` of a problem."""

    status: HTTPStatus
    body: Mapping[str, str | None] = field(default_factory=dict)
    detail: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Desk(Protocol):
    """Answers for the profiles of one model."""

    def get(self, version: str) -> Answer: ...

    def put(self, version: str, body: bytes) -> Answer: ...


def version_of(path: str) -> str | None:
    """The version that a path names, "" for the one that the profile names; None where it is no path of a profile."""
    root, slash, rest = path[: len(_ROOT)], path[len(_ROOT) : len(_ROOT) + 1], path[len(_ROOT) + 1 :]
    if root != _ROOT or slash not in ("", "/") or "/" in rest:
        return None
    return unquote(rest)


def refusal(token: str | None, authorization: str | None, length: str | None) -> Answer | None:
    """Why a PUT is refused before its body is read; None where it is not."""
    if token is None:
        detail = "No profile can be put here: `token_file` of the prometheus sink names no token. Set it."
        return Answer(HTTPStatus.FORBIDDEN, detail=detail)
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not compare_digest(given.strip().encode(), token.encode()):
        detail = "`Authorization` must be `Bearer TOKEN` with the token of `token_file`."
        return Answer(HTTPStatus.UNAUTHORIZED, detail=detail, headers={"WWW-Authenticate": "Bearer"})
    if length is None or not (length.isascii() and length.isdigit()):
        return Answer(HTTPStatus.LENGTH_REQUIRED, detail="`Content-Length` must say how long the profile is.")
    if int(length[:20]) > MOST_BYTES:
        return too_large(f"{length[:20]} bytes")
    return None


def too_large(got: str) -> Answer:
    """The answer to a profile that is too large."""
    most = f"{MOST_BYTES:,} bytes, {MOST_UNPACKED:,} unpacked"
    detail = f"A profile must hold at most {most}; got {got}. Build it from fewer rows or features."
    return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail=detail)
