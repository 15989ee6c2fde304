"""gzip inflates in steps to what it holds; what is none stays as it came; too much is told."""

import gzip
import os
import random
import zlib

import pytest

from driftwatch.sources import inflation
from driftwatch.sources.inflation import Inflation


def inflated(body: bytes, most: int = 2**20) -> tuple[bytes | None, int]:
    """What it holds, and in how many steps."""
    found, n = Inflation(body, most), 1
    while not found.step():
        n += 1
    return None if found.pieces is None else b"".join(found.pieces), n


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflation, "STEP_IN", 7)
    monkeypatch.setattr(inflation, "STEP_OUT", 11)


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize("n", [0, 1, 10, 11, 12, 5000])
@pytest.mark.parametrize("level", [0, 9])
def test_what_was_compressed_comes_back(n: int, level: int) -> None:
    for data in (os.urandom(n), b"a" * n):
        assert inflated(gzip.compress(data, level))[0] == data


def test_a_short_body_takes_one_step_and_none_is_longer_than_its_bound() -> None:
    assert inflated(gzip.compress(b"{}" * 1000)) == (b"{}" * 1000, 1)
    body = gzip.compress(bytes(10 * inflation.STEP_OUT))
    found = Inflation(body, 2**30)
    while not found.step():
        pass
    assert found.pieces is not None
    assert max(map(len, found.pieces)) <= inflation.STEP_OUT
    assert len(found.pieces) >= 10


@pytest.mark.usefixtures("short_steps")
def test_what_is_no_gzip_stays_as_it_came() -> None:
    dice = random.Random(1)
    whole = gzip.compress(dice.randbytes(200))
    for body in (whole[:-1], whole + b"?", whole + whole, b"\x1f\x8b", b"\x1f\x8b" + bytes(100), zlib.compress(b"a")):
        assert inflated(body)[0] == body
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        assert inflated(bytes(damaged))[0] in {bytes(damaged), gzip.decompress(whole)}


@pytest.mark.usefixtures("short_steps")
def test_more_than_the_bound_is_told_and_not_inflated_to_its_end() -> None:
    assert inflated(gzip.compress(bytes(1000)), 1000)[0] == bytes(1000)
    found, n = inflated(gzip.compress(bytes(100_000)), 1000)
    assert found is None
    assert n < 200
