"""What of a windower's state changed since the last save."""

from collections.abc import Callable

from driftwatch.records import Shard
from driftwatch.window import Changes, Pane, PaneKey, ShardState


class Unsaved:
    """Shards and panes to write, and panes to take out of the store, until `take` hands them over."""

    def __init__(self) -> None:
        self._shards: set[Shard] = set()
        self._panes: dict[PaneKey, Pane] = {}
        self._dropped: dict[PaneKey, None] = {}  # as an ordered set

    def touch(self, *shards: Shard) -> None:
        """The state of these shards is another now."""
        self._shards.update(shards)

    def keep(self, pane: Pane) -> None:
        """The pane is new, or has grown."""
        self._panes[pane.key] = pane

    def drop(self, pane: Pane) -> None:
        """The pane is gone."""
        self._panes.pop(pane.key, None)
        self._dropped[pane.key] = None

    def take(self, state: Callable[[Shard], ShardState | None]) -> Changes:
        """What to store since the last call; `state` tells what is remembered of a shard."""
        shards = {shard: now for shard in sorted(self._shards) if (now := state(shard)) is not None}
        # A key that was dropped and came again is written over.
        dropped = [key for key in self._dropped if key not in self._panes]
        panes = list(self._panes.values())
        self._shards, self._panes, self._dropped = set(), {}, {}
        return Changes(shards, panes, dropped)
