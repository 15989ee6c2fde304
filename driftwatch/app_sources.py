"""The sources, made from a configuration; what only one of them needs is imported where it is asked for."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from driftwatch.checkpoint import restored_shards
from driftwatch.config import Config
from driftwatch.config_connections import FileSource, HttpSource, KafkaSource
from driftwatch.decode.bodies import BodyDecoder
from driftwatch.decode.json import JsonDecoder
from driftwatch.errors import ConfigError
from driftwatch.halves import Halves
from driftwatch.metrics import Metrics
from driftwatch.protocols import Decoder, Source
from driftwatch.records import Schema, Shard
from driftwatch.sources import http
from driftwatch.sources.kafka import KafkaSource as KafkaEvents
from driftwatch.sources.kafka_client import Client, Connection
from driftwatch.sources.merged import MergedSource
from driftwatch.sources.rotation import ReadBefore
from driftwatch.sources.spool import Spool
from driftwatch.sources.tabular import holds_labels_alone, only_labels, open_file_source
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
    remembered: Remembered,
    spool: Spool | None,
    *,
    member: str,
    lacks: Callable[[str | None], object],
) -> Feed:
    """The configured source and its decoder. `spool`: of an http source; `member`: our name in a Kafka group.

    `remembered`: by an earlier run. `lacks` is told what keeps the source from being read. Raises ConfigError.
    """
    if config.labels is not None:
        raise ConfigError(
            "`labels` must be left out: labels from a source of their own are not yet read. Send them where the "
            "predictions go: `source.topics.labels`, POST /v1/labels, or `source.path: {predictions: …, labels: …}`."
        )
    form = config.events.decode
    if isinstance(config.source, HttpSource) and spool is not None:
        halves = Halves(config.source.match)
        return Feed(http.HttpSource(spool), BodyDecoder(schema, halves, form), halves)
    if isinstance(config.source, KafkaSource):
        halves = Halves(config.source.match)
        source = make_kafka_source(config.source, config, config_path, member, lacks)
        return Feed(source, BodyDecoder(schema, halves, form, splits=False), halves)
    return make_file_feed(config, schema, before=read_before(remembered))


def read_before(remembered: Remembered) -> ReadBefore:
    """What is remembered of files, in the order of the event times that they have shown."""
    states = {shard: state for shard, state in restored_shards(remembered).items() if state.position is not None}
    ordered = sorted(states, key=lambda shard: max(states[shard].clock_s, default=-inf))
    positions = {shard: position for shard in ordered if (position := states[shard].position) is not None}
    return ReadBefore(positions, {Shard(pane.shard) for pane in remembered.panes})


def make_file_feed(
    config: Config, schema: Schema, paths: Sequence[Path] = (), before: ReadBefore | None = None
) -> Feed:
    """The configured file, or those that are replayed instead of any source, and a decoder. Raises ConfigError."""
    source = make_replay(schema, paths) if paths else make_source(config, schema, before)
    form = config.events.decode
    if form == "json":
        return Feed(source, JsonDecoder(schema))
    halves = Halves(config.source.match if isinstance(config.source, KafkaSource | HttpSource) else MATCH_S)
    return Feed(source, BodyDecoder(schema, halves, form), halves)


def make_replay(schema: Schema, paths: Sequence[Path]) -> Source:
    """The files that are replayed, merged by event time; those of labels alone are told apart. Raises ConfigError."""
    if len(paths) == 1:
        return open_file_source("-" if str(paths[0]) == "-" else paths[0], schema)
    if Path("-") in paths:
        raise ConfigError("`FILE` must be a file where there are several; got `-`. Write standard input to a file.")
    labels = {i for i, path in enumerate(paths) if holds_labels_alone(path, schema)}
    opened = [open_file_source(path, only_labels(schema) if i in labels else schema) for i, path in enumerate(paths)]
    return MergedSource(opened, schema, labels=labels)


def make_source(config: Config, schema: Schema, before: ReadBefore | None) -> Source:
    """The configured file. `before`: what was read of it. Raises ConfigError."""
    source = config.source
    if source is None:
        raise ConfigError("`source` must say where events come from; got none. Add it to the configuration.")
    if not isinstance(source, FileSource):
        raise ConfigError(f"`source.kind` must be file; got {source.kind!r}. Replay a file, or run the sidecar.")
    place, labels = source.path.predictions, source.path.labels
    predictions = open_file_source(
        "-" if str(place) == "-" else Path(place), schema, follow=source.follow, before=before, warn=log.error
    )
    if labels is None:
        return predictions
    if source.follow:
        raise ConfigError("`source.follow` must be false beside a file of labels; two growing files are not yet read.")
    if schema.label is None:
        raise ConfigError("`source.path.labels` must stand beside `events.label`, which says what a label is. Add it.")
    return MergedSource([predictions, open_file_source(labels, only_labels(schema))], schema, labels={1})


def open_intake(
    source: HttpSource, config: Config, remembered: Remembered, metrics: Metrics, lacks: Callable[[str | None], object]
) -> "tuple[Spool, IngestServer]":
    """The spool, as far as it was read, and the server that fills it. Raises ConfigError and StateError."""
    from driftwatch.sources.ingest import IngestServer, Intake, Terms  # asyncio and a parser, which others do not need
    from driftwatch.sources.tokens import Tokens

    known = remembered.shards.get(http.SHARD)
    position = 0 if known is None or known.position is None else known.position
    tokens = None if source.tokens_file is None else Tokens(source.tokens_file, source.tokens)
    terms = Terms(source.max_body, tokens, source.full, source.durable, labels=config.events.label is not None)
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
    if topics.labels and config.events.label is None:
        raise ConfigError("`source.topics.labels` must stand beside `events.label`, which says what one is. Add it.")
    connection = Connection(
        brokers=source.brokers,
        group=source.group or f"driftwatch-{config.model.name}",
        member=member,
        topics=tuple(dict.fromkeys(topics.predictions + topics.features + topics.labels)),
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

    return KafkaEvents(connect, lacks, labels={*topics.labels} - {*topics.predictions, *topics.features})
