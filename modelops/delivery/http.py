"""Rows as a batch of CloudEvents over HTTP, to driftwatch's `http` source or whoever else takes them."""

import http.client
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from modelops.config import read_secret
from modelops.delivery.receiver import Row, Unavailable, Unwanted
from modelops.errors import ConfigError

TIMEOUT_S = 10.0
TYPE = "modelops.prediction"
NEVER = frozenset({400, 413, 415, 422})  # about the body; the others are about the place or the moment


class HttpReceiver:
    """Posts each batch over one connection that is kept."""

    def __init__(self, url: str, token_file: Path | None, model: str) -> None:
        parts = urlsplit(url)
        self._place = f"{parts.scheme}://{parts.netloc}"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=TIMEOUT_S)
        self._token_file = token_file
        self._source = f"/modelops/{model}"

    def send(self, rows: Sequence[Row]) -> None:
        status, after_s = self._post(b"[" + b",".join(self._event(row) for row in rows) + b"]")
        if 200 <= status < 300:
            return
        if status == 413 and len(rows) > 1:  # each half by itself, so that one long row costs no others
            refused = 0
            for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                try:
                    self.send(half)
                except Unwanted as unwanted:
                    refused += unwanted.n_rows
            if refused:
                raise Unwanted(f"{self._place} answers 413.", refused)
            return
        if status in NEVER:
            raise Unwanted(f"{self._place} answers {status}.", len(rows))
        raise Unavailable(f"{self._place} answers {status}.", after_s=after_s)

    def close(self) -> None:
        self._connection.close()

    def _event(self, row: Row) -> bytes:
        return msgspec.json.encode(
            {"specversion": "1.0", "id": row.id, "source": self._source, "type": TYPE,
             "datacontenttype": "application/json", "data": msgspec.Raw(row.body)}
        )  # fmt: skip

    def _post(self, body: bytes) -> tuple[int, float | None]:
        """Status and Retry-After. Raises Unavailable where there is no answer."""
        headers = {"content-type": "application/cloudevents-batch+json"}
        try:
            if self._token_file is not None:
                headers["authorization"] = f"Bearer {read_secret(self._token_file)}"
            self._connection.request("POST", self._path, body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unavailable(f"{self._place} does not answer: {str(error) or type(error).__name__}.") from error
        except ConfigError as error:
            raise Unavailable(str(error)) from error
        after = answer.headers.get("retry-after", "")
        return answer.status, float(after) if after.isascii() and after.isdigit() else None
