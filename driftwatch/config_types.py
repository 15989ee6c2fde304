"""The kinds of value in a configuration, as pydantic reads and writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import WithDefaultSchema

from driftwatch import units
from driftwatch.config_yaml import Place


class Section(BaseModel):
    """A mapping of the configuration: frozen, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class WrittenDefaults(GenerateJsonSchema):
    """Shows a default as a user would write it: 30s, not 30.0."""

    def get_default_value(self, schema: WithDefaultSchema) -> Any:
        default = super().get_default_value(schema)
        written = dict(schema["schema"]).get("serialization", {})
        return written["function"](default) if written.get("type") == "function-plain" else default


def short_form(read: Callable[[object], object], written: Any) -> BeforeValidator:
    """Lets a value be written as `written` says, and turns it into what is validated."""
    return BeforeValidator(read, json_schema_input_type=written)


def dotted(place: Place) -> str:
    """A place as users read it: `sinks[2].url`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _split(text: object) -> object:
    if not isinstance(text, str) or not all(text.split(".")):
        raise ValueError(f"must be keys joined by dots, such as customer.age; got {text!r}.")
    return tuple(text.split("."))


def _beside_config(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None or path == Path("-") else folder / path


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise ValueError("must be text, a number, true or false.")
    return value


def _one_or_list(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


def one_or_list(written: Any) -> BeforeValidator:
    """Lets a list of one be written without its brackets."""
    return short_form(_one_or_list, written)


_DurationText = Annotated[str, Field(pattern=units.DURATION_PATTERN)]
Duration = Annotated[float, short_form(units.parse_duration, _DurationText), PlainSerializer(units.format_duration)]
PositiveDuration = Annotated[
    float, short_form(units.parse_positive_duration, _DurationText), PlainSerializer(units.format_duration)
]
Size = Annotated[
    int,
    short_form(units.parse_bytes, Annotated[str, Field(pattern=units.BYTES_PATTERN)] | Annotated[int, Field(gt=0)]),
    PlainSerializer(units.format_bytes),
]
WrittenBudget = Annotated[
    units.Budget,
    PlainValidator(units.Budget.parse, json_schema_input_type=Annotated[str, Field(pattern=units.BUDGET_PATTERN)]),
    PlainSerializer(str),
]
WrittenPersistence = Annotated[
    units.Persistence,
    PlainValidator(
        units.Persistence.parse, json_schema_input_type=Annotated[str, Field(pattern=units.PERSISTENCE_PATTERN)]
    ),
    PlainSerializer(str),
]
DottedPath = Annotated[tuple[str, ...], short_form(_split, str), PlainSerializer(".".join)]
ConfigPath = Annotated[Path, AfterValidator(_beside_config)]
Scalar = Annotated[str | int | float | bool, PlainValidator(_scalar, json_schema_input_type=str | int | float | bool)]
