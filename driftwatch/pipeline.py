"""The loop: source → decode → windower → monitor → policy → store → sinks.

What a row changed and the position after it move in one transaction; scores, alarms, logs and webhooks show only what
is committed. Decisions depend on profiles, panes and alarms, never on the machine's clock, so what a crash makes us
read again gives the same ids.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

from driftwatch import checkpoint
from driftwatch.dead_letters import ahead
from driftwatch.decision import Decision, encode, rfc3339
from driftwatch.dedupe import Seen, take
from driftwatch.errors import SourceError
from driftwatch.halves import Halves
from driftwatch.late_labels import LateLabels
from driftwatch.learning import Learner
from driftwatch.loss_watch import LossWatch
from driftwatch.metrics import Metrics, Outcome
from driftwatch.monitor import Monitor
from driftwatch.outbox import Message
from driftwatch.policy import Policy
from driftwatch.protocols import Assigned, AtEnd, CommitMark, Decoder, Event, Held, Revoked, Source
from driftwatch.records import Decoded, Frames, Poison, Records, Shard, Window
from driftwatch.store import Remembered, Store, StoredDecision, Transaction
from driftwatch.window import NO_ROWS, Added, Changes, ShardState, Windower

CHECKPOINT_S, CHECKPOINT_ROWS = 2.0, 100_000


class DecisionSink(Protocol):
    """Takes committed decisions, in their order."""

    def write(self, decision: Decision, line: bytes) -> None:
        """`line`: the decision as JSON. Raises SinkError."""
        ...


class DeadLetterBox(Protocol):
    """Keeps poison with its bytes; `dropped` counts the entries that had to go since the start."""

    @property
    def dropped(self) -> int: ...

    def add(self, poison: Sequence[Poison], at: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop is made of; `app` composes it.

    `messages`: the webhooks of a decision. `safely`: runs what may fail for a reason that passes (a full disk) again
    until it does not; False = we were told to stop before it went through. `committed`: told after each transaction;
    `turned`: once a turn, how many records were read in it. `dedupe`: how many ids of a shard are remembered.
    `halves`: what the decoder keeps for later, None where it keeps nothing. `labels`: None where none are read.
    `store`: None where nothing outlives the run.
    `learner`: keeps rows that a profile is learned from, None where there is one.
    `served`: takes rows that are no duplicates. `warn`: takes a line for the log.
    """

    model: str
    source: Source
    decoder: Decoder
    windower: Windower
    monitor: Monitor
    policy: Policy
    store: Store | None
    sinks: Sequence[DecisionSink]
    dead_letters: DeadLetterBox | None
    metrics: Metrics
    messages: Callable[[Decision], list[Message]]
    safely: Callable[[Callable[[], None]], bool]
    committed: Callable[[], None]
    turned: Callable[[int], object]
    dedupe: int
    halves: Halves | None = None
    labels: LateLabels | None = None
    learner: Learner | None = None
    served: Callable[[Records], None] = lambda records: None
    warn: Callable[[str], None] = lambda text: None
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time


