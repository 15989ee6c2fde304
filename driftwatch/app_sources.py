"""The sources, made from a configuration; what only one of them needs is imported where it is asked for."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from driftwatch.config import Config
from driftwatch.config_connections import FileSource, HttpSource, KafkaSource
from driftwatch.decode.bodies import BodyDecoder
from driftwatch.decode.json import JsonDecoder
from driftwatch.errors import ConfigError
from driftwatch.halves import Halves
from driftwatch.metrics import Metrics
from driftwatch.protocols import Decoder, Source
from driftwatch.records import Schema
from driftwatch.sources import http
from driftwatch.sources.kafka import KafkaSource as KafkaEvents
from driftwatch.sources.kafka_client import Client, Connection
from driftwatch.sources.spool import Spool
from driftwatch.sources.tabular import open_file_source
from driftwatch.store import Remembered

if TYPE_CHECKING:
    from driftwatch.sources.ingest import IngestServer

MATCH_S = 60.0  # of event time, in which a request in a file waits for its response
log = logging.getLogger("driftwatch")


@dataclass(frozen=True, slots=True)
class Feed:
    """Where records come from: a source, what reads its messages, and what of them waits for its other half."""

    source: Source
    decoder: Decoder
    halves: Halves | None = None


def make_feed(
    config: Config,
    config_path: Path,
    schema: Schema,
    *,
    spool: Spool | None,
    member: str,
    lacks: Callable[[str | None], object],
) -> Feed:
    """The configured source and its decoder. `spool`: of an http source; `member`: our name in a Kafka group.

    `lacks` is told what keeps the source from being read. Raises ConfigError.
    """
    form = config.events.decode
    if isinstance(config.source, HttpSource) and spool is not None:
        halves = Halves(config.source.match)
        return Feed(http.HttpSource(spool), BodyDecoder(schema, halves, form), halves)
    if isinstance(config.source, KafkaSource):
        halves = Halves(config.source.match)
        source = make_kafka_source(config.source, config, config_path, member, lacks)
        return Feed(source, BodyDecoder(schema, halves, form, splits=False), halves)
    return make_file_feed(config, schema)


def make_file_feed(config: Config, schema: Schema, path: Path | None = None) -> Feed:
    """The configured file, or the one that is replayed instead of any source, and its decoder. Raises ConfigError."""
    source, form = make_source(config, schema, path), config.events.decode
    if form == "json":
        return Feed(source, JsonDecoder(schema))
    halves = Halves(config.source.match if isinstance(config.source, KafkaSource | HttpSource) else MATCH_S)
    return Feed(source, BodyDecoder(schema, halves, form), halves)


def make_source(config: Config, schema: Schema, path: Path | None = None) -> Source:
    """The configured source, or the file that is replayed instead of it. Raises ConfigError."""
    if path is not None:
        return open_file_source("-" if str(path) == "-" else path, schema)
    source = config.source
    if source is None:
        raise ConfigError("`source` must say where events come from; got none. Add it to the configuration.")
    if not isinstance(source, FileSource):
        raise ConfigError(f"`source.kind` must be file; got {source.kind!r}. Replay a file, or run the sidecar.")
    place = source.path.predictions
    return open_file_source("-" if str(place) == "-" else Path(place), schema, follow=source.follow)


def open_intake(
    source: HttpSource, config: Config, remembered: Remembered, metrics: Metrics, lacks: Callable[[str | None], object]
) -> "tuple[Spool, IngestServer]":
    """The spool, as far as it was read, and the server that fills it. Raises ConfigError and StateError."""
    from driftwatch.sources.ingest import IngestServer, Intake, Terms  # asyncio and a parser, which others do not need
    from driftwatch.sources.tokens import Tokens

    known = remembered.shards.get(http.SHARD)
    position = 0 if known is None or known.position is None else known.position
    tokens = None if source.tokens_file is None else Tokens(source.tokens_file, source.tokens)
    terms = Terms(source.max_body, tokens, source.full, source.durable)
    spool = Spool(config.state.path.parent / "spool", position=position, max_bytes=source.spool.max_bytes)
    metrics.add_http(lambda: spool.n_bytes, spool.max_bytes)
    try:
        intake = Intake(
            spool,
            terms,
            on_trouble=lacks,
            on_answers=metrics.http_answers,
            on_shed=lambda: metrics.discarded("http", "shed"),
        )
        server = IngestServer(source.host, source.port, intake)
    except ConfigError:
        spool.close()
        raise
    log.info("events on http://%s:%d/v1/predictions and /v1/events", source.host, server.port)
    return spool, server


def make_kafka_source(
    source: KafkaSource, config: Config, config_path: Path, member: str, lacks: Callable[[str | None], object]
) -> KafkaEvents:
    """The configured topics; `member` is our name in the group. Raises ConfigError."""
    topics = source.topics
    if topics.labels:
        raise ConfigError("`source.topics.labels` must be left out; labels from Kafka are not yet there.")
    connection = Connection(
        brokers=source.brokers,
        group=source.group or f"driftwatch-{config.model.name}",
        member=member,
        topics=tuple(dict.fromkeys(topics.predictions + topics.features)),
        settings=source.client_settings(config_path.parent),
    )

    def connect() -> Client:  # a client library is imported where it is used only
        if source.client == "kafka-python":
            from driftwatch.sources.kafka_python import KafkaPythonClient

            return KafkaPythonClient(connection)
        try:
            from driftwatch.sources.confluent import ConfluentClient
        except ImportError as error:
            raise ConfigError(
                f"`source.client` is confluent, which cannot be imported: {error}. "
                "Install driftwatch-sidecar[kafka-fast], or leave `client` out."
            ) from error
        return ConfluentClient(connection)

    return KafkaEvents(connect, lacks)
