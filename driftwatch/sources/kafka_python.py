"""The client kafka-python behind the Kafka source's seam."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from kafka import KafkaConsumer, errors
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.net import KafkaNetClient
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftwatch.errors import ConfigError, SourceError
from driftwatch.sources.kafka_batches import RecordBatch, fetch_batches, unpacked
from driftwatch.sources.kafka_client import (
    BATCH,
    POLL_S,
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
)

REQUEST_MS = round(1000 * REQUEST_S)
# Without an assignment for so long: the client may have lost it, and would wait for good.
JOIN_LIMIT_S, LONGEST_JOIN_S = 5.0, 60.0
REFUSALS = (errors.SaslAuthenticationFailedError, errors.AuthorizationError, errors.UnsupportedSaslMechanismError)
OUTAGES = (errors.RetriableError, errors.BrokerResponseError, OSError)

FIXED = frozenset(
    {"bootstrap_servers", "group_id", "group_instance_id", "enable_auto_commit", "auto_offset_reset"}
    | {"key_deserializer", "value_deserializer", "kafka_client", "max_poll_records"}
)
SAME = {  # librdkafka's name for what this client calls otherwise: one configuration fits both
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
}


class _Failures(logging.Handler):
    """Takes the place of the client's log: keeps why a connection failed, which the client says nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("kafka.net") or isinstance(self.last, REFUSALS):
            return
        causes = [a for a in record.args or () if isinstance(a, Exception)]
        # That a time-out has passed says less than why connections failed meanwhile.
        if causes and (self.last is None or not isinstance(causes[-1], errors.KafkaTimeoutError)):
            self.last = causes[-1]


