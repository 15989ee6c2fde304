"""Halves of several shards: whose they are, and from where a shard would have to be read again for them."""

from math import inf

from driftwatch.halves import Half, HalfKey, Halves
from driftwatch.records import Shard

A, B = Shard("p/0"), Shard("p/1")


def meet(halves: Halves, id: str, time_s: float, shard: Shard, position: int) -> Half | None:
    half = Half("request" if shard == A else "response", time_s, b"{}", shard, position)
    return halves.meet(HalfKey("s", id), half)


def test_a_shard_is_read_again_from_before_what_waits_and_what_stands_in_open_windows() -> None:
    halves = Halves(60.0)
    assert halves.rewind(A, inf) == inf
    for i in range(100):
        meet(halves, f"{i}", 10.0 * i, A, i)
    for i in range(90):
        assert meet(halves, f"{i}", 10.0 * i, B, i) is not None
    assert halves.rewind(B, 500.0) <= 44  # rows of 500 s on are in open windows; their halves lie up to 60 s before
    assert halves.rewind(A, inf) <= 84  # 90 and later wait
    for i in range(90, 100):
        meet(halves, f"{i}", 10.0 * i, B, i)
    assert halves.rewind(A, inf) == inf
    assert halves.rewind(B, inf) == inf


def test_the_halves_of_a_shard_that_is_anothers_go_with_it() -> None:
    halves = Halves(60.0)
    meet(halves, "a", 1.0, A, 0)
    meet(halves, "b", 2.0, B, 0)
    halves.changes()
    halves.release(A)
    changes = halves.changes()
    assert (list(changes.gone), set(changes.read)) == ([HalfKey("s", "a")], {B})
    assert meet(halves, "b", 2.0, A, 1) is not None


def test_a_half_is_not_overdue_before_every_shard_has_come_so_far() -> None:
    halves = Halves(60.0)
    halves.reached_s = 10.0
    for i in range(100):
        meet(halves, f"{i}", 10.0 * i, A, i)
    assert list(halves.overdue()) == []
    halves.reached_s = 100.0
    assert [key.id for key, _ in halves.overdue()] == ["0", "1", "2", "3"]
    halves.reached_s = inf
    assert len(list(halves.overdue())) == 87
