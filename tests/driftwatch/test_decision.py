"""The decision as JSON: what the interface promises of its keys, numbers and times."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftwatch.decision import (
    AlarmFeature,
    AlarmLine,
    Decision,
    QualityLine,
    ScoreLine,
    ShareLine,
    WindowLine,
    decode,
    encode,
    rfc3339,
)
from driftwatch.errors import DecodeError

NUMBERS = st.none() | st.floats()
WORDS = st.text(st.characters(codec="utf-8"), max_size=8)
VERDICTS = st.sampled_from(["ok", "drift", "undetermined"])
FEATURES = st.builds(AlarmFeature, WORDS, WORDS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
DECISIONS = st.builds(
    Decision,
    window=st.builds(WindowLine, WORDS, WORDS, st.none(), WORDS, WORDS, st.integers(0, 2**53)),
    verdict=VERDICTS,
    scores=st.lists(
        st.builds(ScoreLine, WORDS, WORDS, NUMBERS, NUMBERS, NUMBERS, st.just(9), st.just(8), VERDICTS, WORDS),
        max_size=3,
    ).map(tuple),
    quality=st.lists(st.builds(QualityLine, WORDS, WORDS, NUMBERS, NUMBERS, VERDICTS), max_size=2).map(tuple),
    alarms=st.lists(
        st.builds(
            *(AlarmLine, WORDS, st.just("opened"), WORDS, st.none(), WORDS),
            *(
                st.lists(FEATURES, max_size=2).map(tuple),
                st.just("drift"),
                st.lists(WORDS, max_size=2).map(tuple),
                WORDS,
            ),
        ),
        max_size=2,
    ).map(tuple),
    part=st.integers(1, 3),
    partial=st.booleans(),
    share=st.none() | st.just(ShareLine(("predictions/0", "predictions/2"), 4)),
    revision=st.just(0),
    p_value=NUMBERS,
    threshold=NUMBERS,
    caution=st.lists(WORDS, max_size=2).map(tuple),
    reason=st.none() | WORDS,
)


def a_decision(**changes: object) -> Decision:
    score = ScoreLine("age", "ks", 0.21, 3e-7, 0.21, 20_000, 1000, "drift", None)
    fields: dict[str, object] = {
        "window": WindowLine("credit", "3", None, "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z", 1000),
        "verdict": "drift",
        "scores": (score,),
        "quality": (QualityLine("income", "missing", 0.31, 0.01, "drift"),),
        "alarms": (),
        "part": 1,
        "partial": False,
        "share": None,
        "revision": 0,
        "p_value": 1e-6,
        "threshold": 8.0,
        "caution": (),
    }
    return Decision(**{**fields, **changes})


def test_the_keys_stand_in_the_order_that_the_interface_shows() -> None:
    feature = AlarmFeature("age", "ks", 0.21, 3e-7, 0.64, 0.21, 10.5)
    alarm = AlarmLine(
        *("0123456789abcdef", "opened", "covariate", None, "2026-01-01T00:00:00Z", (feature,)),
        *("drift", ("`age` moved",), "watch"),
    )
    shown = json.loads(encode(a_decision(alarms=(alarm,))))
    assert list(shown) == [
        *("window", "verdict", "scores", "quality", "alarms"),
        *("part", "partial", "share", "revision", "p_value", "threshold", "caution", "reason", "performance"),
    ]
    assert list(shown["window"]) == ["model", "version", "segment", "start", "end", "n_records"]
    assert list(shown["scores"][0]) == [
        *("feature", "detector", "statistic", "p_value", "effect", "n_reference", "n_current", "verdict", "reason")
    ]
    assert list(shown["quality"][0]) == ["feature", "check", "value", "reference", "verdict"]
    assert list(shown["alarms"][0])[:6] == ["id", "transition", "kind", "pattern", "started_at", "features"]
    assert list(shown["alarms"][0])[6:] == ["class", "evidence", "suggestion"]
    assert list(shown["alarms"][0]["features"][0])[:5] == ["feature", "detector", "effect", "p_value", "contribution"]
    assert shown["window"]["segment"] is None
    assert shown["share"] is None


def test_a_band_or_a_detail_stands_only_where_there_is_one() -> None:
    psi = ScoreLine("age", "psi", 0.3, None, 0.3, 20_000, 1000, "ok", None, band="unstable")
    pair = ScoreLine("*", "correlation", 9.0, 1e-9, 0.4, 20_000, 1000, "drift", None, detail="age, income")
    shown = json.loads(encode(a_decision(scores=(psi, pair))))["scores"]
    assert (shown[0]["band"], "detail" in shown[0]) == ("unstable", False)
    assert (shown[1]["detail"], "band" in shown[1]) == ("age, income", False)


def test_a_share_names_its_shards_and_of_how_many() -> None:
    assert json.loads(encode(a_decision(share=ShareLine(("p/0", "p/2"), 4))))["share"] == {
        "shards": ["p/0", "p/2"],
        "of": 4,
    }


def _no_constants(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


@settings(max_examples=40)
@given(DECISIONS)
def test_a_decision_is_valid_json_without_nan_and_reads_back_equal(decision: Decision) -> None:
    line = encode(decision)
    assert b"\n" not in line
    json.loads(line, parse_constant=_no_constants)
    again = decode(line)
    assert again == decision
    assert encode(again) == line


@settings(max_examples=40)
@given(DECISIONS)
def test_no_p_value_is_below_1e_300(decision: Decision) -> None:
    shown = json.loads(encode(decision))
    p_values = [shown["p_value"], *(s["p_value"] for s in shown["scores"])]
    p_values += [f["p_value"] for a in shown["alarms"] for f in a["features"]]
    assert all(p is None or p >= 1e-300 for p in p_values)


def test_a_p_value_of_zero_is_written_as_the_smallest() -> None:
    assert json.loads(encode(a_decision(p_value=0.0)))["p_value"] == 1e-300


def test_what_is_no_decision_is_refused_and_quoted() -> None:
    with pytest.raises(DecodeError, match=r"`decision` must be a line that `encode` wrote; got b'.\"verdict\": 7.'"):
        decode(b'{"verdict": 7}')


def test_keys_of_a_later_version_are_ignored() -> None:
    line = encode(a_decision())
    assert decode(line[:-1] + b',"patterns":[{"metric":"roc_auc"}]}') == a_decision()


@given(st.floats(0, 7_258_118_400, allow_nan=False))
def test_a_time_reads_back_to_the_nearest_microsecond(epoch_s: float) -> None:
    text = rfc3339(epoch_s)
    assert text.endswith("Z")
    assert datetime.fromisoformat(text).timestamp() == pytest.approx(epoch_s, abs=2e-6)
    assert ("." in text) == (datetime.fromisoformat(text).microsecond != 0)


def test_a_time_just_under_a_second_is_rounded_up_into_it() -> None:
    assert rfc3339(59.999_999_9) == "1970-01-01T00:01:00Z"
    assert rfc3339(datetime(2026, 7, 1, 12, 0, 0, 250_000, UTC).timestamp()) == "2026-07-01T12:00:00.250000Z"
