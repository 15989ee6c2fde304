"""The configuration of what driftwatch is connected with: sources of events and sinks of decisions."""

import fnmatch
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from driftwatch.config_errors import Contradiction
from driftwatch.config_types import (
    ConfigPath,
    PositiveDuration,
    Scalar,
    Section,
    Size,
    one_or_list,
    short_form,
)
from driftwatch.config_yaml import Problem
from driftwatch.errors import ConfigError

EVENT_TYPES = tuple(
    f"{of}.{transition}"
    for of in ("drift", "data_quality", "performance")
    for transition in ("opened", "continuing", "updated", "resolved")
)
Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1)]
MATCH = "Event time in which a request waits for its response."
FOLLOW = "Read on as the file grows and is rotated."


def read_secret(path: Path) -> str:
    """The content of a secret's file without its last line end. Raises ConfigError, which never shows the content."""
    try:
        secret = path.read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(
            f"{path}: the secret cannot be read: {error.strerror}. Mount it, or correct the path."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the secret must be UTF-8 text; byte {error.start} is not.") from error
    if not secret:
        raise ConfigError(f"{path}: the secret must not be empty.")
    return secret


def _predictions(value: object) -> object:
    return value if isinstance(value, dict) else {"predictions": value}


class Topics(Section):
    """The Kafka topics by what they carry."""

    predictions: tuple[Text, ...] = Field(default=(), description="Topics of prediction events.")
    features: tuple[Text, ...] = Field(default=(), description="Topics of feature events.")
    labels: tuple[Text, ...] = Field(default=(), description="Topics of label events.")

    @model_validator(mode="after")
    def _some_topic(self) -> Self:
        if not (self.predictions or self.features or self.labels):
            raise ValueError("must name a topic; got none.")
        return self


class _Kafka(Section):
    kind: Literal["kafka"] = Field(description="kafka.")
    brokers: tuple[Text, ...] = Field(min_length=1, description="Brokers to begin with, each HOST:PORT.")
    group: Text | None = Field(default=None, description="The consumer group. Default: driftwatch-MODEL.")
    client: Literal["kafka-python", "confluent"] = Field(default="kafka-python", description="The client library.")
    settings: dict[str, Scalar] = Field(
        default={},
        repr=False,
        description="The client's own settings, dotted names for both; `*.password_file` reads a secret.",
    )

    def client_settings(self, folder: Path) -> dict[str, str | int | float | bool]:
        """The settings with every `NAME.password_file` read (relative to `folder`) into `NAME.password`.

        Raises ConfigError where a file cannot be read.
        """
        return {
            name.removesuffix("_file"): read_secret(folder / str(value)) if name.endswith("password_file") else value
            for name, value in self.settings.items()
        }


class KafkaSource(_Kafka):
    """Events from Kafka."""

    topics: Annotated[Topics, short_form(_predictions, list[str] | Topics)] = Field(
        description="Topics by what they carry: predictions, features, labels; a plain list means predictions."
    )
    match: PositiveDuration = Field(default=60.0, description=MATCH)


class KafkaLabels(_Kafka):
    """Labels from Kafka, while predictions come another way."""

    topics: tuple[Text, ...] = Field(min_length=1, description="Topics of label events.")


class Spool(Section):
    """Bodies that were accepted and are not yet judged, on disk."""

    max_bytes: Size = Field(default=2**30, description="Most bytes that it may hold.")


class _Http(Section):
    kind: Literal["http"] = Field(description="http.")
    port: Port = Field(description="The port that driftwatch listens on.")
    host: Text = Field(default="0.0.0.0", description="The address that it listens on.")
    tokens_file: ConfigPath | None = Field(
        default=None, description="Bearer tokens, one a line. Default: anyone may send."
    )
    spool: Spool = Spool()
    full: Literal["refuse", "shed"] = Field(
        default="refuse", description="A full spool answers 503 (refuse), or 200 (shed)."
    )
    durable: Literal["write", "fsync"] = Field(
        default="write", description="An answered body survives a kill (write), or loss of power as well (fsync)."
    )
    max_body: Size = Field(default=8 * 2**20, description="Longest body that is accepted.")

    def tokens(self) -> tuple[str, ...]:
        """The bearer tokens that let in; none: anyone may send. Raises ConfigError where the file cannot be read."""
        if self.tokens_file is None:
            return ()
        tokens = tuple(token for line in read_secret(self.tokens_file).splitlines() if (token := line.strip()))
        if not tokens:
            raise ConfigError(f"{self.tokens_file}: must hold a token, one a line; got empty lines.")
        return tokens


class HttpSource(_Http):
    """Events sent to driftwatch over HTTP."""

    match: PositiveDuration = Field(default=60.0, description=MATCH)


class HttpLabels(_Http):
    """Labels sent to driftwatch over HTTP (POST /v1/labels), while predictions come another way."""


class FilePaths(Section):
    """The files by what they carry."""

    predictions: ConfigPath = Field(description="File of prediction events, or - for standard input.")
    labels: ConfigPath | None = Field(default=None, description="File of label events.")


class FileSource(Section):
    """Events from a file."""

    kind: Literal["file"] = Field(description="file.")
    path: Annotated[FilePaths, short_form(_predictions, str | FilePaths)] = Field(
        description="JSONL, CSV or Parquet file, or - for standard input; {predictions: FILE, labels: FILE} for two."
    )
    follow: bool = Field(default=False, description=FOLLOW)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        """What is read of a log that is rotated is remembered by its name."""
        predictions, labels = self.path.predictions, self.path.labels
        if self.follow and labels is not None and predictions.name == labels.name:
            text = f"must have another name than predictions beside `follow`; got {labels.name} twice. Rename one."
            raise Contradiction((("path", "labels"), text))
        return self


class FileLabels(Section):
    """Labels from a file, while predictions come another way."""

    kind: Literal["file"] = Field(description="file.")
    path: ConfigPath = Field(description="JSONL, CSV or Parquet file of label events.")
    follow: bool = Field(default=False, description=FOLLOW)


class PrometheusSink(Section):
    """Metrics and probes over HTTP."""

    kind: Literal["prometheus"] = Field(description="prometheus.")
    port: Port = Field(default=9108, description="The port of /metrics, /livez, /readyz and /v1/profile.")
    host: Text = Field(default="0.0.0.0", description="The address that it listens on.")
    token_file: ConfigPath | None = Field(
        default=None, description="Bearer token for PUT /v1/profile. Default: PUT is refused."
    )

    def token(self) -> str | None:
        """The bearer token, if one is named. Raises ConfigError where its file cannot be read."""
        return None if self.token_file is None else read_secret(self.token_file)


class LogSink(Section):
    """Decisions on standard output, one JSON object a line."""

    kind: Literal["log"] = Field(description="log.")


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
        parts = urlsplit("")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or a password. The signature says who sends.")
    if not fine:
        raise ValueError(f"must be an address such as https://host/path; got {url!r}.")
    return url


def _known_glob(glob: str) -> str:
    if not fnmatch.filter(EVENT_TYPES, glob):
        raise ValueError(f"must match a type such as drift.opened or *.resolved; got {glob!r}, which matches none.")
    return glob


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"must be a network such as 10.0.0.0/8; got {text!r}: {error}.") from error
    return text


