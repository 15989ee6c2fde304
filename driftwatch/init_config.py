"""The text of `driftwatch init`: a commented configuration, filled in from a sample where there is one.

What is guessed is guessed by stated rules, and the text says which: a reader corrects it faster than a blank page.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from driftwatch import sample as samples
from driftwatch.errors import ConfigError
from driftwatch.sample import Place, Values

DISTINCT_ROWS = 50  # with so many rows, text that never repeats is an identifier or prose, not a category

_ID = ("id", "event_id", "request_id", "prediction_id", "inference_id", "uuid")
_TIME = ("time", "timestamp", "ts", "event_time", "datetime", "@timestamp", "created_at", "date")
_PREDICTION = ("prediction", "score", "predicted", "y_pred", "probability", "proba")
_LABEL = ("label", "target", "y_true", "y", "ground_truth", "actual", "truth", "outcome")
_MODEL = ("model", "model_name")
_VERSION = ("version", "model_version")

_TEXT = """\
# driftwatch configuration. Every key: docs/configuration.md; editors take `driftwatch schema`.
# A relative path is relative to this file; "${{NAME}}" in a value is the environment variable NAME.

# Events that name another model are dropped; the version is that of events that do not name theirs.
model: {{name: {model}, version: {version}}}

# Where events come from: kind file (JSONL, CSV, Parquet, or "-" for standard input), kafka or http.
#   {{kind: kafka, brokers: ["localhost:9092"], topics: [predictions]}}
source: {{kind: file, path: {source}}}

events:
  # Dotted paths of the id, and of the time: RFC 3339 text, or a number of seconds (else `time_unit: ms`).
  {id}
  {time}
  # numeric, categorical, or embedding (a list of numbers). A feature lies at features.NAME, else at its `path`.
{rule}  {features}
  # The model's answer: numeric, probability, binary or categorical.
  {prediction}
  # The truth, where it becomes known later: numeric, binary or categorical.
  {label}

# What the stream is compared with: data of a time when all was well, one column a feature; or {{profile: FILE}}.
# Without it every window is undetermined.
{reference}

# What is judged as one: a stretch of event time, or {{count: 1000}}. Fewer than min_records events are undetermined.
window: {{length: 5m, min_records: 200}}

# False alarms that are acceptable, for the whole model. Thresholds follow from it; nobody sets a p-value.
alarms: {{budget: 1 per 30d, for: 1 of 1}}

# prometheus: metrics and probes; log: decisions on standard output; webhook: signed alarms.
#   {{kind: webhook, url: "https://example.com/hook", secret_file: /etc/driftwatch/secret}}
sinks:
  - {{kind: prometheus, port: 9108}}
  - {{kind: log}}

# What survives a restart; on a local or block volume.
state: {{path: /var/lib/driftwatch/state.db, keep: 30d}}
"""

_TEMPLATE = {
    "model": "my-model",
    "version": '"1"',
    "source": "events.jsonl",
    "id": "id: id",
    "time": "time: time",
    "rule": "",
    "features": """features:
    age: numeric
    region: categorical
    income: {kind: numeric, path: customer.income}""",
    "prediction": "prediction: {name: score, kind: probability}",
    "label": "# label: {name: defaulted, kind: binary, wait: 7d}",
    "reference": "reference: {path: reference.parquet}",
}

_RULE = f"""\
  # Guessed from the first {samples.ROWS} rows. Numbers are numeric, integers too: make one that is a code
  # categorical. Text, true and false are categorical, lists of numbers of one length embeddings; a mixture is what
  # most of it is. Text that never repeats is left out.
