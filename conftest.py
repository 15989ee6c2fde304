"""What holds for every test: one thread for small matrices, and where data and services for some tests may lie."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: its threads spin between small matrices

ROOT = Path(__file__).parent


def place(variable: str, default: str) -> Path:
    """A folder beside the repository, or the one that an environment variable names."""
    return Path(os.environ.get(variable, ROOT / default))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data with known truth, which is never committed: a folder for each set."""
    return place("DRIFTWATCH_TEST_DATA", "../shared/data")


@pytest.fixture(scope="session")
def kafka_folder() -> Path:
    """A Kafka broker with a `start` script."""
    return place("DRIFTWATCH_TEST_KAFKA", "../shared/kafka")


@pytest.fixture(scope="session")
def kube_folder() -> Path:
    """A Kubernetes API server to test charts against."""
    return place("DRIFTWATCH_TEST_KUBE", "../shared/kube")
