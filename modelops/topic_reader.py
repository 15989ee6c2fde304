"""Messages of Kafka topics between two offsets. There is no group and no commit: who reads keeps the offsets."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from modelops import kafka_client
from modelops.errors import ConfigError, DataError, InputsUnavailable

POLL_MS, QUIET_S = 500, 15.0
MOST_MESSAGES = 5000


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int


class Span(NamedTuple):
    """Offsets from `begin` to before `end`."""

    begin: int
    end: int


class Message(NamedTuple):
    """A message; `value` is None of a tombstone. `time_s`: when it came, or was made, epoch seconds."""

    offset: int
    time_s: float
    value: bytes | None


class Part(NamedTuple):
    """Messages of a partition in their order, and the offset behind them."""

    partition: Partition
    messages: list[Message]
    next: int


class TopicReader:
    """Connects at once. Every method raises InputsUnavailable where the broker does not answer, else DataError."""

    def __init__(self, brokers: Sequence[str], settings: Mapping[str, str | int | float | bool]) -> None:
        from kafka import KafkaConsumer, errors

        self._place = f"kafka://{','.join(brokers)}"
        own = {
            "bootstrap_servers": list(brokers),
            "group_id": None,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "allow_auto_create_topics": False,
            "isolation_level": "read_committed",
            "bootstrap_timeout_ms": kafka_client.REQUEST_MS,
            "request_timeout_ms": kafka_client.REQUEST_MS,
            "max_poll_records": MOST_MESSAGES,
            "metrics_enabled": False,
        }
        given = kafka_client.named(settings, KafkaConsumer, "source.settings")
        try:
            with self._mapped():
                self._consumer: Any = kafka_client.connected(KafkaConsumer, given | own)
        except (errors.KafkaConfigurationError, TypeError, ValueError, AssertionError, ImportError) as error:
            raise ConfigError(f"`source.settings` must suit kafka-python; {error}. Correct it.") from error

    def spans(self, topics: Sequence[str]) -> dict[Partition, Span]:
        """What each partition of the topics holds now."""
        from kafka.structs import TopicPartition

        with self._mapped():
            known = {topic: self._consumer.partitions_for_topic(topic) for topic in topics}
            if missing := [topic for topic, numbers in known.items() if not numbers]:
                raise DataError(
                    f"{self._place}: `source.topics` must name topics that are there; {', '.join(missing)} is not. "
                    "Make it, or correct its name."
                )
            asked = [TopicPartition(topic, number) for topic in topics for number in sorted(known[topic])]
            begins = self._consumer.beginning_offsets(asked, timeout_ms=kafka_client.REQUEST_MS)
            ends = self._consumer.end_offsets(asked, timeout_ms=kafka_client.REQUEST_MS)
        return {Partition(*at): Span(begins[at], ends[at]) for at in asked}

    def read(self, spans: Mapping[Partition, Span]) -> Iterator[Part]:
        """Their messages, in parts; the last part of a partition ends with its span."""
        from kafka.structs import TopicPartition

        open_spans = {TopicPartition(*at): span for at, span in spans.items() if span.begin < span.end}
        with self._mapped():
            self._consumer.assign(list(open_spans))
            for at, span in open_spans.items():
                self._consumer.seek(at, span.begin)
        heard_s = time.monotonic()
        while open_spans:
            with self._mapped():
                found = self._consumer.poll(timeout_ms=POLL_MS)
                nexts = {at: self._consumer.position(at, timeout_ms=kafka_client.REQUEST_MS) for at in open_spans}
            for at, span in list(open_spans.items()):
                records = [record for record in found.get(at, ()) if record.offset < span.end]
                end = min(nexts[at], span.end)
                if not records and end < span.end:
                    continue
                heard_s = time.monotonic()
                yield Part(Partition(*at), [Message(r.offset, r.timestamp / 1000, r.value) for r in records], end)
                if end == span.end:
                    del open_spans[at]
                    self._consumer.pause(at)
            if time.monotonic() - heard_s > QUIET_S:
                raise InputsUnavailable(f"{self._place} has sent nothing for {QUIET_S:g} s, and has more.")

    def close(self) -> None:
        """Ends the connection."""
        self._consumer.close(autocommit=False, timeout_ms=2000)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """kafka-python's errors as ours."""
        from kafka import errors

        try:
            yield
        except errors.KafkaConfigurationError:
            raise
        except (
            errors.SaslAuthenticationFailedError,
            errors.AuthorizationError,
            errors.UnsupportedSaslMechanismError,
        ) as error:
            raise DataError(f"{self._place} refuses to be read: {_text(error)}. Correct `source.settings`.") from error
        except errors.OffsetOutOfRangeError as error:
            raise InputsUnavailable(f"{self._place}: messages were deleted while they were read.") from error
        except (errors.KafkaError, OSError) as error:
            raise InputsUnavailable(f"{self._place} does not answer: {_text(error)}.") from error


def _text(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip().rstrip(".")
