"""Configurations that load, and changes to them that do not, with the words in which they are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftwatch.config import load
from driftwatch.errors import ConfigError

SMALL = """\
model: {name: credit, version: "3"}
source: {kind: file, path: events.jsonl}
events:
  features: {age: numeric, region: categorical}
window: {length: 5m}
"""

FULL = """\
model: {name: credit, version: "3"}
source: {kind: kafka, brokers: ["localhost:9092"], topics: {predictions: [predictions], features: [features],
  labels: [labels]}, group: driftwatch-credit, client: kafka-python, settings: {security.protocol: SASL_SSL}}
labels: {kind: http, port: 8080, tokens_file: tokens, spool: {max_bytes: 1GiB}, full: shed, durable: fsync}
events:
  decode: json
  id: id
  time: time
  time_unit: ms
  features: {age: numeric, income: {kind: numeric, path: customer.income}, region: categorical, text.v: embedding}
  prediction: {name: score, kind: probability}
  label: {name: defaulted, kind: binary, wait: 7d, complete: 0.95, max_pending: 2000000}
  fields: {amount: amount, latency_s: latency}
  dedupe: 10000
reference: {path: reference.parquet}
window: {length: 5m, slide: 1m, lateness: 30s, min_records: 200}
alarms: {budget: 2 per 28h, for: 2 of 3, cooldown: 0s, replicas: 2, notify: true, effect: {ks: .02}}
detectors: {mmd: {rows: 500}}
sinks: [{kind: prometheus, port: 9108, token_file: token}, {kind: log},
  {kind: webhook, url: "https://example.com/hook", secret_file: /etc/driftwatch/secret, on: ["*.opened"],
   allow_private: [10.0.0.0/8]}]
state: {path: /var/lib/driftwatch/state.db, keep: 30d}
performance:
  positive: 1
  business: {revenue: {field: amount, is: sum}, conversion: {field: label, is: rate}}
  system: {latency: {field: latency_s, is: quantiles}}
"""


def written(file: Path, text: str) -> Path:
    file.write_text(text, "utf-8")
    return file


def problems(file: Path, text: str) -> list[str]:
    """The lines of the error that the text raises, without the file's name."""
    with pytest.raises(ConfigError) as raised:
        load(written(file, text))
    lines = str(raised.value).splitlines()
    assert all(line.startswith(f"{file}:") for line in lines)
    return [line.removeprefix(f"{file}:").removeprefix(" ") for line in lines]


def typed(text: str) -> dict[str, Any]:
    """The text as JSON values; `on` stays a key."""
    data = yaml.safe_load(text)
    for sink in data.get("sinks", ()):
        if True in sink:
            sink["on"] = sink.pop(True)
    return data


def changed(place: str, value: object) -> str:
    """SMALL with one value changed, or taken out (...), in JSON, which is YAML as well."""
    data = yaml.safe_load(SMALL)
    *above, last = place.split("/")
    section = data
    for key in above:
        section = section.setdefault(key, {})
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return json.dumps(data)


