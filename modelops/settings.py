"""YAML files as frozen trees: how they are read, and how what is wrong in them is said with its place."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
)

from modelops import times
from modelops.errors import ConfigError


class Section(BaseModel):
    """A mapping of a file: frozen, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


def _beside_file(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None else folder / path


Duration = Annotated[
    float,
    BeforeValidator(times.parse_duration, json_schema_input_type=Annotated[str, Field(pattern=times.DURATION_PATTERN)]),
    PlainSerializer(times.format_duration),
]
FilePath = Annotated[Path, AfterValidator(_beside_file)]
"""A path; a relative one is relative to the file that names it."""

Read = TypeVar("Read", bound=Section)


class _Loader(yaml.SafeLoader):
    """Leaves times alone: `2026-01-01` is text, as in the events."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # `1e-3` is a number, as in JSON and in YAML since 1.2
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load(path: Path, shape: type[Read]) -> Read:
    """Reads and validates a file. Raises ConfigError that names every problem with its place."""
    try:
        text = path.read_text("utf-8-sig")
        data = yaml.load(text, _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Give the path of a YAML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8 text; byte {error.start} is not.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: must be YAML: {' '.join(str(error).split())}.") from error
    missing: list[str] = []
    filled = _with_environment(data, "", missing)
    if missing:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in missing))
    try:
        return shape.model_validate(filled, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems(error, shape))) from error


def problems(error: ValidationError, shape: type[BaseModel]) -> list[str]:
    """Each problem as one line: its place, what was expected, what came."""
    said = []
    for detail in error.errors(include_url=False):
        place = dotted(detail["loc"])
        got = "" if isinstance(detail["input"], Mapping | list) else f"; got {detail['input']!r}"
        cause = detail.get("ctx", {}).get("error")
        if detail["type"] == "extra_forbidden":
            keys = sorted(_keys(shape, detail["loc"][:-1]))
            near = difflib.get_close_matches(str(detail["loc"][-1]), keys, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            said.append(f"{place}: must be one of the keys {', '.join(keys)}.{hint}")
        elif detail["type"] == "missing":
            said.append(f"{place}: must be given.")
        elif cause is not None:
            said.append(f"{place}: {cause}" if place else str(cause))
        else:
            message = detail["msg"][0].lower() + detail["msg"][1:]
            said.append(f"{place}: {message.replace('input should', 'must')}{got}.")
    return said


def dotted(place: tuple[str | int, ...]) -> str:
    """A place as users read it: `models.credit.labels[2]`.

    >>> dotted(("models", "credit", 2))
    'models.credit[2]'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def json_schema(shape: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema (2020-12) with the descriptions that editors show."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **shape.model_json_schema()}


def _keys(shape: type[BaseModel], place: tuple[str | int, ...]) -> set[str]:
    """The keys that the section at `place` may have."""
    root = shape.model_json_schema()
    found: list[Any] = [root]
    for part in (None, *place):
        step: list[Any] = []
        for section in found:
            if part is None:
                step.append(section)
            elif isinstance(part, str) and part in section.get("properties", {}):
                step.append(section["properties"][part])
            elif isinstance(part, int) and "items" in section:
                step.append(section["items"])
            elif isinstance(section.get("additionalProperties"), dict):
                step.append(section["additionalProperties"])
            else:
                step.append(section)  # the branch of a union
        found = [branch for section in step for branch in _branches(section, root)]
    return {key for section in found for key in section.get("properties", {})}


def _branches(section: Any, root: Any) -> list[Any]:
    if "$ref" in section:
        section = root["$defs"][section["$ref"].rsplit("/", 1)[1]]
    below = [branch for one in section.get("anyOf", section.get("oneOf", ())) for branch in _branches(one, root)]
    return [section, *below]


def _with_environment(data: object, place: str, missing: list[str]) -> object:
    """The data with `${NAME}` in its texts filled in."""
    if isinstance(data, dict):
        return {key: _with_environment(value, f"{place}.{key}", missing) for key, value in data.items()}
    if isinstance(data, list):
        return [_with_environment(value, f"{place}[{i}]", missing) for i, value in enumerate(data)]
    if not isinstance(data, str):
        return data
    for name in re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", data):
        if name not in os.environ:
            missing.append(f"{place.removeprefix('.')}: must find the environment variable {name}; it is not set.")
    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda match: os.environ.get(match[1], ""), data)
