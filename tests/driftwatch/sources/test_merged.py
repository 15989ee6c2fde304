"""Files merged by event time: no shard runs ahead, and labels follow the predictions they may belong to."""

import json
from pathlib import Path

import pytest

from driftwatch.protocols import Assigned
from driftwatch.records import Column, Frames, Schema
from driftwatch.sources.files import JsonLinesSource
from driftwatch.sources.merged import MergedSource

SCHEMA = Schema("credit", "3", (Column("age", "numeric", ("age",)),))


def written(path: Path, times_s: list[float | None]) -> Path:
    path.write_text("".join(json.dumps({"id": "a", "time": time_s}) + "\n" for time_s in times_s))
    return path


def read(paths: list[Path], batch_sizes: list[int], *, labels: set[int]) -> list[tuple[str, list[float | None]]]:
    """The file and the times of each batch, in the order read."""
    sources = [JsonLinesSource(path, batch_size=n) for path, n in zip(paths, batch_sizes, strict=True)]
    source, found = MergedSource(sources, SCHEMA, labels=labels), []
    for event in source.events():
        if isinstance(event, Assigned):
            assert event.holds_labels == (event.shard.split("#")[0] == "labels")
            source.begin(event.shard, 0)
        elif isinstance(event, Frames):
            found.append((event.shard.split("#")[0], [json.loads(message)["time"] for message in event.messages]))
    return found


def test_the_batch_that_begins_first_is_read_first(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a", [1, 2, 5, 6]), written(tmp_path / "b", [3, 4, 7, 8])
    assert read([a, b], [2, 2], labels=set()) == [("a", [1, 2]), ("b", [3, 4]), ("a", [5, 6]), ("b", [7, 8])]


@pytest.mark.parametrize("n", [1, 3, 8])
def test_labels_are_read_once_all_predictions_of_their_time_are(tmp_path: Path, n: int) -> None:
    times_s = [float(i) for i in range(40)]
    predictions = written(tmp_path / "predictions", list(times_s))
    labels = written(tmp_path / "labels", [time_s + 0.5 for time_s in times_s])
    found = read([predictions, labels], [4, n], labels={1})
    shown, known = -1.0, -1.0
    for name, theirs in found:
        if name == "labels":
            known = max(time_s for time_s in theirs if time_s is not None)
            assert shown >= min(known - 0.5, times_s[-1])
        else:
            shown = max(time_s for time_s in theirs if time_s is not None)
    assert (shown, known) == (39.0, 39.5)


def test_a_batch_without_a_time_does_not_wait(tmp_path: Path) -> None:
    predictions, labels = written(tmp_path / "predictions", [5, 6]), written(tmp_path / "labels", [None, None, 9])
    found = read([predictions, labels], [2, 2], labels={1})
    assert found == [("labels", [None, None]), ("predictions", [5, 6]), ("labels", [9])]