WRONG = [
    ("model/name", ..., "model.name: must be given: name of the model; events that name another model are dropped."),
    ("model/version", 3, 'model.version: must be text; got 3. Write it in quotes: "3".'),
    ("model/name", "", "model.name: must not be empty; got ''."),
    ("model", [1], "model: must be a mapping of keys; got a list."),
    ("window", ..., "window: must be given: the stretch of a stream that is judged as one: `length` of event time, "
     "or `count` events."),
    ("windw", {}, "windw: must be one of the keys model, source, labels, events, reference, window, alarms, detectors, "
     "sinks, state, performance; got 'windw'. Did you mean `window`?"),
    ("source/kind", "kafak", "source.kind: must be one of file, http, kafka; got 'kafak'. Did you mean `kafka`?"),
    ("source", {"path": "x"}, "source.kind: must be one of file, http, kafka; got nothing."),
    ("source/folow", True, "source.folow: must be one of the keys kind, path, follow; got 'folow'. "
     "Did you mean `follow`?"),
    ("source/path", 3, "source.path: must be a path; got 3."),
    ("source/path", {"labels": "x"}, "source.path.predictions: must be given: file of prediction events, or - for "
     "standard input."),
    ("source", {"kind": "kafka", "brokers": [], "topics": ["t"]}, "source.brokers: must not be empty; "
     "got an empty list."),
    ("source", {"kind": "kafka", "brokers": "b:1", "topics": ["t"]}, "source.brokers: must be a list; got 'b:1'."),
    ("source", {"kind": "kafka", "brokers": ["b:1"], "topics": []}, "source.topics: must name a topic; got none."),
    ("source", {"kind": "kafka", "brokers": ["b:1"], "topics": ["a", 3]},
     'source.topics[1]: must be text; got 3. Write it in quotes: "3".'),
    ("source", {"kind": "kafka", "brokers": ["b:1"], "topics": ["t"], "settings": {"a.b": [1]}},
     "source.settings.a.b: must be text, a number, true or false."),
    ("source", {"kind": "http", "port": 70000}, "source.port: must be at most 65535; got 70000."),
    ("source", {"kind": "http", "port": 80, "max_body": "8 megs"}, "source.max_body: must be a size above 0 such as "
     "500kB, 8MiB or 1GiB; got '8 megs'."),
    ("source", {"kind": "file", "path": {"predictions": "a/x.jsonl", "labels": "b/x.jsonl"}, "follow": True},
     "source.path.labels: must have another name than predictions beside `follow`; got x.jsonl twice. Rename one."),
    ("labels", {"kind": "http", "port": 80}, "labels: must stand beside `events.label`, which says what a label is; "
     "got it alone."),
    ("labels", {"kind": "kafka", "brokers": ["b:1"], "topics": {"predictions": ["p"]}},
     "labels.topics: must be a list; got a mapping."),
    ("events/features/age", "number", "events.features.age: must be one of numeric, categorical, embedding; "
     "got 'number'. Did you mean `numeric`?"),
    ("events/features/age", "text", "events.features.age: must be one of numeric, categorical, embedding; got 'text'. "
     "Text is not yet supported."),
    ("events/features/age", {"kind": "text"}, "events.features.age.kind: must be one of numeric, categorical, "
     "embedding; got 'text'. Text is not yet supported."),
    ("events/features/age", {"kind": "numeric", "pth": "a"}, "events.features.age.pth: must be one of the keys kind, "
     "path; got 'pth'. Did you mean `path`?"),
    ("events/features/age", {"kind": "numeric", "path": "a..b"}, "events.features.age.path: must be keys joined by "
     "dots, such as customer.age; got 'a..b'."),
    ("events/features/age", None, "events.features.age: must be a kind, such as numeric, or a mapping with `kind` and "
     "`path`."),
    ("events/features/*", "numeric", "events.features.*: must have another name; got '*'. In decisions `*` stands for "
     "all features together."),
    ("events/features", {}, "events.features: must name a feature, unless there is a `prediction`; got neither."),
    ("events/features/b", {"kind": "numeric", "path": "features.age"}, "events.features.b: must lie at a path of its "
     "own; got features.age, where 'age' lies. Give a `path`."),
    ("events/features/b", {"kind": "numeric", "path": "features.age.x"}, "events.features.b: must lie at a path of its "
     "own; got features.age.x, where 'age' lies. Give a `path`."),
    ("events/prediction", {"kind": "numeric", "path": "features.age"}, "events.prediction: must lie at a path of its "
     "own; got features.age, where 'age' lies. Give a `path`."),
    ("events/decode", "xml", "events.decode: must be one of json, cloudevents, open-inference; got 'xml'."),
    ("events/prediction", {"name": "age", "kind": "numeric"}, "events.prediction.name: must differ from every "
     "feature's name; got 'age'. Choose another name."),
    ("events/label", {"name": "age", "kind": "binary"}, "events.label.name: must differ from every feature's name; "
     "got 'age'. Choose another name."),
    ("events/label", {"kind": "binary", "complete": 0}, "events.label.complete: must be greater than 0; got 0."),
    ("events/label", {"kind": "probability"}, "events.label.kind: must be one of numeric, binary, categorical; "
     "got 'probability'."),
    ("events/dedupe", "many", "events.dedupe: must be a whole number; got 'many'."),
    ("events/dedupe", 1.5, "events.dedupe: must be a whole number; got 1.5."),
    ("reference", {}, "reference: must have exactly one of the keys path, profile, learn; got none."),
    ("reference", {"path": "a", "profile": "b"}, "reference: must have exactly one of the keys path, profile, learn; "
     "got path and profile."),
    ("reference", {"path": "a", "save": "b"}, "reference.save: must stand beside `learn`; got it alone. Leave it out."),
    ("reference", {"learn": "0s"}, "reference.learn: must be longer than 0s; got '0s'."),
    ("window", {}, "window: must have exactly one of the keys length, count; got none."),
    ("window/count", 1000, "window: must have exactly one of the keys length, count; got both."),
    ("window/length", 300, "window.length: must be a duration such as 30s, 5m, 1h or 7d; got 300. "
     "Did you mean `300s`?"),
    ("window/length", "0s", "window.length: must be longer than 0s; got '0s'."),
    ("window/length", "5 minutes", "window.length: must be a duration such as 30s, 5m, 1h or 7d; got '5 minutes'."),
    ("window/length", "40000d", "window.length: must be at most 36500d; got '40000d'."),
    ("window/slide", "2m", "window.slide: must divide `length` into 1 to 1000 equal parts; got 2m with 5m."),
    ("window/slide", "10m", "window.slide: must divide `length` into 1 to 1000 equal parts; got 10m with 5m."),
    ("window/slide", "0.1s", "window.slide: must divide `length` into 1 to 1000 equal parts; got 0.1s with 5m."),
    ("window", {"count": 1000, "slide": "1s"}, "window.slide: must be left out beside `count`: such a window "
     "has no clock."),
    ("window", {"count": 1000, "lateness": "1s"}, "window.lateness: must be left out beside `count`: such a window "
     "has no clock."),
    ("window", {"count": 100}, "window.count: must be at least `min_records`, or no window is ever judged; got 100 "
     "with 200. Raise it, or lower `min_records`."),
    ("window/min_records", 0, "window.min_records: must be at least 1; got 0."),
    ("alarms/budget", "1 in 30d", "alarms.budget: must be `N per DURATION` or `N per M windows`, such as 1 per 30d or "
     "1 per 1000 windows; got '1 in 30d'."),
    ("alarms/budget", "0 per 30d", "alarms.budget: must allow at least 1 alarm; got '0 per 30d'. Choose a longer "
     "period, such as 1 per 3650d."),
    ("alarms/budget", "9 per 9 windows", "alarms.budget: must allow fewer alarms than windows; got '9 per 9 windows'."),
    ("alarms/budget", "12 per 1h", "alarms.budget: must allow fewer alarms than windows; got '12 per 1h' with one "
     "every 5m."),
    ("alarms/for", "3 of 2", "alarms.for: must be `k of n` with 1 ≤ k ≤ n ≤ 100, such as 2 of 3; got '3 of 2'."),
    ("alarms/replicas", 0, "alarms.replicas: must be at least 1; got 0."),
    ("alarms/notify", "maybe", "alarms.notify: must be true or false; got 'maybe'."),
    ("alarms/effect", {"kss": 1}, "alarms.effect.kss: must be one of the keys ks, chi_square, psi, wasserstein, "
     "location, scale, largest_cell, missing, invalid, unseen, mmd, correlation, glr; got 'kss'. Did you mean `ks`?"),
    ("alarms/effect", {"ks": -1}, "alarms.effect.ks: must be at least 0; got -1."),
    ("alarms/effect", {"ks": ".inf"}, "alarms.effect.ks: must be a number; got '.inf'."),
    ("alarms/effect", {"ks": "inf"}, "alarms.effect.ks: must be a finite number; got 'inf'."),
    ("detectors/mmd", {"rows": -1}, "detectors.mmd.rows: must be at least 0; got -1."),
    ("sinks", [["log"]], "sinks[0]: must be a mapping of keys; got a list."),
    ("sinks", [{"kind": "log"}, {"kind": "log", "to": "x"}], "sinks[1].to: must be one of the keys kind; got 'to'."),
    ("sinks", [{"kind": "prometheus"}, {"kind": "prometheus"}], "sinks[1].port: must differ from every source's port "
     "and every other sink's; got 9108."),
    ("state/path", None, "state.path: must be a path; got nothing."),
    ("performance", {"system": {"l": {"field": "x", "is": "quantiles"}}}, "performance.system.l.field: must be one of "
     "the names in events.fields; got 'x'. Add it to events.fields."),
    ("performance", {"positive": []}, "performance.positive: must be text, a number, true or false."),
]  # fmt: skip