"""


@dataclass(frozen=True, slots=True)
class _Sample:
    """A sample, and the part that each of its places seems to play.

    `inside` is the place of the object that holds the features, () where they lie flat.
    """

    values: Values
    is_table: bool
    inside: Place

    def is_inside(self, place: Place) -> bool:
        return place[: len(self.inside)] == self.inside

    def find(self, names: Sequence[str]) -> Place | None:
        """The place outside the features whose last key is the earliest of `names`, the shallowest first."""
        found = [
            (names.index(place[-1].lower()), len(place), place)
            for place, values in self.values.items()
            if place[-1].lower() in names
            and values
            and self.can_name(place)
            and not (self.inside and self.is_inside(place))
        ]
        return min(found)[2] if found else None

    def can_name(self, place: Place) -> bool:
        """Whether a dotted path can name the place, and no row has a value in the middle of that path."""
        if not all(place) or "${" in ".".join(place) or self.is_blocked(place):
            return False
        return self.is_table or not any("." in key for key in place)

    def is_blocked(self, place: Place) -> bool:
        """Whether some row has a value where the place goes further down."""
        return any(self.values.get(place[:depth]) for depth in range(1, len(place)))


def starting_config(sample: Path | None) -> str:
    """The text of a configuration that loads as it is.

    `sample`: events (JSONL), or a reference (CSV, Parquet); None gives a template. Raises ConfigError where the sample
    cannot be read or holds nothing to watch.
    """
    if sample is None:
        return _TEXT.format_map(_TEMPLATE)
    values = samples.read(sample)
    inside = next((place[: place.index("features") + 1] for place in values if "features" in place[:-1]), ())
    seen = _Sample(values, samples.is_table(sample), inside)
    roles = {"id": seen.find(_ID), "time": seen.find(_TIME), "model": seen.find(_MODEL), "version": seen.find(_VERSION)}
    answers = {"prediction": seen.find(_PREDICTION), "label": seen.find(_LABEL)}
    kinds = {key: _answer_kind(key, values[place]) if place else None for key, place in answers.items()}
    taken = [*roles.values(), *(place for key, place in answers.items() if kinds[key])]
    features, left_out = _features(seen, [place for place in taken if place])
    if not features and kinds["prediction"] is None:
        got = ", ".join(".".join(place) for place in values) or "no row"
        raise ConfigError(f"{sample}: must hold a feature or a prediction; got {got}.")
    names = set(features)
    lines = {key: _answer_line(seen, key, place, kinds[key], names) for key, place in answers.items()}
    file = _quoted(str(sample.resolve()))
    block = [f"{_quoted(name)}: {written}" for name, written in features.items()]
    block += [f"# {_quoted(name)} is left out: {why}." for name, why in left_out]
    return _TEXT.format(
        model=_constant(seen, roles["model"], "my-model"),
        version=_constant(seen, roles["version"], "1"),
        source='"-"' if seen.is_table else file,
        id=_place_line("id", roles["id"]),
        time=_place_line("time", roles["time"]) + _time_unit(values.get(roles["time"] or (), ())),
        rule=_RULE,
        features="\n    ".join(["features:" if features else "features: {}", *block]),
        **lines,
        reference=f"reference: {{path: {file}}}" if seen.is_table else "# reference: {path: reference.parquet}",
    )


def _features(seen: _Sample, taken: Collection[Place]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The features by name as they are written, and what is left out with the reason."""
    features: dict[str, str] = {}
    left_out: list[tuple[str, str]] = []
    n_rows = max(map(len, seen.values.values()), default=0)
    for place, values in seen.values.items():
        if place in taken:
            continue
        name = ".".join(place[len(seen.inside) :] if seen.is_inside(place) else place)
        kind, why = _kind(values, n_rows)
        default = ("embedding",) if kind == "embedding" else place if seen.is_table else ("features", name)
        is_default = place == default
        if not seen.is_inside(place) and kind != "embedding":
            why = "it lies outside `features`"
        elif not (seen.is_inside(place) and seen.inside) and any(k.lower() in _PREDICTION + _LABEL for k in place):
            why = "it looks like an answer or a truth"
        elif name in ("", "*") or seen.is_blocked(place) or not (is_default or seen.can_name(place)):
            why = "the configuration cannot name it"
        elif name in features:
            why = "its name is there already"
        if why:
            left_out.append((name, why))
        else:
            features[name] = kind if is_default else f"{{kind: {kind}, path: {_quoted('.'.join(place))}}}"
    return features, left_out


def _kind(values: Sequence[object], n_rows: int) -> tuple[str, str]:
    """The kind of a feature, or "" and why it has none."""
    numbers = sum(_is_number(value) for value in values)
    texts = sum(isinstance(value, str | bool) for value in values)
    if not values:
        return "", "it is always null"
    if 2 * numbers > len(values):
        return "numeric", ""
    if 2 * (numbers + texts) > len(values):
        is_distinct = len(set(map(str, values))) == len(values)
        if is_distinct and len(values) >= max(DISTINCT_ROWS, n_rows // 2):
            return "", "its values never repeat"
        return "categorical", ""
    lists = [value for value in values if isinstance(value, list)]
    if len(lists) == len(values) and len({len(v) for v in lists}) == 1 and lists[0] and all(map(_all_numbers, lists)):
        return "embedding", ""
    return "", "it is no number, text or list of numbers of one length"


def _all_numbers(values: Sequence[object]) -> bool:
    return all(map(_is_number, values))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _answer_line(seen: _Sample, key: str, place: Place | None, kind: str | None, taken: set[str]) -> str:
    """The line of the prediction or the label. Its name joins `taken`."""
    if place is None or kind is None:
        return f"# {key}: {{name: …, kind: …}}"
    name = place[-1]
    while name in taken:
        name += "_"
    taken.add(name)
    path = "" if place == (key,) or seen.is_table else f", path: {_quoted('.'.join(place))}"
    return f"{key}: {{name: {_quoted(name)}, kind: {kind}{path}}}"


def _answer_kind(key: str, values: Sequence[object]) -> str | None:
    distinct = {str(value).lower() for value in values}
    if all(isinstance(value, str | bool) for value in values):
        return "binary" if len(distinct) <= 2 else "categorical"
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values):
        return None
    if set(numbers) <= {0.0, 1.0}:
        return "binary"
    is_share = key == "prediction" and all(0 <= number <= 1 for number in numbers)
    return "probability" if is_share else "numeric"


def _place_line(key: str, place: Place | None) -> str:
    if place is None:
        return f"{key}: {key}  # not found in the sample: say where it lies"
    return f"{key}: {_quoted('.'.join(place))}"


def _time_unit(times: Sequence[object]) -> str:
    numbers = sorted(float(value) for value in times if isinstance(value, int | float))
    if not numbers:
        return ""
    middle = numbers[len(numbers) // 2]
    # Between 1973 and 5138 the units do not overlap.
    unit = "s" if middle < 1e11 else "ms" if middle < 1e14 else "us" if middle < 1e17 else "ns"
    return f"\n  time_unit: {unit}"


def _constant(seen: _Sample, place: Place | None, otherwise: str) -> str:
    """What every row says there, as text; `otherwise` where they differ or say nothing that a name can be."""
    said = {str(value) for value in seen.values[place]} if place else set()
    text = said.pop() if len(said) == 1 else ""
    return _quoted(text if text and "${" not in text else otherwise)


def _quoted(text: str) -> str:
    """Text as one YAML scalar that is read back as text."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*", text) and text not in ("null", "true", "false"):
        return text
    written: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))
    return written.strip()
