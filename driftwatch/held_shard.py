"""A shard as the windower of event time holds it."""

from dataclasses import dataclass, field

from driftwatch.clock import Clock
from driftwatch.gap import Gap
from driftwatch.window import Pane, PaneKey

NEVER = -(1 << 62)  # the index of a pane before every other


@dataclass(slots=True, eq=False)
class HeldShard:
    """A shard as it is being read. A window goes by the index of its last pane.

    Windows below `open_window` are judged; panes below `frontier` have ended by the shard's own clock.
    """

    position: int
    read_to: int
    clock: Clock
    frontier: int
    open_window: int
    heard_s: float  # machine time of the last row, or of anything else that excuses silence
    at_end: bool = False
    final: bool = False
    panes: dict[PaneKey, Pane] = field(default_factory=dict)
    gap: Gap | None = None
