"""Events from Kafka: a shard is a partition, a position an offset; which partitions are ours the group decides.

The group's decisions are only noted while a client is polled; the loop hears of them before it hears of any record
that came after. A partition is read from where the loop says, never from where the group's committed offset is.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

import msgspec
import numpy as np

from driftwatch.errors import SourceError
from driftwatch.protocols import Assigned, AtEnd, CommitMark, Event, Held, Revoked, Tick
from driftwatch.records import Frames, Shard
from driftwatch.sources.kafka_client import Batch, BrokerUnavailable, Change, Client, Partition

QUIET_S = 30.0  # a partition that brought nothing for so long is asked whether that is its end
LOOK_S = 5.0  # a topic that brought nothing for so long is looked for
ASK_S = 2.0  # between questions to a broker that does not answer
FLUSH_S = 3.0  # after the last transaction its commit is waited for so long
CLOSE_S = 5.0
log = logging.getLogger("driftwatch")


def shard_of(partition: Partition) -> Shard:
    """The shard that a partition is."""
    return Shard(f"{partition.topic}/{partition.number}")


def partition_of(shard: Shard) -> Partition:
    """The inverse of `shard_of`."""
    topic, _, number = shard.rpartition("/")
    return Partition(topic, int(number))


class KafkaSource:
    """A `Source` over topics whose partitions a consumer group divides.

    `connect` makes the client, and raises BrokerUnavailable until a broker answers. `lacks` is told what keeps the
    source from reading, in words, and None when it reads. After the last commit `leave` ends the connection. `labels`:
    the topics that hold labels alone.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        lacks: Callable[[str | None], object] = lambda text: None,
        *,
        labels: Set[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._labels = labels
        self._connect, self._lacks, self._clock, self._sleep = connect, lacks, clock, sleep
        self._client: Client | None = None
        self._closed = False
        self._trouble: str | None = None
        self._asked_s = -np.inf
        self._waiting: dict[Partition, None] = {}  # assigned, and not begun; as an ordered set
        self._is_new_share = False  # the group has decided anew since the loop heard what is ours
        self._next: dict[Partition, int] = {}  # of what is read: the offset of the next record
        self._heard_s: dict[Partition, float] = {}  # when it brought something last; without it: its end is known
        self._paused: Set[Shard] = frozenset()
        self._marks: dict[Partition, tuple[int, str]] = {}  # to be committed
        self._sent: dict[Partition, tuple[int, str]] | None = None  # on their way
        self._retry_s = -np.inf
        self._taken: set[Partition] = set()  # of which the group has an offset that we committed
        self._topics: Mapping[str, int] = {}  # how many partitions each has, when last looked for
        self._looked_s = clock()
        self._why = ""  # what keeps us from reading, as it was last passed on
        self._topic_heard_s: dict[str, float] = {}
        self._lost: list[Partition] = []  # whose topic is gone, and the loop has not heard of it

    # The source's side of the loop ----------------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        while self._client is None:
            if self._closed:
                return
            self._try_to_connect()
            yield Tick()
        while not self._closed:
            polled = self._client.poll()
            self._send()
            if polled.changes:  # what this poll brought beside may be from before them, and will be read again
                yield from self._changed(polled.changes)
            else:
                for batch in polled.batches:
                    yield from self._frames(batch)
            self._waiting.update(dict.fromkeys(p for p in polled.out_of_range if p in self._next))
            yield from self._begun(self._client)
            yield from self._ended(self._client)
            self._look_for_topics(self._client)
            self._look_after(self._client)
            if not polled.batches:
                yield Tick()

    def begin(self, shard: Shard, position: int) -> None:
        self._next[partition_of(shard)] = position

    def pause(self, shards: Set[Shard]) -> None:
        if shards != self._paused and self._client is not None:
            self._paused = shards
            self._client.pause({partition_of(shard) for shard in shards})

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None:
        for shard, mark in marks.items():
            text = msgspec.json.encode(mark.metadata).decode()
            self._marks[partition_of(shard)] = mark.position, text
        self._send()

    def close(self) -> None:
        self._closed = True

    def leave(self) -> None:
        """Waits a moment for the last commit to be taken, then ends the connection; the place in the group stays."""
        client = self._client
        if client is None:
            return
        until_s = self._clock() + FLUSH_S
        try:
            while (self._marks or self._sent is not None) and self._trouble is None and self._clock() < until_s:
                self._send()
                client.poll()
                self._trouble = client.trouble
        except SourceError as error:
            log.warning("the last commit was not taken: %s", error)
        closing = threading.Thread(target=_close, args=(client,), name="driftwatch-kafka-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)  # a broker that is gone must not hold up the end

    @property
    def lag(self) -> int | None:
        """Records that the broker has and the loop has not; None while that is not known."""
        client = self._client
        if client is None or not self._next:
            return None
        ends = {p: client.known_end(p) for p in self._next}
        known = [max(0, end - self._next[p]) for p, end in ends.items() if end is not None]
        return sum(known) if known else None

    # ----------------------------------------------------------------------------------------------------------------

    def _try_to_connect(self) -> None:
        started_s = self._clock()
        try:
            self._client = self._connect()
        except BrokerUnavailable as error:
            self._say(str(error))
            self._sleep(max(0.0, min(1.0, started_s + 1.0 - self._clock())))  # where it fails at once

    def _say(self, trouble: str | None) -> None:
        """States whether a broker answers; one line in the log when that changes."""
        if (trouble is None) != (self._trouble is None):
            if trouble is None:
                log.info("Kafka answers again")
            else:
                log.warning("Kafka does not answer (%s); it is tried until it does", trouble)
        self._trouble = trouble
        self._tell()

    def _tell(self) -> None:
        """Passes on what keeps the source from reading, where that has changed; an outage's cause may change."""
        gone = ", ".join(self._gone)
        why = "outage" if self._trouble is not None else gone
        if why != self._why:
            self._why = why
            outage = f"Kafka does not answer: {self._trouble}"
            self._lacks(outage if self._trouble is not None else f"the topic {gone} does not exist" if gone else None)

    @property
    def _gone(self) -> list[str]:
        return [topic for topic, n in self._topics.items() if n == 0]

    def _look_for_topics(self, client: Client) -> None:
        """Asks whether the topics are there, where one has brought nothing for a while."""
        now_s = self._clock()
        heard_s = min((self._topic_heard_s.get(t, -np.inf) for t in self._topics), default=-np.inf)
        if self._trouble is None and now_s >= max(self._looked_s, heard_s) + LOOK_S:
            self._look(client)

    def _look(self, client: Client) -> None:
        before, self._looked_s = set(self._gone), self._clock()
        try:
            self._topics = client.topics()
        except BrokerUnavailable as error:
            client.trouble = str(error)
            return
        for topic in sorted(before.symmetric_difference(self._gone)):
            read = [partition for partition in self._next if partition.topic == topic]
            if topic in before:
                log.info("the topic %s is there again", topic)
                self._waiting.update(dict.fromkeys(read))  # it may be another one, in which we are nowhere yet
            else:
                log.warning("the topic %s does not exist; it is looked for every %d s", topic, LOOK_S)
                self._lost.extend(read)
        self._tell()

    def _changed(self, changes: Sequence[Change]) -> Iterator[Event]:
        if self._client is not None and any(p in self._next for what, ps in changes if what == "revoked" for p in ps):
            self._look(self._client)
        for what, partitions in changes:
            for partition in partitions:
                was_read = self._next.pop(partition, None) is not None
                self._heard_s.pop(partition, None)
                self._waiting.pop(partition, None)
                if what == "assigned":
                    self._waiting[partition] = None
                    self._is_new_share = True
                elif was_read:
                    self._marks.pop(partition, None)  # they are another's to make now
                    if self._topics.get(partition.topic) == 0:  # nobody's: what was counted of it is kept
                        yield AtEnd(shard_of(partition), final=False)
                    else:
                        yield Revoked(shard_of(partition))

    def _begun(self, client: Client) -> Iterator[Event]:
        """Has the loop say where to begin with what was assigned, once the broker has said what there is."""
        if not self._waiting or (self._trouble is not None and self._clock() < self._asked_s + ASK_S):
            return
        self._asked_s = self._clock()
        try:
            bounds = client.bounds(self._waiting)
        except BrokerUnavailable as error:
            client.trouble = str(error)
            return
        for partition, (start, end, committed) in bounds.items():
            mark = None if committed is None else CommitMark(committed[0], _metadata(committed[1]))
            # What we committed is gone with the topic that it was of.
            anew = mark is None and partition in self._taken
            self._taken.discard(partition)
            yield Assigned(shard_of(partition), start, end, mark, anew, partition[0] in self._labels)
            self._heard_s[partition] = self._clock()
        self._waiting.clear()
        if self._is_new_share:
            self._is_new_share = False
            self._look(client)
            gone = tuple(f"{topic}/" for topic in self._gone)
            yield Held(frozenset(map(shard_of, self._next)), sum(self._topics.values()) or None, gone)
        client.read_from({partition: self._next[partition] for partition in bounds if partition in self._next})
        if self._paused:
            client.pause({partition_of(shard) for shard in self._paused})

    def _frames(self, batch: Batch) -> Iterator[Event]:
        partition = batch.partition
        due = self._next.get(partition)
        if due is None or partition in self._waiting or self._topics.get(partition.topic) == 0:
            return
        if batch.offsets[0] < due:  # a new topic of that name, whose offsets begin anew
            self._waiting[partition] = None
            return
        end = int(batch.offsets[-1]) + 1
        self._next[partition] = end
        self._heard_s[partition] = self._topic_heard_s[partition.topic] = self._clock()
        times_ms = np.asarray(batch.times_ms, np.float64)
        yield Frames(
            shard_of(partition),
            batch.messages,
            np.append(np.asarray(batch.offsets, np.int64), end),
            np.where(times_ms >= 0, times_ms / 1000, np.nan),
            batch.headers,
        )

    def _ended(self, client: Client) -> Iterator[Event]:
        """Asks the broker whether partitions that bring nothing are at their end: only it can say so."""
        for partition in self._lost:
            if partition in self._next:
                self._heard_s.pop(partition, None)
                yield AtEnd(shard_of(partition), final=False)
        self._lost.clear()
        now_s = self._clock()
        if self._trouble is not None or now_s < self._asked_s + ASK_S:
            return
        quiet = [p for p, heard_s in self._heard_s.items() if now_s - heard_s >= QUIET_S and p not in self._waiting]
        if not quiet:
            return
        self._asked_s = now_s
        try:
            ends = client.ends(quiet)
        except BrokerUnavailable as error:
            client.trouble = str(error)
            return
        for partition, end in ends.items():
            if max(self._next[partition], client.position(partition)) >= end:
                del self._heard_s[partition]
                yield AtEnd(shard_of(partition), final=False)
            else:
                self._heard_s[partition] = now_s  # paused, or on its way

    def _look_after(self, client: Client) -> None:
        """Asks the broker whether it answers where that is in doubt: one connection of many that fails is no outage."""
        trouble = client.trouble
        if trouble is not None and self._next:
            if self._clock() < self._asked_s + ASK_S:
                return
            self._asked_s = self._clock()
            self._look(client)
            trouble = None if client.trouble is None else trouble
        self._say(trouble)

    def _send(self) -> None:
        """Commits what waits to be, unless something is on its way or the broker does not answer."""
        client = self._client
        if client is None or self._sent is not None or self._trouble is not None or self._clock() < self._retry_s:
            return
        there = [partition for partition in self._next if self._topics.get(partition.topic) != 0]
        due = {partition: self._marks[partition] for partition in there if partition in self._marks}
        if not due:
            return
        self._sent, self._marks = due, {}
        try:
            client.commit(due, self._answered)
        except BrokerUnavailable:
            self._answered(False)

    def _answered(self, taken: bool) -> None:
        sent, self._sent = self._sent, None
        if taken and sent is not None:
            self._taken.update(sent)
        if not taken and sent is not None:
            self._marks = sent | self._marks
            self._retry_s = self._clock() + 1.0


def _close(client: Client) -> None:
    try:
        client.close()
    except SourceError as error:
        log.warning("the connection with Kafka was not ended in order: %s", error)


def _metadata(text: str) -> Mapping[str, str | int | float]:
    """What we, or something else, wrote beside a committed offset; nothing where it is not ours."""
    try:
        return msgspec.json.decode(text, type=dict[str, str | int | float])
    except msgspec.MsgspecError:
        return {}