class Pipeline:
    """One run of the loop over a source, from what the store remembers."""

    def __init__(self, parts: Parts, remembered: Remembered) -> None:
        self._p = parts
        self._remembered = remembered
        self._policy_state = checkpoint.restored_policy(remembered)
        self._loss_watch, self._watched = LossWatch(parts.monitor), checkpoint.restored_losses(remembered)
        self._shards = checkpoint.restored_shards(remembered)
        panes = checkpoint.restored_panes(remembered, parts.model)
        parts.windower.restore(self._shards, panes, checkpoint.restored_parts(remembered, parts.model))
        if parts.halves is not None:
            parts.halves.restore(remembered.halves)
        if parts.labels is not None:
            parts.labels.restore(self._shards, remembered.labels, parts.clock())
        self._seen: dict[Shard, Seen] = {}
        self._anew: set[Shard] = set()  # shards whose stored ids do not count any more
        self._rows, self._saved_s, self._provisional_s = 0, parts.clock(), -inf
        self._share: tuple[tuple[Shard, ...], int] | None = None
        self._stopped = False
        self.decided = 0
        self.outcomes: Counter[Outcome] = Counter()

    def run(self) -> None:
        """Reads the source to its end, or until `stop`; at a final end the last windows are judged too."""
        for event in self._p.source.events():
            if not self._take(event):
                return
            self._p.turned(len(event.messages) if isinstance(event, Frames) else 0)
            # The shards of one share are assigned one by one: none is judged before all are there.
            windows = [] if isinstance(event, Assigned) else self._judgeable(self._p.windower.closed())
            if self._p.halves is not None:
                self._p.halves.reached_s = self._p.windower.reached_s if len(self._seen) > 1 else inf
            due = self._rows >= CHECKPOINT_ROWS or self._p.clock() - self._saved_s >= CHECKPOINT_S
            if (windows or due) and not self._save(windows):
                return
            self._p.source.pause(self._p.windower.paused)
        self._save([] if self._stopped else self._judgeable(self._p.windower.finish(), finish=True))

    def stop(self) -> None:
        """Ends the loop at its next turn; safe in a signal handler."""
        self._stopped = True
        self._p.source.close()

    def _judgeable(self, windows: list[Window], *, finish: bool = False) -> list[Window]:
        """These windows, and those whose labels are there; each says of which share of the shards it was counted."""
        if self._share is not None:
            windows = [replace(window, share=self._share) for window in windows]
        return windows if self._p.labels is None else self._p.labels.after(windows, finish=finish)

    # What comes in --------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> bool:
        """False: told to stop before its poison could be kept; all since the last transaction is read again."""
        windower, now_s = self._p.windower, self._p.clock()
        match event:
            case Frames():
                return self._take_frames(event, now_s)
            case Assigned():
                self._assign(event, now_s)
            case AtEnd(shard, final):
                if self._p.labels is not None:
                    self._p.labels.clock.at_end(shard, final=final, now_s=now_s)
                if not self._holds_labels(shard):
                    windower.at_end(shard, final=final, now_s=now_s)
                    if self._p.learner is not None:
                        self._p.learner.at_end(shard)
            case Revoked(shard):
                self._let_go(shard)
            case Held(shards, of, gone, beside):
                self._share = None if of is None or of <= len(shards) else (tuple(sorted(shards)), of)
                for shard in self._shards.keys() - shards - beside - self._anew:
                    if not shard.startswith(gone):
                        self._let_go(shard)
            case _:
                windower.tick(now_s)
                if self._p.labels is not None:
                    self._p.labels.clock.tick(now_s)
        return True

    def _holds_labels(self, shard: Shard) -> bool:
        return self._p.labels is not None and self._p.labels.holds(shard)

    def _assign(self, event: Assigned, now_s: float) -> None:
        """Goes on with a shard from what the store has, or counts it anew from what the source remembers."""
        windower, shard, committed = self._p.windower, event.shard, event.committed
        if event.holds_labels:
            self._assign_labels(event, now_s)
            return
        known = windower.state(shard)
        position = None if known is None else known.position
        is_another = position is not None and (event.anew or (event.end is not None and position > event.end))
        if is_another:
            self._p.warn(f"{shard} holds less than was read of it: it was made anew, and is read from its start")
            position = event.start
            windower.begin_anew(shard, position)
            windower.assign(shard, position, now_s=now_s)
            self._seen[shard] = Seen(self._p.dedupe)
            self._anew.add(shard)  # what was counted stays, its ids do not
        elif position is None or not self._is_ours(committed, position):
            self._let_go(shard)
            position = event.start if committed is None else committed.position
            if event.end is not None and position > event.end:
                position, committed, is_another = event.start, None, True
            read_to, open_from_s = checkpoint.judged_before(committed)
            self._seen[shard] = Seen(self._p.dedupe)
            windower.assign(shard, position, read_to=read_to, open_from_s=open_from_s, now_s=now_s)
        elif shard not in self._seen:
            self._seen[shard] = (
                Seen(self._p.dedupe)
                if shard in self._anew
                else checkpoint.restored_seen(self._remembered, shard, self._p.dedupe)
            )
            windower.assign(shard, position, now_s=now_s)
        if self._p.learner is not None:
            self._p.learner.assign(shard, anew=is_another)
        if self._p.labels is not None:
            state = windower.state(shard)
            self._p.labels.watch(shard, () if state is None else state.clock_s, now_s)
        self._begin(event, position)

    def _is_ours(self, committed: CommitMark | None, position: int) -> bool:
        return self._p.store is None or checkpoint.is_ours(committed, position, self._p.store.store_id)

    def _begin(self, event: Assigned, position: int) -> None:
        if lost := max(0, event.start - position):
            self._p.warn(
                f"{event.shard}: {lost} records were gone before they were read; the topic's retention is too short"
            )
            self._p.metrics.lost("retention", lost)
            if not event.holds_labels:
                self._p.windower.gap(event.shard)
        self._p.source.begin(event.shard, position + lost)

    def _assign_labels(self, event: Assigned, now_s: float) -> None:
        """Goes on with a shard of labels; one that another has read meanwhile from where that one has come to."""
        labels, shard, committed = self._p.labels, event.shard, event.committed
        if labels is None:
            raise SourceError(f"`events.label` must say what a label is; got labels from {shard} without it. Add it.")
        known = labels.shards.state(shard)
        position = None if known is None or event.anew else known.position
        if position is not None and event.end is not None and position > event.end:
            self._p.warn(f"{shard} holds less than was read of it: it was made anew, and is read from its start")
            position, committed = None, None
        if position is None or not self._is_ours(committed, position):
            position = event.start if committed is None else committed.position
        labels.assign(event, position, now_s)
        self._begin(event, position)

    def _let_go(self, shard: Shard) -> None:
        """What is not judged of a shard is another's to judge, and is counted anew should it come back."""
        if self._p.labels is not None:
            self._p.labels.drop(shard)
        self._p.windower.revoke(shard)
        if self._p.halves is not None:
            self._p.halves.release(shard)
        if self._p.learner is not None:
            self._p.learner.revoke(shard)
        self._seen.pop(shard, None)
        self._anew.add(shard)

    def _take_frames(self, frames: Frames, now_s: float) -> bool:
        decoded = self._p.decoder.decode(frames)
        records, added = self._add(frames.shard, decoded, now_s)
        if decoded.waiting_s and len(self._seen) > 1:  # rows may come of another shard's messages alone
            self._p.windower.show(frames.shard, decoded.waiting_s)
        if self._p.learner is not None and not self._holds_labels(frames.shard):
            self._p.learner.add(records, ahead=added.ahead, end=decoded.end)
        if self._p.labels is not None:
            self._p.labels.take(frames.shard, decoded, now_s)
        poison = [*decoded.poison, *(ahead(decoded.events or frames, records, int(i)) for i in added.ahead)]
        if poison and self._p.dead_letters is not None:
            box, at = self._p.dead_letters, rfc3339(int(self._p.now()))
            before = box.dropped
            if not self._p.safely(lambda: box.add(poison, at)):
                return False
            self._p.metrics.dead_letters_dropped_total.inc(box.dropped - before)
        self._rows += len((decoded.events or frames).messages)
        self._count("used", added.used)
        if not self._holds_labels(frames.shard):
            self._count("duplicate", len(decoded.records) - len(records))
        self._count("late", added.late)
        self._count("ahead", len(added.ahead))
        self._count("already_judged", added.already_judged)
        self._count("poison", len(decoded.poison))
        for p in decoded.poison:
            self._p.metrics.discarded("decode", p.reason)
        for reason, n in decoded.discarded.items():
            self._p.metrics.discarded("decode", reason, n)
        self._count("tombstone", decoded.discarded.get("tombstone", 0))
        return True

    def _add(self, shard: Shard, decoded: Decoded, now_s: float) -> tuple[Records, Added]:
        """The rows that are no duplicates, and what became of them."""
        if self._holds_labels(shard):
            if n := len(decoded.records):
                self._p.metrics.discarded("labels", "no_label", n)
            return take(decoded.records, slice(0)), Added(0, 0, NO_ROWS, 0)
        records = self._fresh(shard, decoded)
        self._p.served(records)
        return records, self._p.windower.add(records, end=decoded.end, now_s=now_s)

    def _count(self, outcome: Outcome, n: int) -> None:
        if n:
            self.outcomes[outcome] += n
            self._p.metrics.records(outcome, n)

    def _fresh(self, shard: Shard, decoded: Decoded) -> Records:
        """The rows whose ids are new."""
        kept = self._seen[shard].fresh(decoded.records.ids)
        return decoded.records if kept is None else take(decoded.records, kept)

    # What goes out --------------------------------------------------------------------------------------------------

    def _save(self, windows: Sequence[Window]) -> bool:
        """Judges windows, commits everything, then shows it. False: told to stop before it could be committed."""
        p = self._p
        decisions: list[Decision] = []
        state, watched = self._policy_state, self._watched
        for window in windows:
            started = time.perf_counter()
            judgement, watched = self._loss_watch.follow(window, p.monitor.judge(window), watched)
            decision, state = p.policy.judge(window, judgement, state)
            watched = self._loss_watch.settled(decision, watched)
            decisions.append(decision)
            p.metrics.judged_in(time.perf_counter() - started, f"{decision.window.version}/{decision.window.end}")
        lines = [encode(decision) for decision in decisions]
        changes = p.windower.changes()
        halves = None if p.halves is None else p.halves.changes()
        of_labels, labels = ({}, None) if p.labels is None else p.labels.changes()
        if (store := p.store) is not None:
            transaction = replace(
                self._transaction(changes, changes.shards | of_labels),
                halves=halves,
                labels=labels,
                policy=state.to_bytes() if decisions else None,
                losses=checkpoint.stored_losses(self._watched, watched),
                decisions=[
                    StoredDecision(w.stream.version, w.end_s, w.part, line)
                    for w, line in zip(windows, lines, strict=True)
                ],
                messages=[message for decision in decisions for message in p.messages(decision)],
            )
            if not p.safely(lambda: store.save(transaction)):
                return False
        self._policy_state, self._watched, self._rows, self._saved_s = state, watched, 0, p.clock()
        self.decided += len(decisions)
        self._anew.clear()
        if store is not None:
            p.source.commit(self._marks(store.store_id, changes.shards, of_labels))
        p.committed()
        self._show(decisions, lines)
        return True

    def _transaction(self, changes: Changes, shards: Mapping[Shard, ShardState]) -> Transaction:
        """What the rows since the last one have changed."""
        p = self._p
        seen, seen_from = checkpoint.stored_seen(self._seen)
        return Transaction(
            shards=checkpoint.stored_shards(shards),
            panes=checkpoint.stored_panes(changes.panes),
            dropped=[checkpoint.stored_key(key) for key in changes.dropped],
            seen=seen,
            seen_from=seen_from | dict.fromkeys(self._anew, checkpoint.ALL_SEEN),
            learning=None if p.learner is None else p.learner.changes(),
        )

    def _marks(
        self, store_id: str, shards: Mapping[Shard, ShardState], of_labels: Mapping[Shard, ShardState]
    ) -> dict[Shard, CommitMark]:
        """What the source is to remember of the shards that have moved."""
        read = {s: (known, self._rewind(s)) for s, known in shards.items() if known.position is not None}
        read |= {s: (known, known.position) for s, known in of_labels.items() if known.position is not None}
        return {shard: checkpoint.mark(known, position, store_id) for shard, (known, position) in read.items()}

    def _rewind(self, shard: Shard) -> int:
        """Where anybody else would have to read from: before all that is in an unjudged window, or waits."""
        position, halves = self._p.windower.rewind(shard), self._p.halves
        return position if halves is None else int(min(position, halves.rewind(shard, self._p.windower.oldest_s)))

    def _show(self, decisions: Sequence[Decision], lines: Sequence[bytes]) -> None:
        windower, metrics = self._p.windower, self._p.metrics
        if self._p.labels is not None:
            for reason, n in self._p.labels.book.discarded.items():
                metrics.discarded("labels", reason, n)
            self._p.labels.book.discarded.clear()
            self._show_provisional(self._p.labels)
        for decision, line in zip(decisions, lines, strict=True):
            for sink in self._p.sinks:
                sink.write(decision, line)
        metrics.shards({str(state): n for state, n in windower.shard_states().items()})
        metrics.open_panes.set(windower.open_panes)
        if windower.empty:
            metrics.empty_windows(windower.empty)
            windower.empty = 0
        if windower.watermark_s is not None:
            metrics.watermark_lag_seconds.set(self._p.now() - windower.watermark_s)

    def _show_provisional(self, labels: LateLabels) -> None:
        """Metrics of the labels that have come so far, every few seconds: no decision knows of them."""
        if (now_s := self._p.clock()) - self._provisional_s < CHECKPOINT_S:
            return
        self._provisional_s, monitor = now_s, self._p.monitor
        windows = labels.provisional(monitor.min_records)
        figures = {version: monitor.realised(window) for version, window in windows.items()}
        self._p.metrics.provisional(
            {v: {m.metric: float(m.value) for m, _ in found if m.value is not None} for v, found in figures.items()}
        )
