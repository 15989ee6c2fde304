"""The seams of the service: what a source yields, what a decoder and a sink take."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from driftwatch.records import Decoded, Frames, Shard


@dataclass(frozen=True, slots=True)
class Assigned:
    """A shard is ours to read. The answer is `Source.begin`. `committed`: what the source itself remembers.

    Said again of a shard that is read already, it asks where to go on: its next message is gone, or it begins anew.
    `anew`: the source knows that another log has the shard's name now.
    """

    shard: Shard
    start: int = 0  # the position of the first message that the shard still has
    end: int | None = None  # where its next message will lie, where the source knows
    committed: "CommitMark | None" = None
    anew: bool = False
    holds_labels: bool = False  # and nothing else: no window waits for it


@dataclass(frozen=True, slots=True)
class Revoked:
    """A shard is no longer ours."""

    shard: Shard


@dataclass(frozen=True, slots=True)
class Held:
    """All shards that are ours since the last assignment: what is remembered of others is theirs to judge.

    `of`: how many shards the source has, ours and others', where it knows. `gone`: the beginnings of the names of those
    that are nobody's, since the source lost them: what is remembered of them is kept. `beside`: ours as well, of
    another source, which are in no share.
    """

    shards: frozenset[Shard]
    of: int | None = None
    gone: tuple[str, ...] = ()
    beside: Set[Shard] = frozenset()


@dataclass(frozen=True, slots=True)
class AtEnd:
    """Every message that the shard had has been yielded; `final`: no more will ever come."""

    shard: Shard
    final: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing came for a moment: the loop may do what is due."""


Event = Frames | Assigned | Revoked | Held | AtEnd | Tick


@dataclass(frozen=True, slots=True)
class CommitMark:
    """Where a shard would be read again from, and what we say of it beside."""

    position: int
    metadata: Mapping[str, str | int | float] = field(default_factory=dict)


class Source(Protocol):
    """Yields events in one thread. After an `Assigned` nothing of that shard comes before `begin`."""

    def events(self) -> Iterator[Event]: ...

    def begin(self, shard: Shard, position: int) -> None: ...

    def pause(self, shards: Set[Shard]) -> None: ...

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None: ...

    def close(self) -> None: ...


class Decoder(Protocol):
    """Turns frames into records; raises nothing for what a message holds."""

    def decode(self, frames: Frames) -> Decoded: ...
