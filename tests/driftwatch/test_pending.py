"""Rows found by hash, against a plain list, while they are added, thinned and let go of."""

import numpy as np
import pytest

from driftwatch.pending import Pending, in_sample


@pytest.mark.parametrize("most_alike", [0, 40])
def test_every_row_of_a_hash_is_found(most_alike: int) -> None:
    rng = np.random.default_rng(1)
    rows = Pending(150_000)
    plain: list[tuple[int, int]] = []
    for owner in range(1, 60):
        hashes = rng.integers(1, 2**63, 2000).astype(np.uint64)
        if most_alike and plain:
            hashes[:most_alike] = plain[rng.integers(len(plain))][1]
        rows.add(owner, hashes, np.zeros(len(hashes)))
        plain += [(owner, h) for h in hashes.tolist()]
    asked = np.concatenate([np.array([h for _, h in plain[::7]], np.uint64), np.arange(1, 500, dtype=np.uint64)])
    which, places = rows.find(asked)
    found = sorted(zip(asked[which].tolist(), rows.owners(places).tolist(), strict=True))
    wanted = set(asked.tolist())
    owners: dict[int, list[int]] = {}
    for owner, h in plain:
        if h in wanted:
            owners.setdefault(h, []).append(owner)
    assert found == sorted((h, owner) for h in asked.tolist() for owner in owners.get(h, []))
    names, at = rows.by_owner(places)
    assert [names[i] for i in at.tolist()] == rows.owners(places).tolist()


def test_what_is_gone_is_not_found_and_its_room_is_used_again() -> None:
    rng = np.random.default_rng(2)
    rows = Pending(40_000)
    kept = rng.integers(1, 2**63, 1000).astype(np.uint64)
    rows.add(1, kept, np.arange(1000.0))
    for owner in range(2, 200):
        rows.add(owner, rng.integers(1, 2**63, 3000).astype(np.uint64), np.zeros(3000))
        which, places = rows.find(kept)
        assert rows.values[places].tolist() == which.tolist()
        assert len(which) == 1000
        assert rows.counts(owner) == (3000, 0)  # also where rows with labels were
        rows.ticks[rows.places(owner)] = 7
        assert rows.counts(owner) == (3000, 3000)
        rows.free(owner)
    rows.thin(2)
    which, _ = rows.find(kept)
    assert sorted(which.tolist()) == np.flatnonzero(in_sample(kept, 2)).tolist()
    assert rows.n == len(which)


def test_rows_of_few_owners_are_found_among_theirs_alone() -> None:
    rows = Pending(1000)
    hashes = np.array([50, 20, 70], np.uint64)
    rows.add(1, hashes, np.zeros(3))
    rows.add(2, np.array([20, 60], np.uint64), np.zeros(2))
    which, places = rows.find_of([2], np.array([10, 20, 50, 60, 90], np.uint64))
    assert (which.tolist(), places.tolist()) == ([1, 3], [3, 4])
    assert not len(rows.find_of([], hashes)[0])
