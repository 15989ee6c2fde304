"""The client confluent-kafka (librdkafka) behind the Kafka source's seam."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from driftwatch.errors import ConfigError, SourceError
from driftwatch.sources.kafka_client import (
    BATCH,
    REQUEST_S,
    Batch,
    Bounds,
    BrokerUnavailable,
    Change,
    Connection,
    EmptyShare,
    Partition,
    Polled,
    fenced,
    merged,
    refused,
    telling,
)

CONSUME, CONSUME_S = BATCH, 0.2  # a call waits until it has so many, or for so long
FIXED = frozenset(
    {"bootstrap.servers", "group.id", "group.instance.id", "group.protocol", "enable.auto.commit", "auto.offset.reset"}
    | {"enable.auto.offset.store", "enable.partition.eof", "error_cb", "on_commit"}
)
REFUSALS = {
    KafkaError._AUTHENTICATION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
}
FENCES = {KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED}
UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}
BAD_SETTINGS = {KafkaError._INVALID_ARG, KafkaError._NOT_IMPLEMENTED}

_OF: Any = Message  # its methods, mapped over messages: a loop in C; none of ours is without a topic or an offset


class ConfluentClient:
    """A `Client` over confluent_kafka.Consumer. Its callbacks come in the polling thread, amid a `poll`."""

    def __init__(self, connection: Connection) -> None:
        self.trouble: str | None = None
        self._member, self._topics = connection.member, connection.topics
        self._changes: list[Change] = []
        self._offsets: dict[Partition, int] = {}  # of what is read: where each goes on
        self._ends: dict[Partition, int] = {}  # where each had nothing left, when it was last so
        self._paused: Set[Partition] = frozenset()
        self._fatal: SourceError | None = None
        self._was_connected = False
        self._done: Callable[[bool], None] | None = None
        self._empty = EmptyShare()
        own = {
            "bootstrap.servers": ",".join(connection.brokers),
            "group.id": connection.group,
            "group.instance.id": connection.member,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,  # which alone says that what is left is no record
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "range,roundrobin",
            "socket.timeout.ms": round(1000 * REQUEST_S),
            "socket.connection.setup.timeout.ms": 3000,
            "reconnect.backoff.max.ms": 1000,
            "queued.min.messages": 10_000,
            "queued.max.messages.kbytes": 8_192,  # what is fetched ahead; more gains no speed
            "fetch.queue.backoff.ms": 20,  # where that is full it would wait for a second
            "log_level": 0,  # what matters comes as an error
            "error_cb": self._on_error,
            "on_commit": self._on_commit,
        }
        try:
            self._consumer = Consumer(merged(own, FIXED, connection.settings))
        except (KafkaException, TypeError, ValueError) as error:
            said = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            raise ConfigError(f"`settings` must suit confluent-kafka: {said}. Correct it.") from error
        self._subscribe()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    # Callbacks ------------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        consumer.assign([])  # nothing is read before `read_from`
        self._offsets.clear()
        self._empty.given(len(partitions))
        self._changes.append(Change("assigned", _named(partitions)))

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        revoked = _named(partitions)
        for partition in revoked:
            self._offsets.pop(partition, None)
        self._changes.append(Change("revoked", revoked))

    def _on_error(self, error: KafkaError) -> None:
        code = error.code()
        if error.fatal() or code in {KafkaError._FATAL, *FENCES}:
            self._fatal = fenced(self._member)
        elif code in REFUSALS and not self._was_connected:
            self._fatal = refused(error.str())
        else:
            self.trouble = error.str()

    def _on_commit(self, error: KafkaError | None, partitions: list[Any]) -> None:
        if error is not None and error.code() in FENCES:
            self._fatal = fenced(self._member)
        done, self._done = self._done, None
        if done is not None:
            done(error is None and all(p.error is None for p in partitions))

    # The seam -------------------------------------------------------------------------------------------------------

    def poll(self) -> Polled:
        with self._mapped():
            if self._empty.is_overdue:
                self._consumer.unsubscribe()
                self._subscribe()
            messages = self._consumer.consume(CONSUME, CONSUME_S)
        polled = Polled()
        if any(map(_OF.error, messages)):
            polled.out_of_range = {p for m in messages if m.error() is not None and (p := self._failed(m)) is not None}
            messages = [m for m in messages if m.error() is None]
        if messages:
            self.trouble, self._was_connected = None, True
            polled.batches = list(_batches(messages, self._offsets))
            for batch in polled.batches:
                if batch.partition in self._offsets:
                    self._offsets[batch.partition] = batch.offsets[-1] + 1
        polled.changes, self._changes = self._changes, []
        if self._fatal is not None:
            raise self._fatal
        return polled

    def read_from(self, offsets: Mapping[Partition, int]) -> None:
        self._offsets.update(offsets)
        for partition in offsets:
            self._ends.pop(partition, None)
        with self._mapped():
            self._consumer.assign([TopicPartition(*p, offset) for p, offset in self._offsets.items()])
        if self._paused:
            self.pause(self._paused)

    def pause(self, partitions: Set[Partition]) -> None:
        self._paused = partitions
        with self._mapped():
            self._consumer.pause([TopicPartition(*p) for p in self._offsets if p in partitions])
            self._consumer.resume([TopicPartition(*p) for p in self._offsets if p not in partitions])

    def bounds(self, partitions: Iterable[Partition]) -> dict[Partition, Bounds]:
        asked = [TopicPartition(*p) for p in partitions]
        with self._mapped():
            ranges = [self._consumer.get_watermark_offsets(tp, timeout=REQUEST_S) for tp in asked]
            committed = self._consumer.committed(asked, timeout=REQUEST_S)
        self.trouble, self._was_connected = None, True
        marks = {
            Partition(c.topic, c.partition): None if c.offset == OFFSET_INVALID else (c.offset, c.metadata or "")
            for c in committed
        }
        return {
            (p := Partition(tp.topic, tp.partition)): Bounds(start, end, marks[p])
            for tp, (start, end) in zip(asked, ranges, strict=True)
        }

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        with self._mapped():
            found = {
                p: self._consumer.get_watermark_offsets(TopicPartition(*p), timeout=REQUEST_S)[1] for p in partitions
            }
        self.trouble = None
        return found

    def position(self, partition: Partition) -> int:
        return max(self._offsets.get(partition, 0), self._ends.get(partition, 0))

    def topics(self) -> dict[str, int]:
        with self._mapped():
            found = {name: self._consumer.list_topics(name, timeout=REQUEST_S).topics[name] for name in self._topics}
        self.trouble = None
        counts = {}
        for name, topic in found.items():
            code = None if topic.error is None else topic.error.code()
            if code in REFUSALS:
                raise refused(f"{topic.error.str()} ({name})")
            counts[name] = 0 if code in UNKNOWN else max(1, len(topic.partitions))
        return counts

    def known_end(self, partition: Partition) -> int | None:
        with self._mapped():
            found = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return None if found is None or found[1] < 0 else int(found[1])

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], done: Callable[[bool], None]) -> None:
        marks = [TopicPartition(*p, offset, text) for p, (offset, text) in offsets.items()]
        self._done = done
        with self._mapped():
            self._consumer.commit(offsets=marks, asynchronous=True)

    def close(self) -> None:
        with self._mapped():
            self._consumer.close()

    # ----------------------------------------------------------------------------------------------------------------

    def _failed(self, message: Message) -> Partition | None:
        """Notes what a message that is an error says; the partition where it is out of range."""
        error, topic, number = message.error(), message.topic(), message.partition()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            offset = message.offset()
            if topic is not None and number is not None and offset is not None:
                self._ends[Partition(topic, number)] = offset
            return None
        if error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError._NO_OFFSET, KafkaError.OFFSET_OUT_OF_RANGE}:
            return None if topic is None or number is None else Partition(topic, number)
        if error.code() in REFUSALS:
            self._fatal = refused(error.str())
        else:
            self._on_error(error)
        return None

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """The client's errors as ours. A KafkaError is no exception, and comes inside of one."""
        try:
            yield
        except KafkaException as raised:
            error = raised.args[0]
            if error.fatal() or error.code() in {KafkaError._FATAL, *FENCES}:
                raise fenced(self._member) from raised
            if error.code() in REFUSALS:
                raise refused(error.str()) from raised
            raise BrokerUnavailable(error.str()) from raised


def _named(partitions: Iterable[Any]) -> tuple[Partition, ...]:
    return tuple(Partition(p.topic, p.partition) for p in partitions)


def _batches(messages: list[Any], assigned: Iterable[Partition]) -> Iterator[Batch]:
    """The messages by partition, each in its order; `assigned`: the partitions that they may be of."""
    if len(only := list(assigned)) == 1:
        yield _batch(only[0], messages)
        return
    places = list(zip(map(_OF.topic, messages), map(_OF.partition, messages), strict=True))
    for place in dict.fromkeys(places):
        some = [m for m, p in zip(messages, places, strict=True) if p == place]
        yield _batch(Partition(*place), some)


def _batch(partition: Partition, messages: list[Any]) -> Batch:
    values = list(map(_OF.value, messages))
    if None in values:
        values = [value or b"" for value in values]
    times_ms = [at for _, at in map(_OF.timestamp, messages)]
    headers = list(map(_OF.headers, messages))
    told = telling(headers) if any(headers) else None
    return Batch(partition, values, list(map(_OF.offset, messages)), times_ms, told)
