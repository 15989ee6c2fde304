"""Writes configuration.md beside this file: every key of the configuration, from its JSON Schema.

Run it after a change of the configuration: python docs/generate_configuration.py
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from driftwatch import units
from driftwatch.config import json_schema
from driftwatch.init_config import starting_config

PAGE = Path(__file__).with_name("configuration.md")

_INTRODUCTION = """\
# Configuration

<!-- Written by generate_configuration.py. Change the descriptions in driftwatch/config*.py, then run it again. -->

One YAML file. `driftwatch init` writes a first one, from a sample of events or a reference where there is one;
`driftwatch check -c FILE` validates it; `driftwatch schema` prints its JSON Schema for editors. An unknown key is an
error, and every error of the file is shown at once with its place.

- **Durations** are a number and a unit: `30s`, `5m`, `1h`, `7d`. **Sizes**: `500kB`, `8MiB`, `1GiB`.
- **Budgets**: `1 per 30d`, `2 per 28h`, `1 per 1000 windows`.
- **Paths of files** are relative to the configuration's own folder; `-` is standard input.
- **Paths in an event** are keys joined by dots: `customer.age`.
- **`${NAME}`** in a value is the environment variable NAME; one that is not set is an error. Inside `{…}` and `[…]`
  YAML wants such a value in quotes: `{port: "${PORT}"}`. A value from the environment is never read as YAML.
- **Secrets** are given by `*_file` keys, read when they are needed, or by `${NAME}`.
- Scalars are read as YAML 1.2 reads them: `on`, `no` and `2024-01-01` are text.

```yaml
"""


def page() -> str:
    """The page's text; the same for the same schema."""
    schema = json_schema()
    lines = [_INTRODUCTION + starting_config(None) + "```", "", "## Top level", "", *_table(schema, schema)]
    for name, section in schema["properties"].items():
        lines += _section(name, section, schema, depth=2)
    return "\n".join(lines) + "\n"


def _section(place: str, section: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Iterator[str]:
    """The tables of a section, of each kind of it, and of the sections inside."""
    for kind, model in _models(section, root):
        yield from ("", f"{'#' * depth} `{place}`{kind}", "", model["description"], "", *_table(model, root))
        for name, below in model["properties"].items():
            yield from _section(f"{place}.{name}", below, root, depth + 1)


def _models(section: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "$ref" in section:
        yield "", root["$defs"][section["$ref"].rsplit("/", 1)[1]]
    for kind, reference in section.get("discriminator", {}).get("mapping", {}).items():
        yield f" (`kind: {kind}`)", root["$defs"][reference.rsplit("/", 1)[1]]
    for branch in (*section.get("anyOf", ()), section.get("items"), section.get("additionalProperties")):
        if branch:
            yield from _models(branch, root)


def _table(model: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| key | value | default | |", "|---|---|---|---|")
    for name, key in model["properties"].items():
        default = "required" if name in model.get("required", ()) else _default(key, root)
        about = key if "description" in key else next(section for _, section in _models(key, root))
        cells = (f"`{name}`", _type(key), default, about["description"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(key: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    value = key.get("default")
    if value is None or (any(True for _ in _models(key, root)) and isinstance(value, dict) and value):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _type(key: Mapping[str, Any]) -> str:
    """What may be written, in a few words."""
    branches = [b for b in key.get("anyOf", ()) if b.get("type") != "null"]
    if branches:
        return " or ".join(dict.fromkeys(_type(branch) for branch in branches))
    if "const" in key:
        return f"`{key['const']}`"
    if "enum" in key:
        return ", ".join(f"`{value}`" for value in key["enum"])
    if "$ref" in key or "discriminator" in key:
        return "section"
    if key["type"] == "array":
        return f"list of {_type(key['items'])}"
    if key["type"] == "object":
        return f"name: {_type(key['additionalProperties'])}"
    if key["type"] == "string":
        return _TEXTS.get(key.get("pattern", ""), "path" if key.get("format") == "path" else "text")
    bounds = [f"{sign} {key[name]:g}" for name, sign in _BOUNDS.items() if name in key]
    return " ".join([{"integer": "whole number", "number": "number", "boolean": "true, false"}[key["type"]], *bounds])


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
_TEXTS = {
    units.DURATION_PATTERN: "duration",
    units.BYTES_PATTERN: "size",
    units.BUDGET_PATTERN: "budget",
    units.PERSISTENCE_PATTERN: "k of n",
}

if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
