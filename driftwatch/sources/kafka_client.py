"""The seam between the Kafka source and a client library: what both clients are made to say and do alike."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from driftwatch.errors import ConfigError, SourceError

BATCH = 2000  # records that one poll brings at most
POLL_S = 1.0  # kafka-python loses an assignment that comes just as a shorter poll ends
REQUEST_S = 5.0
PLAIN = b"application/json"
ASK_AGAIN_S, ASK_AGAIN_MAX_S = 5.0, 3600.0


class BrokerUnavailable(SourceError):
    """No broker answers, for a reason that may pass."""


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int


class Change(NamedTuple):
    """What the group decided of some partitions."""

    what: Literal["assigned", "revoked"]
    partitions: tuple[Partition, ...]


class Bounds(NamedTuple):
    """The offsets that a partition has, and what the group committed of it: (offset, metadata)."""

    start: int
    end: int
    committed: tuple[int, str] | None


class Batch(NamedTuple):
    """Records of one partition in their order; a value that is null is empty. `times_ms` below 0: no timestamp.

    `headers`: those that say what a value is, by name in lower case; None where no record has any.
    """

    partition: Partition
    messages: Sequence[bytes]
    offsets: Sequence[int] | np.ndarray
    times_ms: Sequence[int] | np.ndarray
    headers: list[dict[str, str]] | None = None


RawHeaders = Sequence[tuple[str, bytes | None]] | None


def telling(headers: Iterable[RawHeaders]) -> list[dict[str, str]] | None:
    """Of each record's headers those that say what its value is; None where none of them does.

    These are a CloudEvent's attributes, and a content type unless it is plain JSON: so a topic whose producers add
    other headers is read as quickly as one without any.
    """
    found = [_telling(of_one) if of_one else {} for of_one in headers]
    return found if any(found) else None


def _telling(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    kept = {}
    for name, value in headers:
        key = name.lower()
        if value is not None and (key.startswith("ce_") or (key == "content-type" and not value.startswith(PLAIN))):
            kept[key] = value.decode("utf-8", "replace")
    return kept


@dataclass(slots=True)
class Polled:
    """What one poll brought. `out_of_range`: partitions whose next offset the broker does not have."""

    changes: Sequence[Change] = ()
    batches: list[Batch] = field(default_factory=list)
    out_of_range: Set[Partition] = frozenset()


class EmptyShare:
    """When a member that was given nothing is to ask again.

    A leader that was killed before it knew the topics, or before they were made, leaves an assignment of nothing
    behind. A static member is given that again at each start, and is not told that it leads: nobody would ever look
    again. Where there are more members than partitions, asking disturbs the others: so it is done ever more seldom.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since_s: float | None = None
        self._limit_s = ASK_AGAIN_S

    def given(self, n_partitions: int) -> None:
        """The group has decided."""
        self._since_s = None if n_partitions else self._clock()

    @property
    def is_overdue(self) -> bool:
        """Whether to ask now; says so once."""
        if self._since_s is None or self._clock() - self._since_s < self._limit_s:
            return False
        self._since_s, self._limit_s = self._clock(), min(2 * self._limit_s, ASK_AGAIN_MAX_S)
        return True


class Client(Protocol):
    """A member of the group. Used from one thread; `trouble` says in words why no broker answers, None = one does.

    Every call raises SourceError where reading cannot go on, BrokerUnavailable where the reason may pass.
    """

    trouble: str | None

    def poll(self) -> Polled:
        """Waits for records, up to about a second. What is assigned is not read before `read_from`."""
        ...

    def read_from(self, offsets: Mapping[Partition, int]) -> None:
        """Reads on from these offsets; partitions that are not named go on where they are."""
        ...

    def pause(self, partitions: Set[Partition]) -> None:
        """Reads nothing of these, and all others."""
        ...

    def bounds(self, partitions: Iterable[Partition]) -> dict[Partition, Bounds]:
        """Asks the broker."""
        ...

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Asks the broker for the offset after the last record of each."""
        ...

    def position(self, partition: Partition) -> int:
        """The offset that comes next, past what is no record: where a transaction ended, say."""
        ...

    def topics(self) -> dict[str, int]:
        """Asks the broker how many partitions each topic has that is to be read; 0 where it does not exist."""
        ...

    def known_end(self, partition: Partition) -> int | None:
        """The end as of the last fetch, without asking."""
        ...

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], done: Callable[[bool], None]) -> None:
        """Sends offsets with their metadata; `done` is told in a later `poll` whether the broker took them."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class Connection(NamedTuple):
    """Whom to connect with, and as whom. `settings`: the client's own, dotted."""

    brokers: tuple[str, ...]
    group: str
    member: str
    topics: tuple[str, ...]
    settings: Mapping[str, str | int | float | bool]


def merged(own: Mapping[str, Any], fixed: Set[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The client's configuration: what driftwatch sets, then the user's. Raises ConfigError for a `fixed` one."""
    for name in settings:
        if name in fixed:
            raise ConfigError(
                f"`settings` must not set {name}; got {settings[name]!r}. driftwatch sets it itself, "
                "so that nothing is lost or counted twice."
            )
    return {**own, **settings}


def fenced(member: str) -> SourceError:
    """Another process took this one's place in the group."""
    return SourceError(
        f"another process is the group's member {member}: it runs on a copy of this state file. "
        "Give each sidecar a state file of its own, and start this one again with an empty one."
    )


def refused(why: str) -> SourceError:
    """The broker does not let us in."""
    return SourceError(
        f"the broker refuses this user: {why}. Correct the user, the password or the mechanism in `settings`, "
        "or what the user may do."
    )
