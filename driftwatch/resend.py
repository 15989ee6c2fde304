"""Sends dead letters on: to a Kafka topic, or to an address over HTTP. At least once, in their order.

They stay among the dead letters, so what was interrupted is sent again from the first one; a receiver that drops ids it
has seen, as driftwatch does, counts each once.
"""

import http.client
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from driftwatch.config import Config
from driftwatch.config_connections import KafkaSource
from driftwatch.dead_letters import DeadLetter
from driftwatch.errors import ConfigError, SinkError

TRIES, BACK_OFF_S, BACK_OFF_MAX_S = 6, 0.5, 8.0
CONNECT_S, TIMEOUT_S = 10.0, 30.0
AT_ONCE = 500  # messages that Kafka is sent before it is asked whether it has them
RECOVERABLE = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class Receiver(Protocol):
    """Whoever takes dead letters. Raises SinkError, `recoverable` where nothing is taken any more."""

    def send(self, letter: DeadLetter) -> None: ...

    def flush(self) -> None:
        """Returns once all that was sent is taken."""
        ...

    def close(self) -> None: ...


def resend(letters: Iterable[DeadLetter], receiver: Receiver, progress: Callable[[int], object]) -> tuple[int, int]:
    """Sends them all; (how many were sent, how many were refused). Raises SinkError where the receiver is gone."""
    sent = refused = 0
    try:
        for letter in letters:
            try:
                receiver.send(letter)
            except SinkError as error:
                if error.recoverable:
                    raise
                refused += 1
            else:
                sent += 1
            if (sent + refused) % AT_ONCE == 0:
                receiver.flush()
            progress(1)
        receiver.flush()
    except SinkError as error:
        text = f"{error} {sent} messages were sent before; run it again to send them all."
        raise SinkError(text, recoverable=True) from error
    finally:
        receiver.close()
    return sent, refused


def receiver_at(target: str, settings: Config, folder: Path) -> Receiver:
    """The receiver that `--to` names. `folder`: where the configuration lies. Raises ConfigError and SinkError."""
    url = urlsplit(target)
    source = settings.source
    if url.scheme in ("http", "https") and url.hostname:
        return WebReceiver(url)
    if url.scheme == "kafka" and url.netloc and url.path.strip("/"):
        return KafkaReceiver(tuple(url.netloc.split(",")), url.path.strip("/"), "kafka-python", {})
    if not url.scheme and "/" not in target and target and isinstance(source, KafkaSource):
        return KafkaReceiver(source.brokers, target, source.client, source.client_settings(folder))
    raise ConfigError(
        "`--to` must be https://HOST/PATH, kafka://BROKER:PORT/TOPIC or, where the source is Kafka, a topic there; "
        f"got {target!r}."
    )


class WebReceiver:
    """Posts each message as a body of its own, over one connection."""

    def __init__(self, url: SplitResult) -> None:
        self._place = f"{url.scheme}://{url.netloc}"
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(url.netloc, timeout=TIMEOUT_S)

    def send(self, letter: DeadLetter) -> None:
        pause_s = BACK_OFF_S
        for attempt in range(1, TRIES + 1):
            answer = self._post(letter.payload)
            if isinstance(answer, int) and 200 <= answer < 300:
                return
            if isinstance(answer, int) and answer not in RECOVERABLE and answer < 500:
                raise SinkError(f"{letter.shard}@{letter.position}: {self._place} answers {answer}.", recoverable=False)
            if attempt < TRIES:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, BACK_OFF_MAX_S)
        raise SinkError(f"`--to` must take messages; {self._place} answers {answer}.", recoverable=True)

    def flush(self) -> None:
        """Each message was answered."""

    def close(self) -> None:
        self._connection.close()

    def _post(self, body: bytes) -> int | str:
        """The status, or why there is none."""
        try:
            self._connection.request("POST", self._path, body, {"content-type": "application/json"})
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return f"nothing ({str(error) or type(error).__name__})"
        return answer.status


class KafkaReceiver:
    """Writes each message to a topic; a batch is taken once every replica in sync has it."""

    def __init__(
        self, brokers: tuple[str, ...], topic: str, client: str, settings: Mapping[str, str | int | float | bool]
    ) -> None:
        self._topic, self._place = topic, f"kafka://{','.join(brokers)}/{topic}"
        self._failed: list[str] = []
        self._flush: Callable[[], object]
        self._produce: Callable[[bytes], object]
        connect = self._connect_confluent if client == "confluent" else self._connect_kafka_python
        self._close = connect(",".join(brokers), settings)

    def send(self, letter: DeadLetter) -> None:
        self._produce(letter.payload)

    def flush(self) -> None:
        self._flush()
        if self._failed:
            raise SinkError(f"`--to` must take messages; {self._place}: {self._failed[0]}.", recoverable=True)

    def close(self) -> None:
        self._close()

    def _connect_kafka_python(self, brokers: str, settings: Mapping[str, Any]) -> Callable[[], object]:
        from kafka import KafkaProducer, errors

        from driftwatch.sources.kafka_python import SAME

        logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what matters comes as an error
        named = {SAME.get(name, name.replace(".", "_")): value for name, value in settings.items()}
        own = {"bootstrap_servers": brokers.split(","), "acks": "all", "bootstrap_timeout_ms": round(1000 * CONNECT_S)}
        known = {name: value for name, value in named.items() if name in KafkaProducer.DEFAULT_CONFIG}
        try:
            producer = KafkaProducer(**own | known)
        except (errors.KafkaError, OSError, ValueError, AssertionError) as error:
            raise SinkError(f"`--to` must be reached; {self._place}: {error}.", recoverable=True) from error

        def produce(payload: bytes) -> None:
            try:
                producer.send(self._topic, payload).add_errback(lambda error: self._failed.append(str(error)))
            except errors.KafkaError as error:
                self._failed.append(str(error))
                self.flush()

        def flush() -> None:
            try:
                producer.flush(timeout=TIMEOUT_S)
            except errors.KafkaError as error:
                self._failed.append(str(error))

        self._produce, self._flush = produce, flush
        return lambda: producer.close(timeout=5)

    def _connect_confluent(self, brokers: str, settings: Mapping[str, Any]) -> Callable[[], object]:
        try:
            from confluent_kafka import KafkaException, Producer
        except ImportError as error:
            raise ConfigError(
                f"`source.client` is confluent, which cannot be imported: {error}. "
                "Install driftwatch-sidecar[kafka-fast], or leave `client` out."
            ) from error
        own = {"bootstrap.servers": brokers, "acks": "all", "message.timeout.ms": round(1000 * TIMEOUT_S)}
        try:
            producer = Producer({**settings, **own, "log_level": 0, "error_cb": lambda error: None})
        except KafkaException as error:
            raise SinkError(f"`--to` must be reached; {self._place}: {error}.", recoverable=True) from error

        def taken(error: Any, message: Any) -> None:
            if error is not None:
                self._failed.append(error.str())

        def flush() -> None:
            if producer.flush(TIMEOUT_S + 5):
                self._failed.append("it does not answer")

        self._produce = lambda payload: producer.produce(self._topic, payload, on_delivery=taken)
        self._flush = flush
        return lambda: None