WRONG_WEBHOOKS = [
    ({"url": "ftp://x"}, "url: must be an address such as https://host/path; got 'ftp://x'."),
    ({"url": "https://"}, "url: must be an address such as https://host/path; got 'https://'."),
    ({"url": "https://x:port/"}, "url: must be an address such as https://host/path; got 'https://x:port/'."),
    ({"url": "http://x/"}, "url: must begin with https:; got 'http://x/'. Set `allow_http: true` where the network is "
     "trusted."),
    ({"url": "https://u:hunter2@x/"}, "url: must not hold a user or a password. The signature says who sends."),
    ({"on": ["*.open"]}, "on[0]: must match a type such as drift.opened or *.resolved; got '*.open', which matches "
     "none."),
    ({"allow_private": ["10.0.0.1/8"]}, "allow_private[0]: must be a network such as 10.0.0.0/8; got '10.0.0.1/8': "
     "10.0.0.1/8 has host bits set."),
    ({"timeout": "0s"}, "timeout: must be longer than 0s; got '0s'."),
    ({"secret": ["hunter2", 7]}, "secret[1]: must be text."),
    ({"secret_file": "f"}, ": must have exactly one of the keys secret, secret_file; got both."),
    ({"secret": []}, ": must have exactly one of the keys secret, secret_file; got none."),
    ({"secrt": "hunter2"}, "secrt: must be one of the keys kind, url, secret, secret_file, on, max_age, timeout, "
     "allow_http, allow_private; got 'secrt'. Did you mean `secret`?"),
]  # fmt: skip
