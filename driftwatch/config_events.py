"""The configuration of what an event holds, and where."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from driftwatch.config_errors import Contradiction
from driftwatch.config_types import DottedPath, Duration, Section, short_form
from driftwatch.records import Kind


def _no_text(kind: object) -> object:
    if kind == "text":
        raise ValueError("must be one of numeric, categorical, embedding; got 'text'. Text is not yet supported.")
    return kind


class Feature(Section):
    """One feature of the model."""

    kind: Annotated[Kind, short_form(_no_text, Kind)] = Field(
        description="numeric, categorical or embedding (a list of numbers)."
    )
    path: DottedPath | None = Field(
        default=None, description="Where it lies in an event. Default: features.NAME; an embedding: embedding."
    )


class Prediction(Section):
    """The model's answer, watched like a feature."""

    name: str = Field(
        default="prediction", min_length=1, description="Its name in decisions, and its reference column."
    )
    kind: Literal["numeric", "probability", "binary", "categorical"] = Field(
        description="numeric, probability (a number from 0 to 1), binary (two classes) or categorical."
    )
    path: DottedPath = Field(default=("prediction",), description="Where it lies in an event.")


class Label(Section):
    """The truth, which may come days after the prediction."""

    name: str = Field(
        default="label", min_length=1, description="Its name in decisions, and its column in the reference."
    )
    kind: Literal["numeric", "binary", "categorical"] = Field(description="numeric, binary or categorical.")
    path: DottedPath = Field(default=("label",), description="Where it lies in an event.")
    wait: Duration = Field(
        default=7 * 86400.0, description="Event time after a window's end for which labels are awaited."
    )
    complete: float = Field(
        default=0.95, gt=0, le=1, description="Share of a window's predictions whose labels make it complete."
    )
    max_pending: int = Field(default=2_000_000, ge=1, description="Most predictions held until their labels come.")


def _feature(value: object) -> object:
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, dict | Feature):
        raise ValueError("must be a kind, such as numeric, or a mapping with `kind` and `path`.")
    return value


WrittenFeature = Annotated[Feature, short_form(_feature, Kind | Feature)]


class Events(Section):
    """What an event holds, and where."""

    decode: Literal["json", "cloudevents", "open-inference"] = Field(
        default="json",
        description="What a message is whose headers do not say it, as they do over HTTP: a plain JSON event; a "
        "CloudEvent with its attributes around it; or a request or response of a model server, with an id in it.",
    )
    id: DottedPath = Field(default=("id",), description="Path of the event's id.")
    time: DottedPath = Field(default=("time",), description="Path of the event's time: RFC 3339 text, or a number.")
    time_unit: Literal["s", "ms", "us", "ns"] = Field(
        default="s", description="Unit of times that are numbers, since 1970."
    )
    features: dict[str, WrittenFeature] = Field(
        default={}, description="The features by name: `age: numeric`, or `age: {kind: numeric, path: customer.age}`."
    )
    prediction: Prediction | None = Field(default=None, description="The model's answer. Default: not watched.")
    label: Label | None = Field(default=None, description="The truth. Default: no labels come.")
    fields: dict[str, DottedPath] = Field(
        default={},
        description="Further numbers of an event by name, with their paths, for `performance`; judged where the "
        "reference has a column of that name.",
    )
    dedupe: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="An id among so many last ids of its shard is a duplicate: counted, not used. 0 = off. "
        "Default: 10000; of an http source, which is one shard, 100000.",
    )

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        if not self.features and self.prediction is None:
            raise Contradiction((("features",), "must name a feature, unless there is a `prediction`; got neither."))
        for key, column in (("prediction", self.prediction), ("label", self.label)):
            if column is not None and column.name in self.features:
                text = f"must differ from every feature's name; got {column.name!r}. Choose another name."
                raise Contradiction(((key, "name"), text))
        if self.prediction and self.label and self.prediction.name == self.label.name:
            text = f"must differ from the prediction's name; got {self.label.name!r}. Choose another name."
            raise Contradiction((("label", "name"), text))
        if self.label and "loss" in {*self.features, self.label.name, self.prediction and self.prediction.name}:
            text = (
                "must leave the name 'loss' to the loss of each row, which is judged beside the label. Choose another."
            )
            raise Contradiction(((), text))
        taken = {*self.features, *(c.name for c in (self.prediction, self.label) if c is not None), "", "*"}
        taken |= {"prediction", "label", "loss"}
        for name in sorted(taken & self.fields.keys()):
            text = f"must differ from every feature's name and from prediction, label and loss; got {name!r}."
            raise Contradiction((("fields", name), f"{text} Choose another name."))
        for name in {"", "*"} & self.features.keys():
            text = f"must have another name; got {name!r}. In decisions `*` stands for all features together."
            raise Contradiction((("features", name), text))
        return self
