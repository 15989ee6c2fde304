"""What does not load, and in which words it is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_examples import FULL, SMALL, WRONG, WRONG_WEBHOOKS, changed, problems, typed, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftwatch.config import load
from driftwatch.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


@pytest.mark.parametrize(("place", "value", "expected"), WRONG, ids=[w[2][:60] for w in WRONG])
def test_an_error_says_where_and_what_and_what_to_do(file: Path, place: str, value: object, expected: str) -> None:
    assert problems(file, changed(place, value)) == [expected]


@pytest.mark.parametrize(("keys", "expected"), WRONG_WEBHOOKS, ids=[w[1][:60] for w in WRONG_WEBHOOKS])
def test_a_webhooks_error_never_shows_a_secret(file: Path, keys: dict[str, object], expected: str) -> None:
    sink = {"kind": "webhook", "url": "https://x/", "secret": "hunter2", **keys}
    (line,) = problems(file, changed("sinks", [sink]))
    assert line == f"sinks[0]{'' if expected.startswith(':') else '.'}{expected}"
    assert "hunter2" not in line


def test_every_problem_of_a_file_is_reported_at_once(file: Path) -> None:
    text = """\
modl: {}
model: {name: credit, version: 3}
source: {kind: file}
events: {features: {age: number, age: numeric, b: text}, dedupe: -1}
window: {length: "${UNSET_LENGTH}", slide: 1m}
sinks: [{kind: prometheus, port: x}, {kind: pager}]
"""
    places = [line.split(": ")[0] for line in problems(file, text)]
    assert places == [
        "events.features.age", "window.length", "model.version", "source.path", "events.features.b", "events.dedupe",
        "sinks[0].port", "sinks[1].kind", "modl",
    ]  # fmt: skip


def test_what_cannot_stand_together_is_reported_at_once(file: Path) -> None:
    data = yaml.safe_load(SMALL)
    data["alarms"] = {"budget": "12 per 1h"}
    data["source"] = {"kind": "http", "port": 9108}
    data["sinks"] = [{"kind": "prometheus"}]
    data["performance"] = {"business": {"r": {"field": "x", "is": "sum"}}}
    places = [line.split(": ")[0] for line in problems(file, json.dumps(data))]
    assert places == ["alarms.budget", "sinks[0].port", "performance.business.r.field"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must be a mapping of keys; got nothing."),
        ("- a", "must be a mapping of keys; got a list."),
        ("a: [1", "1:6: must be YAML: expected ',' or ']', but got '<stream end>'."),
        ("a: {b: ${C}}", "1:9: must be YAML: expected ',' or '}', but got '{'. "
         "Write a value that holds `${…}` in quotes."),
        ("a: 1\n--- \nb: 2", "2:1: must be YAML: but found another document."),
        ("a: *b", "1:4: must be YAML: found undefined alias 'b'."),
        ("a: \x00", "must be YAML: unacceptable character #x0000: special characters are not allowed in"),
        ("a: " + "[" * 500, "must be nested less deeply."),
    ],
)  # fmt: skip
def test_text_that_is_no_yaml_mapping_is_named_with_its_line(file: Path, text: str, expected: str) -> None:
    assert problems(file, text)[0].startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {name: a, name: b, version: '1'}", "model.name: must be given once; got it again on line 6."),
        ("model: {name: !!int x, version: '1'}", "model.name: must be plain YAML; got the tag "
         "'tag:yaml.org,2002:int'. Leave the tag out; write text in quotes."),
        ("model: !!omap {name: a, version: '1'}", "model: must be plain YAML; got the tag 'tag:yaml.org,2002:omap'. "
         "Leave the tag out."),
        ("model: {name: a, version: '1', ? [x] : 1}", "model: must have plain names as keys; got a list or a mapping "
         "as a key."),
    ],
)  # fmt: skip
def test_yaml_that_other_readers_would_read_otherwise_is_refused(file: Path, text: str, expected: str) -> None:
    assert problems(file, SMALL.split("\n", 1)[1] + "\n" + text) == [expected]


def test_an_unset_or_malformed_environment_variable_is_named_with_its_place(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    assert problems(file, changed("model/name", "${NOT_SET}")) == [
        "model.name: must find the environment variable NOT_SET; it is not set. Set it, or write the value here."
    ]
    assert problems(file, changed("model/name", "${A:-b}")) == [
        "model.name: must name an environment variable in `${…}`; got `${A:-b}`."
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory\. Give the path"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml: must be UTF-8 text; byte 3 is not\."):
        load(tmp_path / "latin.yaml")
    assert ConfigError.exit_code == 2


KEYS = st.sampled_from(["kind", "path", "port", "length", "on", "secret", "name"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["kafka", "5m", "-"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4) | KEYS, below, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0), VALUES)
def test_any_value_anywhere_loads_or_is_refused_in_our_words(file: Path, where: int, value: object) -> None:
    data = typed(FULL)
    replace(data, where, value)
    assert_loads_or_is_refused(written(file, json.dumps(data)))


def replace(data: dict[str, Any], where: int, value: object) -> None:
    """Puts the value in the place of one of the data's."""
    places: list[tuple[Any, str | int]] = []

    def collect(section: Any) -> None:
        for key in section if isinstance(section, dict) else range(len(section)):
            places.append((section, key))
            if isinstance(section[key], dict | list):
                collect(section[key])

    collect(data)
    section, key = places[where % len(places)]
    section[key] = value


def assert_loads_or_is_refused(file: Path) -> None:
    try:
        load(file)
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        return
    assert all(line.startswith(f"{file}:") for line in lines), lines
    assert all(" must " in line for line in lines), lines


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(FULL)), st.sampled_from("{}[]:,&*!'\"#|>%@\t\n -${}?~\0é")), max_size=4))
def test_any_typing_error_is_a_config_error_that_names_the_file(file: Path, slips: list[tuple[int, str]]) -> None:
    text = FULL
    for position, character in slips:
        text = text[:position] + character + text[position + 1 :]
    assert_loads_or_is_refused(written(file, text))


def test_an_embedding_cannot_be_learned_for_its_length_comes_from_a_reference(file: Path) -> None:
    text = FULL.replace("reference: {path: reference.parquet}", "reference: {learn: 24h}")
    assert problems(file, text) == [
        "reference.learn: must be left out where 'text.v' is an embedding: its length comes from a reference. "
        "Give `path` or `profile`."
    ]
