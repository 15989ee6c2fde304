"""What the pipeline remembers, as the store keeps it: the one place where both shapes are known."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from detectors.summary import Table
from driftwatch import store
from driftwatch.alarms import PolicyState
from driftwatch.dedupe import Chunk, Seen
from driftwatch.errors import StateError
from driftwatch.loss_watch import Followed, Watched
from driftwatch.protocols import CommitMark
from driftwatch.records import Shard, Stream
from driftwatch.store_labels import LossChanges
from driftwatch.window import Pane, PaneKey, Parts, ShardState

T = TypeVar("T")


def stored_shards(shards: Mapping[Shard, ShardState]) -> dict[str, store.ShardRow]:
    """Shards as rows."""
    return {shard: store.ShardRow(state.position, msgspec.msgpack.encode(state)) for shard, state in shards.items()}


def stored_panes(panes: Iterable[Pane]) -> dict[store.PaneKey, store.PaneRow]:
    """Panes as rows."""
    return {
        stored_key(p.key): store.PaneRow(
            p.start_s, p.end_s, p.first_position, p.n_records, p.table.to_bytes(), p.ledger
        )
        for p in panes
    }


def stored_key(key: PaneKey) -> store.PaneKey:
    """A pane's key as the store has it."""
    return store.PaneKey(key.shard, key.stream.version, key.index, key.profile)


def restored_shards(remembered: store.Remembered) -> dict[Shard, ShardState]:
    """The inverse of `stored_shards`. Raises StateError."""
    return {Shard(name): _decode(row.state, ShardState) for name, row in remembered.shards.items()}


def restored_panes(remembered: store.Remembered, model: str) -> list[Pane]:
    """The inverse of `stored_panes`."""
    return [
        Pane(
            PaneKey(Shard(key.shard), Stream(model, key.version), key.number, key.profile),
            row.start_s,
            row.end_s,
            row.first_position,
            row.n_records,
            Table.from_bytes(row.body),
            row.ledger,
        )
        for key, row in remembered.panes.items()
    ]


def restored_parts(remembered: store.Remembered, model: str) -> Parts:
    """How many parts of each window are judged."""
    return {(Stream(model, version), end_s): part for (version, end_s), part in remembered.parts.items()}


def restored_policy(remembered: store.Remembered) -> PolicyState:
    """What the policy remembered. Raises StateError."""
    return PolicyState() if remembered.policy is None else _decode(remembered.policy, PolicyState)


def stored_losses(before: Watched, now: Watched) -> LossChanges:
    """What has changed among the losses that are followed."""
    changed = {key: one for key, one in now.items() if before.get(key) is not one}
    return LossChanges(
        {key: msgspec.msgpack.encode(one) for key, one in changed.items()}, [key for key in before if key not in now]
    )


def restored_losses(remembered: store.Remembered) -> Watched:
    """The inverse of `stored_losses`. Raises StateError."""
    return {key: _decode(state, Followed) for key, state in remembered.losses.items()}


def restored_seen(remembered: store.Remembered, shard: Shard, size: int) -> Seen:
    """The ids that a shard has shown."""
    seen = Seen(size)
    seen.restore(Chunk(chunk.first, list(chunk.ids)) for chunk in remembered.seen if chunk.shard == shard)
    return seen


def stored_seen(seen: Mapping[Shard, Seen]) -> tuple[list[store.SeenChunk], dict[str, int]]:
    """The ids shown since the last call, and from which number on a shard's ids still matter."""
    chunks = [(shard, chunk) for shard, ids in seen.items() if (chunk := ids.new_chunk()) is not None]
    rows = [store.SeenChunk(shard, chunk.first, chunk.ids) for shard, chunk in chunks]
    return rows, {shard: seen[shard].oldest for shard, _ in chunks}


ALL_SEEN = 1 << 62
"""From this number on a shard's ids matter = none of those stored does."""


def mark(state: ShardState, rewind: int, store_id: str) -> CommitMark:
    """What the source is to remember of a shard for whoever reads it next: an owner, read up to, open from."""
    metadata: dict[str, str | int | float] = {"o": store_id, "r": state.read_to}
    if state.open_from_s is not None:
        metadata["f"] = state.open_from_s
    return CommitMark(rewind, metadata)


def is_ours(committed: CommitMark | None, position: int, store_id: str) -> bool:
    """Whether nobody else has read the shard since we stored `position`, as far as the source remembers.

    A broker that keeps no metadata leaves the owner out: then what it has must not be past what we have.
    """
    if committed is None:
        return True
    owner = committed.metadata.get("o")
    return committed.position <= position if owner is None else owner == store_id


def judged_before(committed: CommitMark | None) -> tuple[int, float | None]:
    """How far whoever committed had read, and from where on no window was judged. Not ours: nothing was."""
    found = {} if committed is None else committed.metadata
    read_to, open_from_s = found.get("r"), found.get("f")
    if not isinstance(read_to, int) or not isinstance(open_from_s, int | float):
        return read_to if isinstance(read_to, int) else 0, None
    return read_to, float(open_from_s)


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise StateError(f"`state.path` holds a row that cannot be read: {error}. Begin with another file.") from error
