"""Depth counts open brackets outside of texts, whatever the texts hold and wherever a block ends."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftwatch.decode import depth
from driftwatch.decode.depth import MAX_DEPTH, shallow
from driftwatch.decode.lenient import Unreadable

texts = st.text('ab"\\[]{},:\n', max_size=6)
documents = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=30,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@given(documents, st.integers(1, 9))
def test_depth_is_that_of_the_value_it_stands_for(value: Any, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depth, "_BLOCK", block)
        assert depth.depth(json.dumps(value).encode()) == depth_of(value)


@given(st.binary(max_size=50))
def test_what_is_no_json_is_not_told_here(data: bytes) -> None:
    assert depth.depth(data) <= len(data)
    assert shallow(data) is data


def test_one_level_too_many_is_told() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    wide = b"[" + b",".join([deep[1:-1]] * 100) + b"]"
    assert shallow(deep) == deep
    assert shallow(wide) == wide
    with pytest.raises(Unreadable, match="at most 32 deep") as told:
        shallow(b"[" + deep + b"]")
    assert told.value.reason == "depth"