class KafkaPythonClient:
    """A `Client` over kafka.KafkaConsumer. Its rebalance callbacks come on another thread, amid a `poll`."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self.trouble: str | None = None
        self._member, self._topics, self._clock = connection.member, list(connection.topics), clock
        self._changes: deque[Change] = deque()
        self._failures = _Failures()
        self._net: Any = None
        log = logging.getLogger("kafka")
        log.handlers, log.propagate = [self._failures], False
        self._begin: dict[Partition, int] = {}  # where reading began
        self._consumer = self._connected(connection)
        fetch_batches(self._consumer)
        self._joining_since_s: float | None = self._clock()
        self._join_limit_s = JOIN_LIMIT_S
        self._empty = EmptyShare(self._clock)
        self._consumer.subscribe(self._topics, listener=self)

    def _connected(self, connection: Connection) -> Any:
        made: list[Any] = []

        def client(**settings: Any) -> Any:
            made.append(KafkaNetClient(**settings))
            self._net = made[-1]
            made[-1].cluster.config["allow_auto_create_topics"] = False  # as was set: 3.0.12 does not pass it on
            return made[-1]

        own = {
            "bootstrap_servers": list(connection.brokers),
            "group_id": connection.group,
            "group_instance_id": connection.member,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "allow_auto_create_topics": False,
            "reconnect_backoff_max_ms": 1000,
            "request_timeout_ms": REQUEST_MS,
            "bootstrap_timeout_ms": REQUEST_MS,
            "max_poll_records": BATCH,
            "metrics_enabled": False,
            "isolation_level": "read_committed",  # as the other client's default is
            "kafka_client": client,
        }
        settings = {SAME.get(name, name.replace(".", "_")): value for name, value in connection.settings.items()}
        try:
            return KafkaConsumer(**merged(own, FIXED, settings))
        except (errors.KafkaConfigurationError, TypeError, ValueError, AssertionError, ImportError) as error:
            raise ConfigError(f"`settings` must suit kafka-python; {error}. Correct it.") from error
        except (errors.KafkaError, OSError) as error:
            for each in made:  # the client that was never finished has a thread
                each.close()
            cause = self._failures.last or error
            if isinstance(cause, REFUSALS):
                raise refused(str(cause)) from error
            raise BrokerUnavailable(str(cause)) from error

    # Callbacks, on the client's own thread ---------------------------------------------------------------------------

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        self._joining_since_s = self._clock()
        self._changes.append(Change("revoked", tuple(Partition(*tp) for tp in revoked)))

    on_partitions_lost = on_partitions_revoked

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._joining_since_s, self._join_limit_s = None, JOIN_LIMIT_S
        self._empty.given(len(tuple(assigned)))
        for tp in assigned:
            self._consumer.seek(tp, 0)  # any place but the committed one; it is not read before `read_from`
            self._consumer.pause(tp)
        self._changes.append(Change("assigned", tuple(Partition(*tp) for tp in assigned)))

    # The seam -------------------------------------------------------------------------------------------------------

    def poll(self) -> Polled:
        self._rejoin()
        polled = Polled()
        try:
            with self._mapped():
                found = self._consumer.poll(timeout_ms=round(1000 * POLL_S))
        except errors.OffsetOutOfRangeError as error:
            return Polled(self._taken(), [], {Partition(*tp) for tp in error.args[0]})
        except errors.NoOffsetForPartitionError:  # amid a rebalance, before our callback
            found = {}
        except BrokerUnavailable as error:
            self.trouble, found = str(error), {}
        polled.changes = self._taken()
        for tp, records in found.items():
            self.trouble = self._failures.last = None
            partition = Partition(*tp)
            for is_new, some in groupby(records, lambda r: isinstance(r.value, RecordBatch)):
                if is_new:
                    with self._mapped():
                        begin = self._begin.get(partition, 0)
                        polled.batches.extend(unpacked(partition, [r.value for r in some], begin))
                else:
                    polled.batches.append(_older(partition, list(some)))
        if not found and self._failures.last is not None:
            self.trouble = str(self._failures.last)
        return polled

    def read_from(self, offsets: Mapping[Partition, int]) -> None:
        ours = self._consumer.assignment()
        for partition, offset in offsets.items():
            tp = TopicPartition(*partition)
            self._begin[partition] = offset
            if tp in ours:  # else it was taken from us meanwhile: the next poll says so
                self._consumer.seek(tp, offset)
                self._consumer.resume(tp)

    def pause(self, partitions: Set[Partition]) -> None:
        for tp in self._consumer.assignment():
            if tp in partitions:
                self._consumer.pause(tp)
            else:
                self._consumer.resume(tp)

    def bounds(self, partitions: Iterable[Partition]) -> dict[Partition, Bounds]:
        asked = {p: TopicPartition(*p) for p in partitions}
        with self._mapped():
            starts = self._consumer.beginning_offsets(list(asked.values()), timeout_ms=REQUEST_MS)
            ends = self._consumer.end_offsets(list(asked.values()), timeout_ms=REQUEST_MS)
            committed = {
                tp: self._consumer.committed(tp, metadata=True, timeout_ms=REQUEST_MS) for tp in asked.values()
            }
        self.trouble = self._failures.last = None
        return {
            p: Bounds(
                starts[tp], ends[tp], None if committed[tp] is None else (committed[tp].offset, committed[tp].metadata)
            )
            for p, tp in asked.items()
        }

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        with self._mapped():
            found = self._consumer.end_offsets([TopicPartition(*p) for p in partitions], timeout_ms=REQUEST_MS)
        self.trouble = self._failures.last = None
        return {Partition(*tp): end for tp, end in found.items()}

    def position(self, partition: Partition) -> int:
        with self._mapped():
            try:
                offset: int | None = self._consumer.position(TopicPartition(*partition), timeout_ms=REQUEST_MS)
            except errors.IllegalStateError:  # taken from us amid the last poll
                offset = None
        return offset or 0

    def topics(self) -> dict[str, int]:
        cluster, answered = self._net.cluster, threading.Event()
        update = cluster.request_update()
        update.add_both(lambda _: answered.set())
        if not answered.wait(REQUEST_S):
            raise BrokerUnavailable(f"no answer about topics in {REQUEST_S:.0f} s")
        # An update is said to have failed as well where the only topic does not exist.
        if update.failed() and not isinstance(update.exception, errors.UnknownTopicOrPartitionError):
            with self._mapped():
                raise update.exception
        self.trouble = self._failures.last = None
        return {name: len(cluster.partitions_for_topic(name) or ()) for name in self._topics}

    def known_end(self, partition: Partition) -> int | None:
        try:
            end: int | None = self._consumer.highwater(TopicPartition(*partition))
        except errors.IllegalStateError:  # taken from us amid the last poll
            return None
        return end

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], done: Callable[[bool], None]) -> None:
        marks = {TopicPartition(*p): OffsetAndMetadata(offset, text) for p, (offset, text) in offsets.items()}
        with self._mapped():
            self._consumer.commit_async(marks, callback=lambda _, result: done(not isinstance(result, Exception)))

    def close(self) -> None:
        with self._mapped():
            self._consumer.close(autocommit=False, timeout_ms=2000)

    # ----------------------------------------------------------------------------------------------------------------

    def _taken(self) -> list[Change]:
        return [self._changes.popleft() for _ in range(len(self._changes))]

    def _rejoin(self) -> None:
        """Joins anew where an assignment is overdue: one that came just as a poll ended was lost without a word."""
        since_s = self._joining_since_s
        if self._empty.is_overdue:
            self._consumer._coordinator.request_rejoin()  # under its member id, which `unsubscribe` would forget
        if since_s is not None and self._clock() - since_s > self._join_limit_s:
            self._joining_since_s = self._clock()
            self._join_limit_s = min(2 * self._join_limit_s, LONGEST_JOIN_S)  # a large group may need longer
            with self._mapped():
                self._consumer.unsubscribe()
            self._consumer.subscribe(self._topics, listener=self)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """The client's errors as ours, but for those that a caller asks about."""
        try:
            yield
        except (errors.OffsetOutOfRangeError, errors.NoOffsetForPartitionError):
            raise
        except errors.FencedInstanceIdError as error:
            raise fenced(self._member) from error
        except errors.AuthorizationError as error:
            raise refused(f"{type(error).__name__}: {error}") from error
        except OUTAGES as error:
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error
        except errors.KafkaError as error:
            raise SourceError(f"kafka-python cannot read on: {type(error).__name__}: {error}.") from error


def _older(partition: Partition, records: Sequence[Any]) -> Batch:
    """Records of a message format before Kafka 0.11; it has no headers."""
    times_ms = [-1 if r.timestamp is None else r.timestamp for r in records]
    return Batch(partition, [r.value or b"" for r in records], [r.offset for r in records], times_ms)


ConsumerRebalanceListener.register(KafkaPythonClient)  # no subclass: a class without types is none for mypy
