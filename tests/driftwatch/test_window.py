import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.summary import Table
from driftwatch.errors import ConfigError
from driftwatch.records import Shard, Stream
from driftwatch.window import CountWindows, Pane, PaneKey, TimeWindows, by_stream, total


@pytest.mark.parametrize(("length_s", "slide_s"), [(10, 3), (10, 20), (10, 0), (10, -5)])
def test_a_slide_that_does_not_divide_the_length_is_refused(length_s: float, slide_s: float):
    with pytest.raises(ConfigError, match=r"^`slide_s` must divide `length_s`; got .*\. Choose"):
        TimeWindows(length_s, slide_s, 0)


def test_a_window_of_no_rows_is_refused():
    with pytest.raises(ConfigError, match=r"^`count` must be at least 1; got 0\."):
        CountWindows(0)


def test_a_row_may_be_a_day_or_ten_windows_ahead_whichever_is_more():
    assert TimeWindows(300, 300, 30).ahead_s == 86_400
    assert TimeWindows(86_400, 3_600, 30).ahead_s == 864_000
    assert TimeWindows(300, 300, 30, max_ahead_s=60).ahead_s == 60


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20), st.data())
def test_rows_are_split_by_version_in_their_order(versions: list[str], data: st.DataObject):
    chosen = data.draw(st.sets(st.integers(0, len(versions) - 1), min_size=1))
    rows = np.array(sorted(chosen), dtype=np.intp)
    found = {s.version: np.arange(len(versions))[r].tolist() for s, r in by_stream(Stream("m", "x"), versions, rows)}
    assert found == {v: [i for i in sorted(chosen) if versions[i] == v] for v in sorted({versions[i] for i in chosen})}


def test_rows_without_versions_are_the_default_stream_s():
    assert list(by_stream(Stream("m", "x"), None, slice(None))) == [(Stream("m", "x"), slice(None))]


def test_a_total_leaves_the_panes_as_they_are():
    key = PaneKey(Shard("s"), Stream("m", "1"), 0, "p")
    panes = [Pane(key, 0, 1, 0, 1, Table(np.array([n]), np.array([0.5]))) for n in (1, 2, 3)]
    sum_of_three = total(panes)
    assert (sum_of_three.counts.tolist(), sum_of_three.sums.tolist()) == ([6], [1.5])
    assert [pane.table.counts.tolist() for pane in panes] == [[1], [2], [3]]
