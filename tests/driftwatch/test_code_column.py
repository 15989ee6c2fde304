"""Codes in a byte each, against a plain array, before and after there are too many for a byte."""

import numpy as np
import pytest

from driftwatch.code_column import CodeColumn


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("n_codes", [2, 255, 256, 1000])
def test_codes_come_back_as_they_were_written(n_codes: int, few: bool) -> None:
    rng = np.random.default_rng(n_codes)
    codes = rng.integers(1, 2**32, n_codes).astype(np.uint32)
    column, plain = CodeColumn(5000, few=few), np.zeros(5000, np.uint32)
    for _ in range(60):
        places = rng.choice(5000, 50, replace=False)
        written = rng.choice(codes, 50)
        column[places], plain[places] = written, written
        asked = rng.integers(5000, size=200)
        np.testing.assert_array_equal(column[asked], plain[asked])
    assert column[asked].dtype == np.uint32


def test_few_codes_take_a_byte_and_many_take_four() -> None:
    column, places = CodeColumn(1000, few=True), np.arange(300)
    column[places[:255]] = np.arange(1, 256, dtype=np.uint32)
    assert column.stored.dtype == np.uint8
    column[places] = np.arange(1, 301, dtype=np.uint32)
    assert column.stored.dtype == np.uint32
    assert column[places].tolist() == list(range(1, 301))
