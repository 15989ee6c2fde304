"""Late labels as the loop meets them: where they come from, how far they have come, and which windows are due."""

from collections.abc import Callable, Mapping, Sequence
from math import inf

import numpy as np

from detectors.profile import Profile
from driftwatch import label_checkpoint, realised
from driftwatch.label_clock import LabelClock, LabelShards
from driftwatch.label_log import LabelChanges, LabelState
from driftwatch.labels import LabelBook
from driftwatch.outcomes import OutcomeCounter
from driftwatch.protocols import Assigned
from driftwatch.records import Decoded, Labels, Shard, Window
from driftwatch.window import ShardState

JOINED_TOGETHER = 4096  # labels at least, where nothing asks for them before: few at a time cost more each
PREDICTIONS, LABELS = Shard("predictions of any shard"), Shard("labels of any shard")
MOST_LOOKED_AT = 2000  # windows that wait, for provisional figures: about a week of those of five minutes


class LateLabels:
    """The book of labels, with the shards and the watermark that it follows; `counter_of` a profile counts them.

    `beside`: labels come from a source of their own. One of the two may be connected long before the other: until the
    other has a shard, one that is silent stands for it, so that what it brings is not too late for its window.
    """

    def __init__(
        self,
        book: LabelBook,
        clock: LabelClock,
        counter_of: Callable[[Profile], OutcomeCounter],
        *,
        beside: bool = False,
    ) -> None:
        self.book, self.clock, self._counter_of, self._beside = book, clock, counter_of, beside
        self.shards = LabelShards()
        self._only_labels: set[Shard] = set()
        self._others: set[Shard] = set()
        self._new: list[Labels] = []  # not joined yet

    def restore(self, shards: Mapping[Shard, ShardState], state: LabelState, now_s: float) -> None:
        """Goes on from what was stored. Raises StateError."""
        self.shards.restore(dict(shards))
        label_checkpoint.restore(self.book, state)
        self.clock.tick(now_s)
        self._stand_in()

    def know(self, profile: Profile) -> None:
        """Counts what is judged on one more profile."""
        self.book.counters[profile.hash] = self._counter_of(profile)

    def holds(self, shard: Shard) -> bool:
        """Whether a shard holds labels only, and is read for nothing else."""
        return shard in self._only_labels

    def assign(self, event: Assigned, position: int, now_s: float) -> None:
        """A shard of labels is read from `position` on."""
        self._only_labels.add(event.shard)
        self.book.expect()
        self.shards.assign(event.shard, position)
        known = self.shards.state(event.shard)
        self.clock.hold(event.shard, () if known is None else known.clock_s, now_s)
        self._stand_in()

    def watch(self, shard: Shard, clock_s: tuple[float, ...], now_s: float) -> None:
        """A shard of predictions, which may hold labels as well, is read from now on."""
        self._others.add(shard)
        self.clock.hold(shard, clock_s, now_s)
        self._stand_in()

    def _stand_in(self) -> None:
        """Has a silent shard stand for a source of which none is held, and no longer once one is."""
        for stand_in, held in ((PREDICTIONS, self._others), (LABELS, self._only_labels)):
            if held:
                self.clock.drop(stand_in)
            elif self._beside and not self.clock.holds(stand_in):
                self.clock.hold(stand_in, (), -inf)

    def drop(self, shard: Shard) -> None:
        """A shard is another's now."""
        self.clock.drop(shard)
        if shard in self._only_labels:
            self.shards.revoke(shard)
            self._only_labels.discard(shard)
        self._others.discard(shard)
        self._stand_in()

    def take(self, shard: Shard, decoded: Decoded, now_s: float) -> None:
        """What a batch held of labels, once its predictions are counted."""
        times_s = decoded.records.times_s
        if decoded.labels is not None:
            times_s = np.concatenate([times_s, decoded.labels.times_s])
            self.book.expect()
            self._new.append(decoded.labels)
            if sum(map(len, self._new)) >= JOINED_TOGETHER:
                self._join()
        self.clock.shown(shard, times_s, now_s)
        self.book.discarded["invalid"] += decoded.invalid_labels
        if shard in self._only_labels:
            self.shards.moved(shard, decoded.end, self.clock.times_s(shard))

    def _join(self) -> None:
        """Joins the labels that came since the last time."""
        if self._new:
            self.book.add(Labels.joined(self._new))
            self._new.clear()

    def changes(self) -> tuple[dict[Shard, ShardState], LabelChanges | None]:
        """What to store since the last call: of the shards of labels, and of the labels."""
        self._join()
        return self.shards.changes(), label_checkpoint.changes(self.book)

    def after(self, windows: Sequence[Window], *, finish: bool = False) -> list[Window]:
        """These windows, and those that are due for their second judgement, in the order of event time."""
        watermark_s = self.clock.watermark_s
        if windows or finish or self.book.bin_of(watermark_s) != self.book.reached:
            self._join()
        self.book.register(windows)
        due = self.book.due(watermark_s, finish=finish)
        if not due:
            return list(windows)
        latest_s = np.maximum.accumulate([w.end_s for w in windows]).tolist() if windows else []
        keyed = [(end_s, 0, i, w) for i, (end_s, w) in enumerate(zip(latest_s, windows, strict=True))]
        keyed += [(due_s, 1, i, w) for i, (due_s, w) in enumerate(due)]
        return [w for *_, w in sorted(keyed, key=lambda item: item[:3])]

    def provisional(self, min_labels: int) -> dict[str, Window]:
        """Of each version the newest window that waits and has so many labels by now, counted on those.

        It changes nothing: the second judgement does not know of it.
        """
        found: dict[str, Window] = {}
        for waiting in sorted(self.book.waiting.values(), key=lambda w: w.window.end_s, reverse=True)[:MOST_LOOKED_AT]:
            version = waiting.window.stream.version
            ledgers = [self.book.ledgers[n] for n in waiting.ledgers if n in self.book.ledgers]
            n_labels = sum(ledger.n_beside + ledger.n_labelled for ledger in ledgers)
            if version not in found and n_labels >= max(min_labels, 1):
                found[version] = realised.counted(self.book, waiting, waiting.last)
        return found
