"""Rows as messages of a Kafka topic, keyed by their id; taken once every replica in sync has them."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelops import kafka_client
from modelops.delivery.receiver import Row, Unavailable, Unwanted
from modelops.kafka_client import REQUEST_MS

DELIVERY_MS = 10_000


class KafkaReceiver:
    """Connects at the first row, and again after an error."""

    def __init__(self, brokers: Sequence[str], topic: str, settings: Mapping[str, str | int | float | bool]) -> None:
        from kafka import KafkaProducer

        named = kafka_client.named(settings, KafkaProducer, "deliver.settings")
        own = {
            "bootstrap_servers": list(brokers),
            "acks": "all",
            "linger_ms": 5,
            "allow_auto_create_topics": False,
            "bootstrap_timeout_ms": REQUEST_MS,
            "request_timeout_ms": REQUEST_MS,
            "max_block_ms": REQUEST_MS,
            "delivery_timeout_ms": DELIVERY_MS,
            "metrics_enabled": False,
        }
        self._settings: dict[str, Any] = named | own
        self._topic, self._place = topic, f"kafka://{','.join(brokers)}/{topic}"
        self._producer: Any = None

    def send(self, rows: Sequence[Row]) -> None:
        from kafka import errors

        refused, futures, failed = 0, [], ""
        try:
            for row in rows:
                try:
                    futures.append(self._connected().send(self._topic, row.body, key=row.id.encode()))
                except errors.MessageSizeTooLargeError:
                    refused += 1
        except (errors.KafkaError, OSError, ValueError, AssertionError) as error:
            failed = str(error) or type(error).__name__
        for future in futures:  # also after an error: nothing of these rows is to come later
            try:
                future.get(timeout=2 * DELIVERY_MS / 1000)
            except errors.MessageSizeTooLargeError:
                refused += 1
            except errors.KafkaError as error:
                failed = str(error) or type(error).__name__
        if failed:
            raise Unavailable(f"{self._place}: {failed}.")
        if refused:
            raise Unwanted(f"{self._place} takes no message of that size.", refused)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=2.0)
            self._producer = None

    def _connected(self) -> Any:
        """The producer, which connects again by itself."""
        if self._producer is None:
            from kafka import KafkaProducer

            self._producer = kafka_client.connected(KafkaProducer, self._settings)
        return self._producer
