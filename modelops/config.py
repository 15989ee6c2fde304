"""`modelops.yaml`: where things listen, lie and are sent. What is trained stands in each model's recipe."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from modelops import settings
from modelops.errors import ConfigError
from modelops.settings import Duration, FilePath, Section

TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=249)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
"""It stands in paths, URLs and MLflow's filters."""


class Listen(Section):
    """An address to listen on."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(ge=0, le=65_535, description="Port; 0 takes a free one.")


class Api(Listen):
    """The service's own interface."""

    token_file: FilePath | None = Field(
        default=None, description="Bearer tokens for reading, one a line. Default: anyone who reaches it may read."
    )


class Webhook(Section):
    """What the receiver of webhooks takes."""

    secret_files: tuple[FilePath, ...] = Field(
        min_length=1, description="Files with one key each; while a key is changed, the old and the new one."
    )
    max_body: int = Field(default=262_144, ge=1024, description="Bytes of the largest body.")
    per_minute: int = Field(default=120, ge=1, description="Requests of one address a minute; more are refused.")


class Sidecar(Section):
    """A driftwatch that watches the model, at its metrics port."""

    url: str = Field(pattern=r"^https?://[^/]+$", description="http://HOST:PORT of the sidecar.")
    token_file: FilePath | None = Field(default=None, description="File with the token that PUT asks for.")


class Policy(Section):
    """When an alarm starts a job."""

    cooldown: Duration = Field(default=3600.0, description="After a job of a model the next one waits so long.")
    max_per_day: int = Field(default=4, ge=1, description="Jobs of a model in 24 hours; more wait.")


class Server(Section):
    """The model servers that are started for a model's versions."""

    max_batch: int = Field(default=64, ge=1, description="Most rows that are predicted at once.")
    max_wait_ms: float = Field(default=2.0, ge=0, description="Longest that a request waits for others.")


class Rotation(Section):
    """When the prediction log begins a new file, and how many old ones are kept for training and deliveries."""

    max_bytes: int = Field(default=1 << 30, ge=1 << 16, description="Bytes after which a new file begins.")
    keep: int = Field(default=8, ge=1, description="Files beside the newest; the oldest is deleted.")


class HttpTarget(Section):
    """The prediction log goes to driftwatch's `http` source, as CloudEvents."""

    kind: Literal["http"] = Field(description="http.")
    url: str = Field(pattern=r"^https?://[^/@]+(/.*)?$", description="Where batches of CloudEvents are posted to.")
    token_file: FilePath | None = Field(default=None, description="File with the bearer token; read at each batch.")


class KafkaConnection(Section):
    """How Kafka is reached."""

    kind: Literal["kafka"] = Field(description="kafka.")
    brokers: tuple[str, ...] = Field(min_length=1, description="Brokers to begin with, each HOST:PORT.")
    settings: dict[str, str | int | float | bool] = Field(
        default={}, repr=False, description="kafka-python's own settings, dotted; `*.password_file` reads a secret."
    )

    @field_validator("settings")
    @classmethod
    def _beside_file(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        folder = (info.context or {}).get("folder", Path())
        return {
            name: str(folder / str(value)) if name.endswith("password_file") else value
            for name, value in settings.items()
        }

    def client_settings(self) -> dict[str, str | int | float | bool]:
        """The settings, with every `NAME.password_file` read into `NAME.password`. Raises ConfigError."""
        return {
            name.removesuffix("_file"): read_secret(Path(str(value))) if name.endswith("password_file") else value
            for name, value in self.settings.items()
        }


class KafkaTarget(KafkaConnection):
    """The prediction log goes to a Kafka topic, an event a message, keyed by its id."""

    topic: str = Field(min_length=1, description="The topic; it must be there.")


class Topics(Section):
    """Kafka topics by what they carry."""

    predictions: tuple[TopicName, ...] = Field(default=(), description="Topics of prediction events.")
    labels: tuple[TopicName, ...] = Field(default=(), description="Topics of label events.")

    @model_validator(mode="after")
    def _some_topic(self) -> Self:
        if not self.predictions and not self.labels:
            raise ValueError("must name a topic; got none.")
        return self


class KafkaSource(KafkaConnection):
    """Rows to train on from Kafka topics, an event a message, as in the files."""

    topics: Topics = Field(description="Topics by what they carry: predictions, labels.")


class ModelEntry(Section):
    """One model in service."""

    recipe: FilePath = Field(description="The recipe, YAML.")
    predictions: FilePath = Field(description="The prediction log, JSONL; the model servers append to it.")
    rotation: Rotation = Rotation()
    deliver: tuple[Annotated[HttpTarget | KafkaTarget, Field(discriminator="kind")], ...] = Field(
        default=(), description="Where the prediction log is sent beside; driftwatch may also read the file."
    )
    labels: FilePath | None = Field(
        default=None, description="Labels: JSONL, Parquet, or a folder of such files. Default: they stand in the log."
    )
    history: tuple[FilePath, ...] = Field(
        default=(), description="Older predictions to train on too: JSONL or Parquet files, or folders of them."
    )
    source: KafkaSource | None = Field(
        default=None,
        description="Topics to train on: of predictions instead of the prediction log, of labels beside `labels`. What "
        "was read is kept in `state.folder`, as much as `rotation` says. Default: files only.",
    )
    sidecars: tuple[Sidecar, ...] = Field(default=(), description="Where the profile of a new version is delivered.")
    policy: Policy = Policy()
    server: Server = Server()


class State(Section):
    """What survives a restart."""

    folder: FilePath = Field(
        default=Path("/var/lib/modelops"), description="Folder for the state file, snapshots, jobs and artifacts."
    )


class Config(Section):
    """The configuration of modelops."""

    api: Api = Field(default=Api(port=9200), description="Webhooks, jobs, registry, rollouts, metrics, probes.")
    router: Listen = Field(default=Listen(port=8080), description="Where predictions are asked for.")
    webhook: Webhook
    models: dict[ModelName, ModelEntry] = Field(
        min_length=1, description="Models by name: letters, digits, dot, dash and underscore."
    )
    state: State = State()
    tracking_uri: str | None = Field(
        default=None, description="MLflow's tracking and registry URI. Default: SQLite in `state.folder`."
    )
    tick: Duration = Field(default=0.5, description="How often jobs and rollouts are looked after.")

    @property
    def database(self) -> Path:
        """The state file."""
        return self.state.folder / "modelops.db"

    @property
    def mlflow_uri(self) -> str:
        """Where MLflow keeps runs and model versions."""
        return self.tracking_uri or f"sqlite:///{self.state.folder.absolute() / 'mlflow.db'}"

    def model(self, name: str) -> ModelEntry:
        """The entry of a model. Raises ConfigError where there is none."""
        if name not in self.models:
            raise ConfigError(f"`models` must name {name!r}; got {', '.join(self.models)}.")
        return self.models[name]


def load(path: Path) -> Config:
    """Reads and validates a configuration. Raises ConfigError."""
    return settings.load(path, Config)


def read_secret(path: Path) -> str:
    """A secret from its file. Raises ConfigError."""
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path}: must be a file that holds a secret: {error.strerror}. Write it there.") from error


def json_schema() -> dict[str, Any]:
    """The configuration's JSON Schema."""
    return settings.json_schema(Config)
