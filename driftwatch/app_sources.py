"""The sources, made from a configuration; what only one of them needs is imported where it is asked for."""

import logging
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from driftwatch.checkpoint import restored_shards
from driftwatch.config import Config
from driftwatch.config_connections import (
    FileLabels,
    FileSource,
    HttpLabels,
    HttpSource,
    KafkaLabels,
    KafkaSource,
    Topics,
)
from driftwatch.decode.bodies import BodyDecoder
from driftwatch.decode.json import JsonDecoder
from driftwatch.errors import ConfigError
from driftwatch.halves import Halves
from driftwatch.metrics import Metrics
from driftwatch.protocols import Decoder, Source
from driftwatch.records import Schema, Shard
from driftwatch.sources import http
from driftwatch.sources.beside import DecoderBeside, LabelsBeside
from driftwatch.sources.files import STDIN
from driftwatch.sources.kafka import KafkaSource as KafkaEvents
from driftwatch.sources.kafka_client import Client, Connection
from driftwatch.sources.merged import MergedSource
from driftwatch.sources.rotation import ReadBefore
from driftwatch.sources.spool import Spool
from driftwatch.sources.tabular import holds_labels_alone, only_labels, open_file_source
from driftwatch.store import Remembered

MATCH_S = 60.0  # of event time, in which a request in a file waits for its response
log = logging.getLogger("driftwatch")


@dataclass(frozen=True, slots=True)
class Feed:
    """Where records come from: a source, what reads its messages, and what of them waits for its other half.

    `kafka`: what of the source is Kafka.
    """

    source: Source
    decoder: Decoder
    halves: Halves | None = None
    kafka: KafkaEvents | None = None


@dataclass(frozen=True, slots=True)
class Lacks:
    """Who is told what keeps events from being read, and labels that come another way; None = nothing."""

    events: Callable[[str | None], object]
    labels: Callable[[str | None], object]


def make_feed(
    config: Config,
    config_path: Path,
    schema: Schema,
    remembered: Remembered,
    spool: Spool | None,
    *,
    member: str,
    lacks: Lacks,
) -> Feed:
    """The configured source and its decoder, with the source of labels where that is another.

    `spool`: of the one that is http; `member`: our name in a Kafka group; `remembered`: by an earlier run. Raises
    ConfigError.
    """
    form, source, kafka = config.events.decode, config.source, None
    if isinstance(source, HttpSource) and spool is not None:
        halves = Halves(source.match)
        feed = Feed(http.HttpSource(spool), BodyDecoder(schema, halves), halves)  # the headers say what a body is
    elif isinstance(source, KafkaSource):
        halves = Halves(source.match)
        kafka = make_kafka_source(source, config, config_path, member, lacks.events)
        feed = Feed(kafka, BodyDecoder(schema, halves, form, splits=False), halves, kafka)
    else:
        feed = make_file_feed(config, schema, before=read_before(remembered))
    if config.labels is None:
        return feed
    labels: Source
    if isinstance(config.labels, KafkaLabels):
        labels = kafka = make_kafka_source(config.labels, config, config_path, member, lacks.labels)
    elif isinstance(config.labels, FileLabels):
        with under("labels"):
            labels = make_label_file(config.labels.path, config.labels.follow, schema, read_before(remembered))
    elif spool is not None:
        labels = http.HttpSource(spool)
    both = LabelsBeside(feed.source, labels, before=remembered_beside(config, remembered))
    halves = Halves(MATCH_S) if feed.halves is None else feed.halves
    return Feed(both, DecoderBeside(both, feed.decoder, make_label_decoder(config, schema, halves)), halves, kafka)


def make_label_decoder(config: Config, schema: Schema, halves: Halves) -> Decoder:
    """What reads labels of a source of their own: nothing of a model's server, and over HTTP the headers say all."""
    form = config.events.decode
    if form == "open-inference" or isinstance(config.labels, HttpLabels):
        form = "json"
    return BodyDecoder(schema, halves, form, splits=not isinstance(config.labels, KafkaLabels))


