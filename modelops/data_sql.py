"""The SQL of a snapshot: raw events, typed columns, joined labels of complete windows. Text only; DuckDB runs it."""

from collections.abc import Mapping, Sequence

from modelops.recipe import Kind

CODE_VERSION = 1
"""Part of a snapshot's name: raised when the same SQL would be given other rows."""

_JSON, _TEXT = ("id", "time", "features", "prediction", "label"), ("model", "version")
EVENT_COLUMNS = "{" + ", ".join([*(f"{n}: 'JSON'" for n in _JSON), *(f"{n}: 'VARCHAR'" for n in _TEXT)]) + "}"
PARQUET = "FORMAT parquet, DICTIONARY_SIZE_LIMIT 1000"  # for categories: one of ids or numbers costs, and saves nothing
RAW = "SELECT id, time, model, version, features, prediction, label FROM {source}"


IS_POSITIVE = "({label} = $positive OR coalesce(try_cast({label} AS DOUBLE) = try_cast($positive AS DOUBLE), false))"
LABELS = """(SELECT "$id", arg_max("$label", {'at': "$time", 'label': "$label"}) AS label
 FROM events WHERE "$label" IS NOT NULL GROUP BY "$id")"""
"""The latest label of each id."""


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def paths(files: Sequence[str]) -> str:
    """A list of file names."""
    return "[" + ", ".join(text(file) for file in files) + "]"


def plain(value: str) -> str:
    """A JSON scalar as text: 3, "3" and 3.0 are one; null is NULL."""
    return f"regexp_replace({value} ->> '$', '^(-?[0-9]+)\\.0+$', '\\1')"


def typed(source: str, features: Mapping[str, Kind]) -> str:
    """Events with typed columns. A value of the wrong type is missing; an event without id or time is left out."""
    columns = []
    for name, kind in features.items():
        value = f"json_extract(features, {text('$.' + quoted(name))})"
        if kind == "numeric":
            number = f"json_type({value}) IN ('DOUBLE', 'BIGINT', 'UBIGINT', 'HUGEINT')"
            columns.append(f"CASE WHEN {number} THEN try_cast({value} AS DOUBLE) END AS {quoted(name)}")
        else:
            scalar = f"json_type({value}) NOT IN ('OBJECT', 'ARRAY', 'NULL')"
            columns.append(f"CASE WHEN {scalar} THEN {plain(value)} END AS {quoted(name)}")
    seconds = "coalesce(try_cast(time ->> '$' AS DOUBLE), epoch(try_cast(time ->> '$' AS TIMESTAMPTZ)))"
    return f"""
SELECT {plain("id")} AS "$id", {seconds} AS "$time", model AS "$model", version AS "$version",
       json_type(features) = 'OBJECT' AS "$has_features", try_cast(prediction AS DOUBLE) AS "$prediction",
       {plain("label")} AS "$label", {", ".join(columns)}
FROM {source}
WHERE id IS NOT NULL AND {seconds} IS NOT NULL"""


def joined(features: Mapping[str, Kind]) -> str:
    """Predictions since $since with their labels, and the number of their window; an id may stand there twice.

    Parameters of the statement: model, since, span (a window's length). It needs a table `events`.
    """
    return f"""
SELECT p."$id", p."$time", p."$version", p."$prediction", {_names(features, "p.")}, l.label AS "$label",
       floor((p."$time" - $since) / $span) AS "$window"
FROM (SELECT * FROM events WHERE "$has_features" AND coalesce("$model", $model) = $model AND "$time" >= $since) p
LEFT JOIN {LABELS} l
USING ("$id")"""


def once(features: Mapping[str, Kind]) -> str:
    """Leaves the first prediction of each id in the table `joined`; only ids that stand there twice are sorted.

    All columns decide, so that the one that stays does not depend on the order in which rows are read.
    """
    return f"""
DELETE FROM joined USING (
    SELECT rowid AS row, row_number() OVER (
        PARTITION BY "$id" ORDER BY "$time", "$version", "$prediction", {_names(features)}) AS number
    FROM joined SEMI JOIN (SELECT "$id" FROM joined GROUP BY "$id" HAVING count(*) > 1) USING ("$id")) AS numbered
WHERE joined.rowid = numbered.row AND numbered.number > 1"""


WINDOWS = """
SELECT "$window", count(*) AS n, count("$label") AS labelled,
       NOT $must_be_complete OR (
           $since + ("$window" + 1) * $span <= (SELECT max("$time") FROM joined)
           AND (count("$label") >= $complete * count(*)
                OR $since + ("$window" + 1) * $span + $wait
                   <= (SELECT max("$time") FROM events WHERE "$label" IS NOT NULL))) AS is_complete
FROM joined GROUP BY "$window"
"""
"""Which windows are closed and have their labels. Parameters: since, span, complete, wait, must_be_complete."""


def labelled(features: Mapping[str, Kind]) -> str:
    """The snapshot's rows in order of time: the newest $max_rows of complete windows. `$y` is 1 for the positive."""
    complete = 'joined SEMI JOIN (SELECT "$window" FROM windows WHERE is_complete) USING ("$window")'
    return f"""
SELECT "$id", "$time", "$version", "$prediction", {_names(features)}, "$label",
       {IS_POSITIVE.format(label='"$label"')}::INTEGER AS "$y"
FROM {complete}
WHERE "$label" IS NOT NULL
ORDER BY "$time", "$id" LIMIT $max_rows OFFSET (SELECT greatest(count("$label") - $max_rows, 0) FROM {complete})
"""


REPORT = """
SELECT (SELECT count(*) FROM joined), (SELECT count("$label") FROM joined), (SELECT count(*) FROM windows),
       (SELECT count(*) FROM windows WHERE is_complete), count(*), coalesce(sum("$y"), 0), min("$time"), max("$time"),
       (SELECT max("$time") FROM joined)
FROM read_parquet({source})
"""
"""What a snapshot's file holds, and what it was chosen from."""

LIVE_SCORES = (
    """
SELECT p."$version", p."$prediction", """
    + IS_POSITIVE.format(label="l.label")
    + f""" AS y
FROM (SELECT "$id", "$version", "$prediction" FROM events
      WHERE "$has_features" AND "$time" >= $since AND coalesce("$model", $model) = $model
        AND "$prediction" IS NOT NULL) p
JOIN {LABELS} l
USING ("$id")
"""
)
"""Scores of live requests with their labels, by version. Parameters: model, since, positive."""


def _names(features: Mapping[str, Kind], of: str = "") -> str:
    return ", ".join(of + quoted(name) for name in features)
