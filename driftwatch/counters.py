"""On which profile a pane is counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detectors.profile import Profile
from driftwatch.count import ProfileCounter, RowCounter
from driftwatch.figures import Figures
from driftwatch.records import LEARNING, NO_PROFILE, Schema, Stream
from driftwatch.window import Counter


@dataclass
class Counters:
    """The counter of each version: the profile that holds for a pane by its start, or rows alone where none does.

    `assignments`: by version, (since, profile) in the order of time. `learning`: the version that is being learned.
    `figures`: what else is counted.
    """

    schema: Schema
    assignments: Mapping[str, Sequence[tuple[float, Profile]]]
    learning: str | None = None
    figures: Figures | None = None
    _made: dict[str, ProfileCounter] = field(default_factory=dict)

    def __call__(self, stream: Stream, start_s: float) -> Counter:
        """The last assignment that holds at the pane's start."""
        assigned = self.assignments.get(stream.version, ())
        profile = next((p for since, p in reversed(assigned) if since <= start_s), None)
        if profile is None:
            return RowCounter(LEARNING if stream.version == self.learning else NO_PROFILE)
        if profile.hash not in self._made:
            self._made[profile.hash] = ProfileCounter(profile, self.schema, self.figures)
        return self._made[profile.hash]

    def assign(self, version: str, since_s: float, profile: Profile) -> None:
        """Counts panes of the version that start at `since_s` or later on the profile."""
        before = [(since, p) for since, p in self.assignments.get(version, ()) if since < since_s]
        self.assignments = {**self.assignments, version: [*before[-1:], (since_s, profile)]}
        self._forget_unassigned()

    def forget(self, version: str) -> None:
        """Counts nothing but rows of the version."""
        self.assignments = {v: pairs for v, pairs in self.assignments.items() if v != version}
        self._forget_unassigned()

    def _forget_unassigned(self) -> None:
        known = {profile.hash for pairs in self.assignments.values() for _, profile in pairs}
        self._made = {name: made for name, made in self._made.items() if name in known}
