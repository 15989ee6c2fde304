"""The configuration: what loads, and what it then means."""

import copy
from pathlib import Path

import pytest
import yaml
from config_examples import FULL, SMALL, changed, problems, written

from driftwatch.config import Config, load
from driftwatch.errors import ConfigError
from driftwatch.records import Column
from driftwatch.units import (
    Budget,
    Persistence,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def test_the_example_of_the_interface_loads_and_means_what_it_says(file: Path) -> None:
    config = load(written(file, FULL))
    assert config.source is not None
    assert config.source.kind == "kafka"
    assert config.source.topics.labels == ("labels",)
    assert config.labels is not None
    assert config.labels.kind == "http"
    assert config.labels.spool.max_bytes == 2**30
    assert config.window.slide == 60
    assert config.alarms.budget == Budget(2, per_seconds=28 * 3600.0)
    assert config.alarms.persistence == Persistence(2, 3)
    assert config.alarms.effect == {"ks": 0.02}
    assert config.detectors.mmd.rows == 500
    assert [sink.kind for sink in config.sinks] == ["prometheus", "log", "webhook"]
    assert config.performance.business["revenue"].measure == "sum"


def test_what_is_left_out_has_the_documented_default(file: Path) -> None:
    config = load(written(file, SMALL))
    assert (config.window.slide, config.window.lateness, config.window.min_records) == (300, 30, 200)
    assert config.alarms.budget.rate_per_window(300) == pytest.approx(300 / (30 * 86400))
    assert (config.alarms.persistence, config.alarms.cooldown) == (Persistence(1, 1), 0)
    assert config.alarms.effect == {
        **dict.fromkeys(("missing", "invalid", "unseen", "chi_square"), 0.005),
        **{"ks": 0.02, "location": 0.05, "mmd": 0.02, "correlation": 0.05, "glr": 0.05},
    }
    assert [sink.kind for sink in config.sinks] == ["log"]
    assert config.state.path == Path("/var/lib/driftwatch/state.db")
    assert config.state.keep == 30 * 86400
    assert config.dedupe_size == 10_000
    assert config.detectors.mmd.rows == 1000
    assert config.reference is None


def test_beside_count_lateness_is_that_of_labels(file: Path) -> None:
    text = SMALL.replace("region: categorical}", "region: categorical}\n  label: {kind: binary}")
    text = text.replace("length: 5m", "count: 1000, lateness: 1s")
    assert load(written(file, text)).window.lateness == 1


def test_columns_come_in_the_files_order_then_the_prediction_then_fields(file: Path) -> None:
    schema = load(written(file, FULL)).event_schema()
    assert schema.columns == (
        Column("age", "numeric", ("features", "age")),
        Column("income", "numeric", ("customer", "income")),
        Column("region", "categorical", ("features", "region")),
        Column("text.v", "embedding", ("embedding",)),
        Column("score", "numeric", ("prediction",), group="prediction"),
        Column("amount", "numeric", ("amount",), group="fields"),
        Column("latency_s", "numeric", ("latency",), group="fields"),
    )
    assert (schema.model, schema.version, schema.time_unit) == ("credit", "3", "ms")
    assert (schema.id_path, schema.time_path) == (("id",), ("time",))


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("numeric", "numeric"),
        ("probability", "numeric"),
        ("binary", "categorical"),
        ("categorical", "categorical"),
    ],
)
def test_a_prediction_becomes_a_column_of_its_kind(file: Path, kind: str, column: str) -> None:
    config = load(written(file, changed("events/prediction", {"kind": kind, "path": "out.score"})))
    assert next(c for c in config.event_schema().columns if c.group == "prediction") == Column(
        "prediction", column, ("out", "score"), group="prediction"
    )


def test_words_that_yaml_1_1_takes_for_booleans_and_dates_are_text(file: Path) -> None:
    text = SMALL.replace("age: numeric", "on: numeric, no: numeric, 1: numeric, null: numeric")
    config = load(written(file, text.replace('"3"', "2024-01-01")))
    assert list(config.events.features) == ["on", "no", "1", "null", "region"]
    assert config.model.version == "2024-01-01"


def test_a_number_may_be_written_as_json_writes_it(file: Path) -> None:
    config = load(written(file, SMALL + "alarms: {effect: {ks: 1e-3, psi: .5, mmd: 1}}"))
    assert config.alarms.effect == {"ks": 0.001, "psi": 0.5, "mmd": 1}


def test_an_anchored_value_may_stand_in_several_places(file: Path) -> None:
    text = SMALL.replace("age: numeric", "age: &n {kind: categorical}, income: *n")
    assert load(written(file, text)).events.features["income"].kind == "categorical"


