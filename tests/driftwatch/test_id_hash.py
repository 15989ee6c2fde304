"""Hashes of ids do not depend on the ids beside them."""

from hypothesis import given
from hypothesis import strategies as st

from driftwatch.id_hash import hash_ids

IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.lists(IDS, max_size=20))
def test_an_id_has_one_hash_whatever_stands_beside_it(ids: list[str]) -> None:
    together = hash_ids(ids).tolist()
    assert together == [int(hash_ids([name])[0]) for name in ids]
    assert 0 not in together


@given(st.lists(st.text("ab\0", max_size=20), unique=True, max_size=50))
def test_other_ids_have_other_hashes(ids: list[str]) -> None:
    assert len(set(hash_ids(ids).tolist())) == len(ids)


def test_hashes_stay_what_they_are_since_they_are_stored() -> None:
    assert hash_ids(["a", "0b9c7f1e-4d2a-000000000001", "ü", ""]).tolist() == [
        7860680498875604842,
        9082955961922381602,
        12404346809406923485,
        16294208416658607535,
    ]
