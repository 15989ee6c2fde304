"""What the pipeline remembers, as the store keeps it: the one place where both shapes are known."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from detectors.summary import Table
from driftwatch import store
from driftwatch.dedupe import Chunk, Seen
from driftwatch.errors import StateError
from driftwatch.policy import PolicyState
from driftwatch.records import Shard, Stream
from driftwatch.window import Changes, Pane, PaneKey, Parts, ShardState

T = TypeVar("T")


def stored_shards(changes: Changes) -> dict[str, store.ShardRow]:
    """Shards as rows."""
    return {
        shard: store.ShardRow(state.position, msgspec.msgpack.encode(state)) for shard, state in changes.shards.items()
    }


def stored_panes(panes: Iterable[Pane]) -> dict[store.PaneKey, store.PaneRow]:
    """Panes as rows."""
    return {
        stored_key(p.key): store.PaneRow(p.start_s, p.end_s, p.first_position, p.n_records, p.table.to_bytes())
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
        )
        for key, row in remembered.panes.items()
    ]


def restored_parts(remembered: store.Remembered, model: str) -> Parts:
    """How many parts of each window are judged."""
    return {(Stream(model, version), end_s): part for (version, end_s), part in remembered.parts.items()}


def restored_policy(remembered: store.Remembered) -> PolicyState:
    """What the policy remembered. Raises StateError."""
    return PolicyState() if remembered.policy is None else _decode(remembered.policy, PolicyState)


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


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise StateError(f"`state.path` holds a row that cannot be read: {error}. Begin with another file.") from error
