"""References and their profiles, built once: with few draws where only the path from rows to scores is under test."""

from collections.abc import Iterator

import numpy as np
import pytest
from profile_examples import Built, awkward_columns, built, few_draws, mix


@pytest.fixture(scope="session")
def mixed() -> Iterator[Built]:
    """Eight numeric and three categorical features and an embedding, all independent; 3,000 rows."""
    rng = np.random.default_rng(11)
    columns, kinds = mix(3000, rng)
    columns["e"], kinds["e"] = rng.normal(size=(3000, 3)).astype(np.float32), "embedding"
    with few_draws():
        yield built(columns, kinds, sizes=(100, 500), mmd_rows=300)


@pytest.fixture(scope="session")
def awkward() -> Iterator[Built]:
    """A constant, values that are always missing, half missing, partly infinite, ids, one category, and normal ones."""
    columns, kinds = awkward_columns(3000, np.random.default_rng(12))
    with few_draws():
        yield built(columns, kinds, sizes=(500,), mmd_rows=0)
