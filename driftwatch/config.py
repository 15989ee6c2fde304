"""The configuration: one YAML file as one frozen tree.

A relative path in it is relative to the file's own folder; `${NAME}` in a value is the environment variable NAME.
Secrets named by a `*_file` key are read when they are needed, not at load.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from driftwatch import config_errors, config_yaml
from driftwatch.config_connections import Labels, LogSink, Sink, Source, wrong_labels
from driftwatch.config_errors import Contradiction
from driftwatch.config_events import Events
from driftwatch.config_types import (
    ConfigPath,
    Duration,
    PositiveDuration,
    Scalar,
    Section,
    WrittenBudget,
    WrittenDefaults,
    WrittenPersistence,
    dotted,
)
from driftwatch.decode.cells import category
from driftwatch.errors import ConfigError
from driftwatch.figures import Measure
from driftwatch.records import Column, JudgedAs, Kind, LabelColumn, Schema
from driftwatch.units import Budget, Persistence, format_duration

__all__ = ["Config", "json_schema", "load"]

JUDGED_AS: dict[tuple[str, str], JudgedAs] = {
    ("numeric", "numeric"): "numeric",
    ("numeric", "binary"): "score",
    ("probability", "binary"): "probability",
    ("binary", "binary"): "binary",
    ("categorical", "categorical"): "categorical",
}
"""How a kind of prediction is held against a kind of label; other pairs have no loss."""

NO_CLOCK = "must be left out beside `count`: such a window has no clock."
MOST_PANES = 1000  # in one window: every open pane is held in memory for each shard

Effect = Literal[
    "ks",
    "chi_square",
    "psi",
    "wasserstein",
    "location",
    "scale",
    "largest_cell",
    "missing",
    "invalid",
    "unseen",
    "mmd",
    "correlation",
    "glr",
]
EFFECTS: dict[Effect, float] = {"ks": 0.02, "chi_square": 0.005, "missing": 0.005, "invalid": 0.005, "unseen": 0.005}
EFFECTS |= {"location": 0.05, "mmd": 0.02, "correlation": 0.05, "glr": 0.05}


class Model(Section):
    """The model whose events are watched."""

    name: str = Field(min_length=1, description="Name of the model; events that name another model are dropped.")
    version: str = Field(min_length=1, description="Version of events that do not name theirs; text, so in quotes.")


class Reference(Section):
    """What the stream is compared with: exactly one of the three."""

    path: ConfigPath | None = Field(default=None, description="CSV, JSONL or Parquet file with one column a feature.")
    profile: ConfigPath | None = Field(
        default=None, description="Profile made by `driftwatch profile`, or a folder of *.profile files, one a version."
    )
    learn: PositiveDuration | None = Field(
        default=None, description="Event time from the first event on that becomes the reference."
    )
    save: ConfigPath | None = Field(default=None, description="Where a learned profile is written.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [key for key in ("path", "profile", "learn") if getattr(self, key) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ValueError(f"must have exactly one of the keys path, profile, learn; got {got}.")
        if self.save is not None and self.learn is None:
            raise Contradiction((("save",), "must stand beside `learn`; got it alone. Leave it out."))
        return self


class Window(Section):
    """The stretch of a stream that is judged as one: `length` of event time, or `count` events."""

    length: PositiveDuration | None = Field(default=None, description="Event time in a window.")
    count: int | None = Field(default=None, ge=1, description="Events in a window, instead of `length`.")
    slide: PositiveDuration | None = Field(
        default_factory=lambda data: data.get("length"),
        description="Event time from one window's end to the next one's; divides `length`. Default: `length`.",
    )
    lateness: Duration = Field(
        default=30.0,
        description="How far an event may lag behind the stream's clock and still count; beside `count`: a label.",
    )
    min_records: int = Field(default=200, ge=1, description="A window with fewer events is `undetermined`.")

    @model_validator(mode="after")
    def _panes_fit(self) -> Self:
        if (self.length is None) == (self.count is None):
            got = "none" if self.length is None else "both"
            raise ValueError(f"must have exactly one of the keys length, count; got {got}.")
        if self.count is not None:
            wrong: list[config_yaml.Problem] = []
            if "slide" in self.model_fields_set:
                wrong.append((("slide",), NO_CLOCK))
            if self.count < self.min_records:
                text = (
                    f"must be at least `min_records`, or no window is ever judged; got {self.count} with "
                    f"{self.min_records}. Raise it, or lower `min_records`."
                )
                wrong.append((("count",), text))
            if wrong:
                raise Contradiction(*wrong)
        elif self.length is not None and self.slide is not None:
            panes = self.length / self.slide
            if abs(panes - round(panes)) > 1e-9 or not 1 <= panes <= MOST_PANES:
                got = f"{format_duration(self.slide)} with {format_duration(self.length)}"
                text = f"must divide `length` into 1 to {MOST_PANES} equal parts; got {got}."
                raise Contradiction((("slide",), text))
        return self


class Alarms(Section):
    """When an alarm opens, and whom it reaches."""

    budget: WrittenBudget = Field(
        default=Budget(1, per_seconds=30 * 86400.0),
        description="False alarms that are acceptable for the whole model: `1 per 30d` or `1 per 1000 windows`.",
    )
    persistence: WrittenPersistence = Field(
        default=Persistence(1, 1),
        alias="for",
        description="An alarm opens when k of the last n determined windows drift.",
    )
    cooldown: Duration = Field(default=0.0, description="Event time after an alarm resolved in which none opens.")
    replicas: int = Field(
        default=1,
        ge=1,
        description="Sidecars that each see a part of the traffic, outside a Kafka group; each gets its share.",
    )
    notify: bool = Field(default=True, description="false: judge and show, send nothing.")
    effect: dict[Effect, Annotated[float, Field(ge=0)]] = Field(
        default=EFFECTS,
        description="Smallest change that counts, by detector; one that is reached is enough. Naming any replaces the "
        "defaults; {} = none.",
    )


class Mmd(Section):
    """Maximum mean discrepancy over all numeric features together."""

    rows: int = Field(default=1000, ge=0, description="Rows of a window that it samples. 0 = off.")


class Detectors(Section):
    """What the detectors may spend."""

    mmd: Mmd = Mmd()


class State(Section):
    """What survives a restart."""

    path: ConfigPath = Field(
        default=Path("/var/lib/driftwatch/state.db"),
        description="The state file, on a local or block volume (not NFS).",
    )
    keep: PositiveDuration = Field(default=30 * 86400.0, description="Event time for which decisions are kept.")


class BusinessMeasure(Section):
    """A figure of the business in every window."""

    field: str = Field(description="A name in `events.fields`, or prediction where it is a number, or label.")
    measure: Literal["sum", "mean", "rate"] = Field(
        alias="is",
        description="sum, mean, or rate: the share of values that are not 0, of a label that is a class "
        "the share of `positive`.",
    )


class SystemMeasure(Section):
    """A figure of the serving system in every window."""

    field: str = Field(description="A name in `events.fields`, or prediction where it is a number.")
    measure: Literal["quantiles", "rate"] = Field(
        alias="is", description="quantiles: median, 95 % and 99 %; rate: the share of values that are not 0."
    )


class Performance(Section):
    """How well the model does, by labels and by what it earns."""

    positive: Scalar = Field(default=1, description="The class that a `probability` speaks of.")
    business: dict[str, BusinessMeasure] = Field(default={}, description="Figures of the business by name.")
    system: dict[str, SystemMeasure] = Field(default={}, description="Figures of the serving system by name.")
    model_metrics: bool = Field(
        default=True, description="Export model_accuracy and its like; false where the model server has them."
    )


class Config(Section):
    """The configuration of driftwatch."""

    model: Model
    source: Source | None = Field(default=None, description="Where events come from; `driftwatch run` needs it.")
    labels: Labels | None = Field(
        default=None, description="Where labels come from that come another way. Default: where predictions do."
    )
    events: Events
    reference: Reference | None = Field(
        default=None, description="What the stream is compared with. Without one every window is `undetermined`."
    )
    window: Window
    alarms: Alarms = Alarms()
    detectors: Detectors = Detectors()
    sinks: tuple[Sink, ...] = Field(default=(LogSink(kind="log"),), description="Where decisions and alarms go.")
    state: State = State()
    performance: Performance = Performance()

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        wrong: list[config_yaml.Problem] = []
        budget, slide = self.alarms.budget, self.window.slide
        if slide is not None and budget.per_seconds is not None and budget.alarms * slide >= budget.per_seconds:
            text = f"must allow fewer alarms than windows; got {str(budget)!r} with one every {format_duration(slide)}."
            wrong.append((("alarms", "budget"), text))
        if self.window.count is not None and self.events.label is None and "lateness" in self.window.model_fields_set:
            wrong.append((("window", "lateness"), NO_CLOCK))
        if self.labels is not None:
            wrong += wrong_labels(self.source, self.labels)
            if self.events.label is None:
                text = "must stand beside `events.label`, which says what a label is; got it alone."
                wrong.append((("labels",), text))
        vectors = [name for name, feature in self.events.features.items() if feature.kind == "embedding"]
        if self.reference is not None and self.reference.learn is not None and vectors:
            text = f"must be left out where {vectors[0]!r} is an embedding: its length comes from a reference."
            wrong.append((("reference", "learn"), f"{text} Give `path` or `profile`."))
        ports = [way.port for way in (self.source, self.labels) if way is not None and way.kind == "http"]
        for index, sink in enumerate(self.sinks):
            if sink.kind == "prometheus":
                if sink.port in ports and sink.port != 0:
                    text = f"must differ from every source's port and every other sink's; got {sink.port}."
                    wrong.append((("sinks", index, "port"), text))
                ports.append(sink.port)
        schema = self.event_schema()
        columns: list[Column | LabelColumn] = [*schema.columns, *([] if schema.label is None else [schema.label])]
        places = {column.path: column.name for column in reversed(columns)}
        for column in columns:
            above = [column.path[:depth] for depth in range(1, len(column.path)) if column.path[:depth] in places]
            if above or places[column.path] != column.name:
                other = places[above[0] if above else column.path]
                of: str = "label" if isinstance(column, LabelColumn) else column.group
                place: config_yaml.Place = ("events", of, *([column.name] if of in ("features", "fields") else []))
                text = (
                    f"must lie at a path of its own; got {'.'.join(column.path)}, where {other!r} lies. Give a `path`."
                )
                wrong.append((place, text))
        wrong += self._wrong_measures()
        if wrong:
            raise Contradiction(*wrong)
        return self

    def _wrong_measures(self) -> Iterator[config_yaml.Problem]:
        """What is wrong about figures."""
        prediction, label, measured = self.events.prediction, self.events.label, self.performance
        known = set(self.events.fields)
        if prediction is not None and prediction.kind in ("numeric", "probability"):
            known.add("prediction")
        for group, measures in (("system", measured.system), ("business", measured.business)):
            if label is not None and group == "business":
                known.add("label")
            for name, measure in measures.items():
                place: config_yaml.Place = ("performance", group, name)
                is_class = label is not None and label.kind != "numeric" and measure.field == "label"
                if measure.field not in known:
                    names = ", ".join(sorted(known)) or "the names in events.fields"
                    yield (*place, "field"), f"must be one of {names}; got {measure.field!r}. Add it to events.fields."
                elif is_class and measure.measure != "rate":
                    yield (*place, "is"), f"must be rate, since the label is a class; got {measure.measure}."
        for name in sorted(measured.business.keys() & measured.system.keys()):
            text = f"must differ from the names in `business`; got {name!r}. Choose another name."
            yield ("performance", "system", name), text

    @property
    def dedupe_size(self) -> int:
        """How many ids of a shard are remembered."""
        if self.events.dedupe is not None:
            return self.events.dedupe
        return 100_000 if self.source is not None and self.source.kind == "http" else 10_000

    def event_schema(self) -> Schema:
        """The columns of an event: the features in the file's order, then the prediction, then further fields."""
        columns = [
            Column(name, f.kind, f.path or (("embedding",) if f.kind == "embedding" else ("features", name)))
            for name, f in self.events.features.items()
        ]
        prediction = self.events.prediction
        if prediction is not None:
            kind: Kind = "numeric" if prediction.kind in ("numeric", "probability") else "categorical"
            columns.append(Column(prediction.name, kind, prediction.path, group="prediction"))
        columns += [Column(name, "numeric", path, group="fields") for name, path in self.events.fields.items()]
        return Schema(
            model=self.model.name,
            version=self.model.version,
            columns=tuple(columns),
            id_path=self.events.id,
            time_path=self.events.time,
            time_unit=self.events.time_unit,
            label=self._label_column(),
        )

    def measures(self) -> tuple[Measure, ...]:
        """The figures that are made of fields."""
        named: list[tuple[str, BusinessMeasure | SystemMeasure]] = [
            *self.performance.business.items(),
            *self.performance.system.items(),
        ]
        columns = {
            group: c.name for group, c in (("prediction", self.events.prediction), ("label", self.events.label)) if c
        }
        return tuple(Measure(name, columns.get(m.field, m.field), m.measure) for name, m in named)

    def _label_column(self) -> LabelColumn | None:
        label, prediction = self.events.label, self.events.prediction
        if label is None:
            return None
        return LabelColumn(
            name=label.name,
            kind="numeric" if label.kind == "numeric" else "categorical",
            path=label.path,
            prediction=None if prediction is None else prediction.name,
            judged_as=None if prediction is None else JUDGED_AS.get((prediction.kind, label.kind)),
            positive=str(category(self.performance.positive)),
        )


