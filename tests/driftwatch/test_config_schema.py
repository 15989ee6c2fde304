"""What the JSON Schema promises to editors, and the page that is written from it."""

import importlib.util
import json
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_examples import FULL, SMALL, WRONG, changed, typed

from driftwatch.config import json_schema

SCHEMA = json_schema()


def violations(value: object, schema: dict[str, Any], root: dict[str, Any], place: str = "$") -> Iterator[str]:
    """What a JSON value breaks of a schema, for the keywords that ours uses; any other keyword is a failure."""
    known = {"$ref", "$defs", "$schema", "title", "description", "default", "discriminator", "format"}
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": int | float}
    for keyword, rule in schema.items():
        if keyword == "$ref":
            yield from violations(value, root["$defs"][rule.rsplit("/", 1)[1]], root, place)
        elif keyword in ("anyOf", "oneOf"):
            fits = [branch for branch in rule if not list(violations(value, branch, root, place))]
            if not fits or (keyword == "oneOf" and len(fits) > 1):
                yield f"{place}: {keyword}"
        elif keyword == "type":
            is_bool = isinstance(value, bool) and rule != "boolean"
            if not (value is None if rule == "null" else isinstance(value, types[rule]) and not is_bool):
                yield f"{place}: type {rule}"
        elif keyword in ("enum", "const"):
            if value not in (rule if keyword == "enum" else [rule]):
                yield f"{place}: {keyword}"
        elif keyword == "pattern":
            if isinstance(value, str) and not re.search(rule, value):
                yield f"{place}: pattern"
        elif keyword in ("minimum", "maximum", "exclusiveMinimum"):
            breaks = {"minimum": operator.lt, "maximum": operator.gt, "exclusiveMinimum": operator.le}[keyword]
            if isinstance(value, int | float) and breaks(value, rule):
                yield f"{place}: {keyword}"
        elif keyword in ("minLength", "minItems"):
            if isinstance(value, str if keyword == "minLength" else list) and len(value) < rule:
                yield f"{place}: {keyword}"
        elif keyword == "items":
            for index, item in enumerate(value if isinstance(value, list) else ()):
                yield from violations(item, rule, root, f"{place}[{index}]")
        elif keyword == "propertyNames":
            for name in value if isinstance(value, dict) else ():
                yield from violations(name, rule, root, f"{place}.{name}")
        elif keyword == "required":
            yield from (f"{place}: lacks {name}" for name in rule if isinstance(value, dict) and name not in value)
        elif keyword in ("properties", "additionalProperties"):
            properties = schema.get("properties", {})
            for name, below in value.items() if isinstance(value, dict) else ():
                if keyword == "properties" and name in properties:
                    yield from violations(below, properties[name], root, f"{place}.{name}")
                elif keyword == "additionalProperties" and name not in properties:
                    if rule is False:
                        yield f"{place}: has {name}"
                    elif isinstance(rule, dict):
                        yield from violations(below, rule, root, f"{place}.{name}")
        else:
            assert keyword in known, keyword


@pytest.mark.parametrize("text", [SMALL, FULL])
def test_the_schema_accepts_what_loads(text: str) -> None:
    assert list(violations(typed(text), SCHEMA, SCHEMA)) == []


# What the schema cannot say: it knows no sums of values, no types of text, and is stricter about text for numbers.
_BEYOND_THE_SCHEMA = re.compile(
    r"must differ|must stand|must divide|exactly one|must be left out|fewer alarms|at least 1 alarm|must be json"
    r"|must be longer|must be at most 36500d|must name a|must have another|at least `min_records`|Add it to"
    r"|joined by dots|path of its own|with 1 ≤ k"
)


@pytest.mark.parametrize(
    ("place", "value", "expected"), [w for w in WRONG if not _BEYOND_THE_SCHEMA.search(w[2])], ids=lambda v: str(v)[:40]
)
def test_the_schema_refuses_what_does_not_load(place: str, value: object, expected: str) -> None:
    assert list(violations(json.loads(changed(place, value)), SCHEMA, SCHEMA)), expected


def test_every_key_and_section_is_described_and_its_default_is_valid() -> None:
    for model in (SCHEMA, *SCHEMA["$defs"].values()):
        for name, key in model.get("properties", {}).items():
            about = SCHEMA["$defs"][key["$ref"].rsplit("/", 1)[1]] if "$ref" in key else key
            assert about["description"].endswith("."), (model["title"], name)
            if "default" in key:
                assert list(violations(key["default"], key, SCHEMA)) == [], name


def test_the_documentation_page_is_fresh() -> None:
    script = Path(__file__).parents[2] / "docs" / "generate_configuration.py"
    spec = importlib.util.spec_from_file_location("generate_configuration", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text("utf-8") == module.page(), "run: python docs/generate_configuration.py"
