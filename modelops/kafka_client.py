"""kafka-python's clients: settings by the names that driftwatch takes too, connections that leave no thread."""

import logging
from collections.abc import Mapping
from typing import Any

from modelops.errors import ConfigError

REQUEST_MS = 5000
SAME = {  # librdkafka's names, so that driftwatch's settings fit here too
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
}


def named(settings: Mapping[str, str | int | float | bool], known: Any, place: str) -> dict[str, Any]:
    """Settings by the names of a client's class. Raises ConfigError where it has no such name."""
    found = {SAME.get(name, name.replace(".", "_")): value for name, value in settings.items()}
    if unknown := sorted(found.keys() - known.DEFAULT_CONFIG.keys()):
        raise ConfigError(f"`{place}` must name settings of kafka-python; got {', '.join(unknown)}.")
    return found


def connected(made_by: Any, settings: Mapping[str, Any]) -> Any:
    """A client, connected. Raises what kafka-python raises; nothing of a client that was never finished is left."""
    from kafka.net import KafkaNetClient

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what matters comes as an error
    begun: list[Any] = []
    found = None

    def client(**given: Any) -> Any:
        begun.append(KafkaNetClient(**given))
        return begun[-1]

    try:
        found = made_by(**settings, kafka_client=client)
    finally:
        if found is None:
            for each in begun:  # it has a thread
                each.close()
    return found