class WebhookSink(Section):
    """Signed alarms, sent to another system."""

    kind: Literal["webhook"] = Field(description="webhook.")
    url: Annotated[str, AfterValidator(_web_address)] = Field(description="Where alarms are posted to.")
    secret: Annotated[tuple[SecretStr, ...], one_or_list(str | list[str])] = Field(
        default=(), description="The signing key (whsec_… or base64), or several while keys are rotated."
    )
    secret_file: Annotated[tuple[ConfigPath, ...], one_or_list(str | list[str])] = Field(
        default=(), description="File that holds the signing key, or several."
    )
    on: tuple[Annotated[str, AfterValidator(_known_glob)], ...] = Field(
        default=("*.opened", "*.resolved"), description="Which alarms are sent: globs over CLASS.TRANSITION."
    )
    max_age: PositiveDuration = Field(
        default=86400.0, description="An alarm that is not delivered by then is set aside."
    )
    timeout: PositiveDuration = Field(default=10.0, description="Time for one delivery.")
    allow_http: bool = Field(default=False, description="Accept a `url` without TLS.")
    allow_private: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        default=(), description="Private networks that may be reached, each as CIDR."
    )

    @model_validator(mode="after")
    def _signed_and_private(self) -> Self:
        if bool(self.secret) == bool(self.secret_file):
            got = "both" if self.secret else "none"
            raise ValueError(f"must have exactly one of the keys secret, secret_file; got {got}.")
        if not self.allow_http and not self.url.lower().startswith("https:"):
            text = f"must begin with https:; got {self.url!r}. Set `allow_http: true` where the network is trusted."
            raise Contradiction((("url",), text))
        return self

    def secrets(self) -> tuple[str, ...]:
        """The signing keys, each of which signs. Raises ConfigError where a file cannot be read."""
        return tuple(s.get_secret_value() for s in self.secret) or tuple(read_secret(f) for f in self.secret_file)


Source = Annotated[KafkaSource | HttpSource | FileSource, Field(discriminator="kind")]
Labels = Annotated[KafkaLabels | HttpLabels | FileLabels, Field(discriminator="kind")]
Sink = Annotated[PrometheusSink | LogSink | WebhookSink, Field(discriminator="kind")]

_INSTEAD = {
    "http": "Send labels to the source's own port (POST /v1/labels)",
    "kafka": "Name the topic, on the same brokers, in `source.topics.labels`",
    "file": "Name the file in `source.path.labels`",
}
"""What to do where labels come the same way as predictions."""


def wrong_labels(
    source: KafkaSource | HttpSource | FileSource | None, labels: KafkaLabels | HttpLabels | FileLabels
) -> Iterator[Problem]:
    """What is wrong about a source of labels beside that of predictions."""
    if source is not None and source.kind == labels.kind:
        text = f"must differ from `source.kind`; got {labels.kind} twice. {_INSTEAD[labels.kind]}, without `labels`."
        yield ("labels", "kind"), text
    if isinstance(labels, FileLabels) and labels.path == Path("-"):
        yield ("labels", "path"), "must be a file; got standard input, whose end nobody could tell. Write it to a file."