def test_a_value_that_contains_itself_is_an_error_and_no_endless_loop(file: Path) -> None:
    assert problems(file, SMALL + "sinks: &s [*s]") == ["sinks[0]: must be a mapping of keys; got a list."]


def test_environment_variables_fill_values_of_any_type(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "cre: [dit] ${PORT} #")
    monkeypatch.setenv("PORT", "9200")
    monkeypatch.setenv("QUIET", "false")
    text = SMALL.replace("name: credit", 'name: "a-${NAME}"') + "sinks:\n- kind: prometheus\n  port: ${PORT}\n"
    config = load(written(file, text + "alarms:\n  notify: ${QUIET}\n"))
    assert config.model.name == "a-cre: [dit] ${PORT} #"
    assert config.sinks[0].kind == "prometheus"
    assert config.sinks[0].port == 9200
    assert config.alarms.notify is False


def test_relative_paths_are_relative_to_the_configurations_folder(file: Path, tmp_path: Path) -> None:
    text = SMALL + "state: {path: s/state.db}\nreference: {path: /abs/r.csv}\n"
    text += "sinks: [{kind: webhook, url: 'https://x', secret_file: [a, /b]}, {kind: prometheus, token_file: ../t}]"
    config = load(written(file, text))
    assert config.source is not None
    assert config.source.kind == "file"
    assert config.source.path.predictions == tmp_path / "events.jsonl"
    assert config.state.path == tmp_path / "s/state.db"
    assert config.reference is not None
    assert config.reference.path == Path("/abs/r.csv")
    webhook, prometheus = config.sinks
    assert webhook.kind == "webhook"
    assert webhook.secret_file == (tmp_path / "a", Path("/b"))
    assert prometheus.kind == "prometheus"
    assert prometheus.token_file == tmp_path / "../t"


def test_standard_input_is_no_path(file: Path) -> None:
    config = load(written(file, changed("source/path", "-")))
    assert config.source is not None
    assert config.source.kind == "file"
    assert config.source.path.predictions == Path("-")


def test_secrets_are_read_when_needed_and_their_file_is_named_in_the_error(file: Path, tmp_path: Path) -> None:
    sinks = [
        {"kind": "webhook", "url": "https://x", "secret_file": ["one", "two"]},
        {"kind": "webhook", "url": "https://x", "secret": "hunter2"},
        {"kind": "prometheus", "token_file": "token"},
    ]
    config = load(written(file, changed("sinks", sinks)))
    by_file, inline, prometheus = config.sinks
    assert by_file.kind == "webhook"
    assert inline.kind == "webhook"
    assert prometheus.kind == "prometheus"
    with pytest.raises(ConfigError, match="one: the secret cannot be read: No such file or directory"):
        by_file.secrets()
    (tmp_path / "one").write_text("whsec_1\n")
    (tmp_path / "two").write_bytes(b"whsec_2 \r\n")
    (tmp_path / "token").write_text("\n")
    assert by_file.secrets() == ("whsec_1", "whsec_2 ")
    assert inline.secrets() == ("hunter2",)
    with pytest.raises(ConfigError, match="token: the secret must not be empty"):
        prometheus.token()
    (tmp_path / "token").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="token: the secret must be UTF-8 text; byte 0 is not"):
        prometheus.token()
    assert "hunter2" not in repr(config)


def test_client_settings_read_their_password_files(file: Path, tmp_path: Path) -> None:
    settings = {"sasl.password_file": "pw", "session.timeout.ms": 6000, "enable.x": True}
    source = {"kind": "kafka", "brokers": ["b:1"], "topics": ["t"], "settings": settings}
    config = load(written(file, changed("source", source)))
    (tmp_path / "pw").write_text("hunter2\n")
    assert config.source is not None
    assert config.source.kind == "kafka"
    assert config.source.client_settings(tmp_path) == {
        "sasl.password": "hunter2",
        "session.timeout.ms": 6000,
        "enable.x": True,
    }
    assert config.source.topics.predictions == ("t",)


def test_a_configuration_does_not_change(file: Path) -> None:
    config = load(written(file, SMALL))
    with pytest.raises(ValueError, match="frozen"):
        setattr(config.window, next(iter(type(config.window).model_fields)), 1.0)


def test_a_configuration_can_be_validated_from_data_without_a_file() -> None:
    data = copy.deepcopy(yaml.safe_load(SMALL))
    assert Config.model_validate(data).state.path == Path("/var/lib/driftwatch/state.db")
