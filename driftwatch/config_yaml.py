"""The text of a configuration as plain data: YAML 1.2 scalars, `${ENV}`, and problems with their place."""

import os
import re
from collections.abc import Iterator

import yaml

Place = tuple[str | int, ...]
Problem = tuple[Place, str]
"""Where in the configuration something is wrong, and what."""


class _Loader(yaml.SafeLoader):
    """Leaves every scalar as text, so that `_scalar_prepared` can read it as YAML 1.2 does."""


_Loader.yaml_implicit_resolvers = {}

_PLAIN_SCALARS = (  # PyYAML's own are YAML 1.1, where `on:` is the key true and 2024-01-01 a date
    ("tag:yaml.org,2002:null", re.compile(r"(null|~|)")),
    ("tag:yaml.org,2002:bool", re.compile(r"(true|false)")),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)")),
    ("tag:yaml.org,2002:float", re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")),
)
_TEXT = "tag:yaml.org,2002:str"
_MAPPING = "tag:yaml.org,2002:map"
_LIST = "tag:yaml.org,2002:seq"


def parse(text: str) -> tuple[object, list[Problem]]:
    """The data of one YAML document, and what is wrong with it. Raises yaml.YAMLError and RecursionError."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, []
        problems = list(_prepared(node, (), set()))
        return loader.construct_document(node), problems
    finally:
        loader.dispose()


def _prepared(node: yaml.Node, place: Place, seen: set[int]) -> Iterator[Problem]:
    """Fills `${ENV}` in, makes keys text and takes out what cannot be, in the nodes; each once, however often aliased.

    The rest can then still be validated, so that one run shows every problem.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield from _scalar_prepared(node, place)
        return
    plain_tag = _MAPPING if isinstance(node, yaml.MappingNode) else _LIST
    if node.tag != plain_tag:
        yield place, f"must be plain YAML; got the tag {node.tag!r}. Leave the tag out."
        node.tag = plain_tag
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _prepared(item, (*place, index), seen)
    if isinstance(node, yaml.MappingNode):
        values: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                yield place, "must have plain names as keys; got a list or a mapping as a key."
                continue
            key.tag = _TEXT
            if key.value in values:
                yield (*place, key.value), f"must be given once; got it again on line {key.start_mark.line + 1}."
            values[key.value] = (key, value)
            yield from _prepared(value, (*place, key.value), seen)
        node.value = list(values.values())


def _scalar_prepared(node: yaml.ScalarNode, place: Place) -> Iterator[Problem]:
    if node.tag != _TEXT:
        yield place, f"must be plain YAML; got the tag {node.tag!r}. Leave the tag out; write text in quotes."
    node.tag = _TEXT
    if node.style is None:
        node.tag = next((tag for tag, pattern in _PLAIN_SCALARS if pattern.fullmatch(node.value)), _TEXT)
    if node.tag != _TEXT:
        return
    for name in re.findall(r"\$\{([^}]*)\}", node.value):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield place, f"must name an environment variable in `${{…}}`; got `${{{name}}}`."
        elif name not in os.environ:
            yield place, f"must find the environment variable {name}; it is not set. Set it, or write the value here."
    # In one pass, so that a value which itself holds `${…}` stays as it is.
    node.value = re.sub(r"\$\{([^}]*)\}", lambda match: os.environ.get(match[1], ""), node.value)
