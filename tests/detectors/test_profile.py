"""Profiles as bytes: the same in, the same out, and nothing that is none."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_examples import Built, built, few_draws

from detectors.calibration import Alarm
from detectors.grid import Feature, FeatureKind, Grid, categorical_feature, numeric_feature
from detectors.profile import Profile, flat_codes, local_codes
from detectors.reference import MIN_ROWS, build, recalibrate
from detectors.scoring import score

N = 400


@pytest.fixture(scope="module")
def small() -> Built:
    return make_small()


def make_small() -> Built:
    """Three features with a name that needs care; made anew at each call."""
    rng = np.random.default_rng(5)
    columns = {
        "x": rng.normal(size=2000),
        "päth/../with: odd \\ name": np.where(rng.random(2000) < 0.1, np.nan, rng.lognormal(size=2000)),
        "c": rng.choice(np.array(["a", "b", "ü", None], object), 2000),
    }
    kinds: dict[str, FeatureKind] = dict(zip(columns, ["numeric", "numeric", "categorical"], strict=True))
    with few_draws(500, 1000):
        return built(columns, kinds, sizes=(100, N), mmd_rows=50)


def test_bytes_give_back_a_profile_that_judges_alike(mixed: Built) -> None:
    data = mixed.profile.to_bytes()
    again = Profile.from_bytes(data)
    assert again.kinds == mixed.profile.kinds
    window = mixed.window(mixed.rows(N, 1))
    assert score(again, window) == score(mixed.profile, window)
    assert again.hash == mixed.profile.hash
    for n in (100, 170, 500, 3000):
        assert again.calibration.threshold(1e-3, n) == mixed.profile.calibration.threshold(1e-3, n)
    assert again.to_bytes() == data


def test_every_field_survives(small: Built) -> None:
    profile, again = small.profile, Profile.from_bytes(small.profile.to_bytes())
    for field in fields(Profile):
        if field.name in ("basis", "random_features", "calibration", "content_hash"):
            continue
        assert np.array_equal(getattr(again, field.name), getattr(profile, field.name)), field.name
    for part, other in ((profile.basis, again.basis), (profile.calibration, again.calibration)):
        for field in fields(part):
            if field.name not in ("grid", "alarm"):
                assert np.array_equal(getattr(part, field.name), getattr(other, field.name)), field.name
    assert again.calibration.alarm == profile.calibration.alarm
    for feature, other_feature in zip(profile.grid.features, again.grid.features, strict=True):
        assert np.array_equal(feature.edges, other_feature.edges) if feature.edges is not None else True
        assert (feature.categories, feature.buckets) == (other_feature.categories, other_feature.buckets)


def test_two_builds_of_the_same_reference_are_the_same_bytes(small: Built) -> None:
    assert make_small().profile.to_bytes() == small.profile.to_bytes()


def test_another_reference_has_another_hash(small: Built) -> None:
    columns = {**small.columns, "x": small.columns["x"] + 1e-9}
    with few_draws(500, 1000):
        other = built(columns, small.kinds, sizes=(100, N), mmd_rows=50)
    assert other.profile.hash != small.profile.hash
    assert len(other.profile.hash) == 32


def test_without_codes_the_rows_stay_out_and_the_hash_stays(small: Built) -> None:
    data = small.profile.to_bytes()
    light = Profile.from_bytes(data, codes=False)
    assert (light.codes.size, light.joint_blocks.size) == (0, 0)
    assert light.hash == small.profile.hash
    window = small.window(small.rows(N, 1))
    assert score(light, window) == score(small.profile, window)


def test_no_pickle_is_written_and_none_is_read(small: Built) -> None:
    with zipfile.ZipFile(io.BytesIO(small.profile.to_bytes())) as archive:
        assert not any(b"'|O'" in archive.read(name)[:200] for name in archive.namelist())
    ran: list[str] = []

    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return ran.append, ("!",)

    with pytest.raises(ValueError, match="profile"):
        Profile.from_bytes(pickle.dumps(Bomb(), protocol=0))
    out = io.BytesIO()
    np.savez(out, meta=np.array([{"format": 1}], object))
    with pytest.raises(ValueError, match="pickle"):
        Profile.from_bytes(out.getvalue())
    assert ran == []


def archive_of(meta: object) -> bytes:
    out = io.BytesIO()
    np.savez(out, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))
    return out.getvalue()


GARBAGE = {
    "nothing": b"",
    "text": b"hello",
    "a zip's first bytes": b"PK\x03\x04" + b"\0" * 50,
    "an empty zip": b"PK\x05\x06" + b"\0" * 18,
    "an array alone": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }",
    "no meta": archive_of(None).replace(b"meta", b"atem"),
    "meta of another kind": archive_of([1, 2]),
    "meta without a format": archive_of({}),
    "meta without features": archive_of({"format": 1}),
    "another format": archive_of({"format": 2}),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_with_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"profile|pickle|JSON|format"):
        Profile.from_bytes(GARBAGE[name])


@pytest.fixture(scope="module")
def data() -> bytes:
    """A profile of 500 rows."""
    with few_draws(200, 400):
        return build({"x": np.arange(500.0)}, {"x": "numeric"}, sizes=(100,), mmd_rows=0).to_bytes()


@settings(max_examples=80)
@given(cut=st.floats(0, 0.999))
def test_a_profile_cut_short_is_refused(data: bytes, cut: float) -> None:
    with pytest.raises(ValueError, match="profile"):
        Profile.from_bytes(data[: int(cut * len(data))])


@settings(max_examples=200)
@given(at=st.floats(0, 0.9999), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_changes_nothing(data: bytes, at: float, flip: int) -> None:
    damaged = bytearray(data)
    damaged[int(at * len(data))] ^= flip
    try:
        again = Profile.from_bytes(bytes(damaged))
    except ValueError:
        return
    assert again.to_bytes() == data  # a byte that no reader looks at, as a date


def test_another_policy_is_simulated_from_the_rows_that_a_profile_keeps(small: Built) -> None:
    kept = Profile.from_bytes(small.profile.to_bytes())
    with few_draws(500, 2000):
        twice = recalibrate(kept, sizes=(N,), alarm=Alarm(2, 3))
        same = recalibrate(kept, sizes=(100, N), alarm=small.profile.calibration.alarm)
    assert twice.calibration.alarm == Alarm(2, 3)
    assert twice.about["simulated_from"] == small.profile.hash
    assert twice.hash != small.profile.hash
    assert twice.calibration.threshold(1e-2, N) < small.profile.calibration.threshold(1e-2, N)
    assert same.calibration.sizes.tolist() == [100, N]


def test_a_policy_on_a_reference_that_never_moves_has_thresholds() -> None:
    with few_draws(400, 1000):
        profile = build({"a": np.ones(500)}, {"a": "numeric"}, sizes=(100,), alarm=Alarm(2, 3), mmd_rows=0)
    assert np.isfinite(profile.calibration.opening_curves).all()
    assert profile.calibration.threshold(1e-3, 100) > profile.calibration.threshold(1e-1, 100)


def test_a_reference_of_too_few_rows_is_refused_and_of_just_enough_is_taken() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=f"at least {MIN_ROWS} rows; got 49"):
        build({"a": rng.normal(size=49)}, {"a": "numeric"}, sizes=(10,))
    with few_draws(200, 400):
        profile = build({"a": rng.normal(size=50)}, {"a": "numeric"}, sizes=(20,))
    assert np.isfinite(profile.calibration.fits).all()
    assert profile.n_rows == 50


def test_progress_rises_to_one() -> None:
    told: list[float] = []
    with few_draws(200, 400):
        build({"a": np.arange(99.0)}, {"a": "numeric"}, sizes=(20, 50), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("n_categories", [3, 252, 253, 254, 900])
def test_codes_within_a_feature_take_the_smallest_integers_that_hold_them(n_categories: int) -> None:
    categories = [f"c{i}" for i in range(n_categories)]
    grid = Grid(
        (
            numeric_feature("x", np.arange(100.0)),
            categorical_feature("c", categories),
            Feature("e", "embedding", length=1),
        )
    )
    rows = {
        "x": np.resize(np.append(np.arange(-1.0, 101), np.nan), n_categories + 2),
        "c": np.array([*categories, None, "unseen"], object),
        "e": np.resize([0.0, np.nan], n_categories + 2)[:, None],
    }
    codes = grid.encode(rows, {"x": np.arange(n_categories + 2) == 1})
    local = local_codes(grid, codes)
    assert local.dtype == (np.uint8 if n_categories <= 253 else np.uint16)
    assert flat_codes(grid, local).tolist() == codes.tolist()