def remembered_beside(config: Config, remembered: Remembered) -> Set[Shard]:
    """What is remembered of the source beside the one that is Kafka, if any is."""
    names: list[str] = []
    for way in (config.source, config.labels):
        if isinstance(way, HttpSource | HttpLabels):
            names.append(http.SHARD)
        elif isinstance(way, FileLabels):
            names.append(f"{way.path.name}#")
        elif isinstance(way, FileSource):
            names += [f"{path.name}#" for path in (way.path.predictions, way.path.labels) if path is not None]
            names.append(STDIN)
    shards = map(Shard, remembered.shards)
    return {shard for shard in shards if shard in names or shard.startswith(tuple(n for n in names if n[-1] == "#"))}


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
    with under("source"):
        predictions = open_file_source(
            "-" if str(place) == "-" else Path(place), schema, follow=source.follow, before=before, warn=log.error
        )
        if labels is None:
            return predictions
        if schema.label is None:
            raise ConfigError("`path.labels` must stand beside `events.label`, which says what a label is. Add it.")
        if source.follow:
            return LabelsBeside(predictions, make_label_file(labels, True, schema, before))
        return MergedSource([predictions, open_file_source(labels, only_labels(schema))], schema, labels={1})


def make_label_file(path: Path, follow: bool, schema: Schema, before: ReadBefore | None) -> Source:
    """The file that labels come from beside predictions that may go on coming. Raises ConfigError."""
    return open_file_source(path, only_labels(schema), follow=follow, before=before, warn=log.error)


def open_intake(
    config: Config, remembered: Remembered, metrics: Metrics, lacks: Lacks, stack: ExitStack
) -> Spool | None:
    """The spool, as far as it was read, and the server that fills it; None where nothing comes over HTTP.

    `stack` closes both. Raises ConfigError and StateError.
    """
    source = config.labels if isinstance(config.labels, HttpLabels) else config.source
    if not isinstance(source, HttpSource | HttpLabels):
        return None
    from driftwatch.sources.ingest import IngestServer, Intake, Terms  # asyncio and a parser, which others do not need
    from driftwatch.sources.tokens import Tokens

    known = remembered.shards.get(http.SHARD)
    position = 0 if known is None or known.position is None else known.position
    tokens = None if source.tokens_file is None else Tokens(source.tokens_file, source.tokens)
    reads_labels, reads_predictions = config.events.label is not None, isinstance(source, HttpSource)
    terms = Terms(source.max_body, tokens, source.full, source.durable, reads_labels, reads_predictions)
    section = "source" if reads_predictions else "labels"
    with under(section):
        spool = Spool(config.state.path.parent / "spool", position=position, max_bytes=source.spool.max_bytes)
    stack.callback(spool.close)
    metrics.add_http(lambda: spool.n_bytes, spool.max_bytes)
    intake = Intake(
        spool,
        terms,
        on_trouble=lacks.events if reads_predictions else lacks.labels,
        on_answers=metrics.http_answers,
        on_shed=lambda: metrics.discarded("http", "shed"),
    )
    with under(section):
        server = IngestServer(source.host, source.port, intake)
    stack.callback(server.close)
    what = "events" if reads_predictions else "labels"
    paths = "/v1/predictions and /v1/events" if reads_predictions else "/v1/labels"
    log.info("%s on http://%s:%d%s", what, source.host, server.port, paths)
    return spool


def make_kafka_source(
    source: KafkaSource | KafkaLabels,
    config: Config,
    config_path: Path,
    member: str,
    lacks: Callable[[str | None], object],
) -> KafkaEvents:
    """The configured topics; `member` is our name in the group. Raises ConfigError."""
    topics = Topics(labels=source.topics) if isinstance(source, KafkaLabels) else source.topics
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
        with under("labels" if isinstance(source, KafkaLabels) else "source"):
            if source.client == "kafka-python":
                from driftwatch.sources.kafka_python import KafkaPythonClient

                return KafkaPythonClient(connection)
            try:
                from driftwatch.sources.confluent import ConfluentClient
            except ImportError as error:
                raise ConfigError(
                    f"`client` is confluent, which cannot be imported: {error}. "
                    "Install driftwatch-sidecar[kafka-fast], or leave `client` out."
                ) from error
            return ConfluentClient(connection)

    return KafkaEvents(connect, lacks, labels={*topics.labels} - {*topics.predictions, *topics.features})


@contextmanager
def under(section: str) -> Iterator[None]:
    """Says of a ConfigError which of the two sections its keys are of: sources do not know."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"in `{section}`: {error}") from error
