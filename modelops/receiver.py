"""The receiver of driftwatch's webhooks: it answers once the job is durable, and leaves the work to others."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelops import alarm, signature
from modelops.errors import Refused
from modelops.job_queue import JobQueue, Receipt
from modelops.policy import Limits

MOST_ADDRESSES = 1000  # whose rate is remembered; the longest silent one is forgotten


@dataclass
class Rate:
    """A token bucket for each address: `per_minute` requests a minute, as many at once."""

    per_minute: int
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, address: str, now_s: float) -> None:
        """Counts a request. Raises Refused (429) where the address has none left."""
        left, since_s = self._left.pop(address, (float(self.per_minute), now_s))
        left = min(self.per_minute, left + max(now_s - since_s, 0.0) * self.per_minute / 60)
        self._left[address] = (max(left - 1, 0.0) if left >= 1 else left, now_s)
        if len(self._left) > MOST_ADDRESSES:
            del self._left[next(iter(self._left))]
        if left < 1:
            raise Refused(
                429,
                f"at most {self.per_minute} requests a minute are taken from one address.",
                retry_after_s=1 + int((1 - left) * 60 / self.per_minute),
            )


@dataclass
class Receiver:
    """Verifies, reads and keeps webhooks. `limits`: of each known model. Safe in one thread at a time."""

    queue: JobQueue
    keys: Sequence[bytes]
    limits: Mapping[str, Limits]
    rate: Rate
    max_body: int
    now: Callable[[], float] = time.time

    def admit(self, address: str, n_bytes: int | None) -> None:
        """Before the body is read: the rate and the announced length. Raises Refused."""
        self.rate.take(address, self.now())
        if n_bytes is not None and n_bytes > self.max_body:
            raise self.too_large()

    def too_large(self) -> Refused:
        """The refusal of a body that is over the limit."""
        return Refused(413, f"the body must have at most {self.max_body} bytes.")

    def receive(self, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Keeps one webhook. Raises Refused, or StateError where it could not be kept: then it must be sent again."""
        if len(body) > self.max_body:
            raise self.too_large()
        now_s = self.now()
        webhook_id = signature.verify(self.keys, headers, body, now_s=now_s)
        said = alarm.read(webhook_id, body)
        if said.model not in self.limits:
            raise Refused(404, f"`model` must be one of {', '.join(self.limits)}; got {said.model!r}.")
        return self.queue.receive(webhook_id, said, self.limits[said.model], now_s=now_s)
