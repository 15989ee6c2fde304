"""What pydantic found wrong with a configuration, in the house's words and with the user's own places."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from driftwatch.config_yaml import Place, Problem

JsonSchema = Mapping[str, Any]

_CONSTRAINTS = {
    "string_type": "must be text",
    "string_unicode": "must be text of whole characters, without \\ud800 and its like",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "model_attributes_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "must be one of {expected_tags}",
}
_SECRET = ("secret", "settings")  # below these, and below unknown keys, no value is shown


class Contradiction(ValueError):
    """Values that are fine alone and cannot stand together; each problem has its place below the validated section."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(text for _, text in problems))
        self.problems = problems


def problems(error: ValidationError, data: object, schema: JsonSchema) -> Iterator[Problem]:
    """Every problem of `error`, at the places of the user's `data`; `schema` says which keys there are."""
    for detail in error.errors(include_url=False):
        section, place, is_key = _located(detail["loc"], data, schema)
        context = detail.get("ctx", {})
        cause = context.get("error")
        if detail["type"] == "default_factory_not_called":
            continue  # the value that the default is made from is wrong itself, and named
        if isinstance(cause, Contradiction):
            yield from ((place + below, text) for below, text in cause.problems)
        elif cause is not None:
            yield place, str(cause)
        elif detail["type"] == "missing":
            yield place, f"must be given: {_described(section, schema)}"
        elif detail["type"] == "extra_forbidden" or is_key:
            yield place, _unknown_key(str(place[-1]), _keys(section, schema))
        else:
            if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
                place = (*place, "kind")
                context = {**context, "expected_tags": ", ".join(_kinds(section, schema))}
            yield place, _constraint(detail["type"], detail["msg"], context, None if _is_secret(place) else detail)


def _is_secret(place: Place) -> bool:
    return any(part in _SECRET for part in place)


def _constraint(kind: str, message: str, context: Mapping[str, Any], detail: Mapping[str, Any] | None) -> str:
    names = {
        key: f"{value:g}" if isinstance(value, float) else str(value).replace("'", "").replace(" or ", ", ")
        for key, value in context.items()
    }
    constraint = _CONSTRAINTS.get(kind, message).format(**names)
    if detail is None:
        return f"{constraint}."
    value = context.get("tag") if kind in ("union_tag_invalid", "union_tag_not_found") else detail["input"]
    hint = ""
    if kind == "string_type" and isinstance(value, int | float):
        hint = f' Write it in quotes: "{str(value).lower() if isinstance(value, bool) else value}".'
    elif isinstance(value, str) and kind in ("literal_error", "union_tag_invalid"):
        hint = _nearest(value, next(iter(names[k] for k in ("expected", "expected_tags") if k in names)).split(", "))
    return f"{constraint}; got {_shown(value)}.{hint}"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list" if value else "an empty list"
    return repr(value)


def _unknown_key(name: str, keys: Sequence[str]) -> str:
    return f"must be one of the keys {', '.join(keys)}; got {name!r}.{_nearest(name, keys)}"


def _nearest(word: str, words: Sequence[str]) -> str:
    import difflib  # only a mistake pays for it

    return "".join(f" Did you mean `{near}`?" for near in difflib.get_close_matches(word, words, n=1))


def _described(section: JsonSchema, root: JsonSchema) -> str:
    text: str = next(_branches(section, root))["description"]
    return text[0].lower() + text[1:]


def _located(loc: Place, data: object, schema: JsonSchema) -> tuple[JsonSchema, Place, bool]:
    """The part of the schema that `loc` speaks of, its place in the user's data, and whether a key is meant.

    pydantic's `loc` also names the branch of a union, and keys that stand in a short form's place (`age: numeric` for
    `age: {kind: numeric}`): the user wrote neither.
    """
    section = above = schema
    place: Place = ()
    for part in loc:
        if part == "[key]":
            return above, place, True
        above = section
        section, was_branch = _step(section, part, schema)
        if was_branch:
            continue
        if isinstance(data, Mapping) and isinstance(part, str):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part]
        else:
            continue
        place = (*place, part)
    return section, place, False


def _branches(section: JsonSchema, root: JsonSchema) -> Iterator[JsonSchema]:
    if "$ref" in section:
        section = {**root["$defs"][section["$ref"].rsplit("/", 1)[1]], **section}
    yield section
    for branch in section.get("anyOf", ()):
        yield from _branches(branch, root)


def _step(section: JsonSchema, part: str | int, root: JsonSchema) -> tuple[JsonSchema, bool]:
    """One step down, and whether it only chose the branch of a union. Unknown keys stay where they are."""
    for branch in _branches(section, root):
        chosen = branch.get("discriminator", {}).get("mapping", {}).get(part)
        if chosen is not None:
            return {"$ref": chosen}, True
        below = branch.get("properties", {}).get(part) if isinstance(part, str) else branch.get("items")
        extra = branch.get("additionalProperties", False)
        if below is not None:
            return below, False
        if isinstance(part, str) and isinstance(extra, dict):
            return extra if extra else branch, False
    return section, False


def _kinds(section: JsonSchema, root: JsonSchema) -> list[str]:
    """The kinds of a union."""
    return next(list(b["discriminator"]["mapping"]) for b in _branches(section, root) if "discriminator" in b)


def _keys(section: JsonSchema, root: JsonSchema) -> list[str]:
    """The keys that a section may have."""
    for branch in _branches(section, root):
        if "properties" in branch:
            return list(branch["properties"])
        if "propertyNames" in branch:
            names = branch["propertyNames"]
            return list(next(_branches(names, root)).get("enum", ()))
    return []