def load(path: str | Path) -> Config:
    """Reads and validates a configuration. Raises ConfigError, which names every problem with its place."""
    try:
        text = Path(path).read_text("utf-8-sig")
        data, problems = config_yaml.parse(text)
    except OSError as error:
        hint = "Give the path of a configuration, or write one with `driftwatch init`."
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. {hint}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8 text; byte {error.start} is not.") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: must be nested less deeply.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        line = text.splitlines()[mark.line : mark.line + 1] if mark else []
        hint = " Write a value that holds `${…}` in quotes." if "${" in "".join(line) else ""
        raise ConfigError(f"{place}: must be YAML: {error.problem or error.context}.{hint}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: must be YAML: {' '.join(str(error).split())}.") from error
    try:
        config = Config.model_validate(data, context={"folder": Path(path).parent})
    except ValidationError as error:
        known = {place for place, _ in problems}
        problems += [p for p in config_errors.problems(error, data, json_schema()) if p[0] not in known]
        raise ConfigError(_report(path, problems)) from error
    if problems:
        raise ConfigError(_report(path, problems))
    return config


def _report(path: str | Path, problems: list[config_yaml.Problem]) -> str:
    lines = (f"{path}: {dotted(place)}{': ' if place else ''}{text}" for place, text in problems)
    # A name in the file may hold a line break; one problem stays one line.
    return "\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)


def json_schema() -> dict[str, Any]:
    """The configuration's JSON Schema (2020-12), with the descriptions that editors show."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(schema_generator=WrittenDefaults),
    }
