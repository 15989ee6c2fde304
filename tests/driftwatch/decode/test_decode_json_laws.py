"""Laws of decoding: every way gives the same row, batches may be cut anywhere, no message stops the stream."""

import json
import random
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_events import COLUMNS, decode, decoder_of, event, feature, frames, rows

from driftwatch.records import Decoded, Schema

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1, 1.0, True, "1", "true", "True", "False", "north", "south", 10**400, "x" * 257]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from("ab"), SCALARS, max_size=2)
TIMES = st.one_of(
    st.datetimes(
        datetime.fromisoformat("1960-01-01"),
        datetime.fromisoformat("2210-01-01"),
        timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-7, minutes=-30))]),
    ).map(datetime.isoformat),
    st.floats(-1e9, 1e10),
    st.integers(0, 10**10),
    VALUES,
)
TIER = feature("tier")  # its value decides which tier decodes the event
TIERED = Schema("credit", "3", (*COLUMNS, feature("e", "embedding", path=("embedding",), length=2), TIER))


def tiers(event: dict[str, object]) -> list[bytes]:
    """One event as the typed decoder takes it (if it is clean), the wide one, and only the standard library."""
    features = event.get("features")
    typed, wide = event, event
    if isinstance(features, dict):
        typed, wide = (event | {"features": features | {"tier": value}} for value in (1, "x"))
    text = json.dumps(wide).encode()
    return [json.dumps(typed).encode(), text, b"\xef\xbb\xbf" + text]


def but_for_the_tier(decoded: Decoded) -> object:
    poison = [(p.position, p.reason) for p in decoded.poison]
    return rows(decoded, len(TIERED.of_kind("numeric")) - 1), poison, decoded.discarded


EVENTS = st.fixed_dictionaries(
    {"id": st.text("ab", min_size=1) | st.integers() | VALUES, "time": TIMES},
    optional={
        "features": VALUES
        | st.fixed_dictionaries({}, optional={c.name: VALUES for c in COLUMNS[:-1]})
        | st.fixed_dictionaries(
            {},
            optional={
                "age": st.floats(-1e9, 1e9) | st.none(),
                "region": st.sampled_from(["north", "south"]),
                "code": st.just(1),
            },
        ),
        "prediction": VALUES,
        "model": st.just("credit") | VALUES,
        "version": st.sampled_from(["3", 3, 4]) | VALUES,
        "label": VALUES,
        "embedding": st.lists(st.floats(-1e40, 1e40), min_size=2, max_size=2) | VALUES,
    },
)


MESSAGES = EVENTS.map(lambda e: json.dumps(e).encode()) | st.sampled_from([b"", b"{", event(), b"\xff"])


@settings(max_examples=250)
@given(EVENTS)
def test_every_tier_makes_the_same_of_an_event(event: dict[str, object]) -> None:
    typed, wide, lenient = [but_for_the_tier(decode(m, schema=TIERED)) for m in tiers(event)]
    assert typed == wide == lenient


@settings(max_examples=60)
@given(
    st.lists(EVENTS.map(lambda e: json.dumps(e).encode()) | st.sampled_from([b"", b"{", event(), b"\xff"]), max_size=12)
)
def test_batches_of_any_size_give_the_same_rows(messages: list[bytes]) -> None:
    decoder = decoder_of(TIERED)
    whole = decoder.decode(frames(messages))
    for size in (1, 2, 5):
        parts = [decoder.decode(frames(messages[i : i + size], 100 + 10 * i)) for i in range(0, len(messages), size)]
        assert [row for part in parts for row in rows(part)] == rows(whole)
        assert tuple(p for part in parts for p in part.poison) == whole.poison
        for reason in ("tombstone", "other_model", "label"):
            assert sum(part.discarded.get(reason, 0) for part in parts) == whole.discarded.get(reason, 0)
        assert not parts or parts[-1].end == whole.end


@settings(max_examples=60)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8))
def test_numbers_arrive_bit_for_bit(values: list[float]) -> None:
    messages = [json.dumps({"id": i, "time": 1, "features": {"age": v}}).encode() for i, v in enumerate(values)]
    np.testing.assert_array_equal(decode(*messages).records.numeric[:, 0], values)


def test_damaged_bytes_never_stop_the_stream() -> None:
    rng = random.Random(7)
    originals = [
        event(),
        event(label=1, features=...),
        event(model="credit", version=2, embedding=[1.5, 2.5]),
        event(features={"age": "x", "free": None}, time=1714564800),
        event(features={"region": "é\U0001f600 east", "code": True}),
    ]
    messages = []
    for i in range(6000):
        damaged = bytearray(originals[i % len(originals)])
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(damaged))
            match rng.randrange(4):
                case 0:
                    damaged[at] = rng.randrange(256)
                case 1:
                    del damaged[at : at + rng.randrange(1, 9)]
                case 2:
                    damaged[at:at] = rng.choice([b'"', b"}", b"[", b"\\", b"9" * 30, b"null", b"NaN", b"-", b"\x00"])
                case _:
                    damaged[at] ^= 1 << rng.randrange(8)
            damaged = damaged or bytearray(b" ")
        messages.append(bytes(damaged))
    decoder = decoder_of(TIERED)
    outcomes = set()
    for start in range(0, len(messages), 500):
        batch = messages[start : start + 500]
        decoded = decoder.decode(frames(batch))
        assert len(decoded.records) + len(decoded.poison) + sum(decoded.discarded.values()) == len(batch)
        assert len(rows(decoded)) == len(decoded.records)
        assert all(p.payload == batch[(p.position - 100) // 10] for p in decoded.poison)
        outcomes |= {p.reason for p in decoded.poison} | decoded.discarded.keys()
    assert outcomes >= {"structure", "encoding", "id", "time", "label", "other_model"}


@pytest.mark.parametrize("n", [0, 1, 15, 16, 65_536])
def test_a_batch_of_any_length_keeps_its_order(n: int) -> None:
    messages = [b'{"id":%d,"time":"2024-05-01T12:00:00.%06dZ","features":{"age":%d}}' % (i, i, i) for i in range(n)]
    records = decode(*messages).records
    assert records.ids == [str(i) for i in range(n)]
    assert records.numeric[:, 0].tolist() == list(range(n))
    assert np.round((records.times_s - records.times_s[:1]) * 1e6).tolist() == list(range(n))
