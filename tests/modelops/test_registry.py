"""The registry: versions never change, one champion whoever promotes, MLflow follows."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from modelops.errors import StateError
from modelops.registry import Registry, Version
from modelops.state import connect, lock

VERSION = Version(
    model="credit", job="job-0", alarm="a1", created_s=1.0, recipe="r", kind="logistic", snapshot="s",
    snapshot_path="/s", n_rows=10, n_train=7, artifact="/artifacts/credit", sha256="h", profile="/p", profile_hash="ph",
    metrics={"roc_auc": 0.8, "gate.region = \u00e9": 0.7},
)  # fmt: skip


def version(job: str, model: str = "credit") -> Version:
    return msgspec.structs.replace(VERSION, job=job, model=model)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    database = connect(tmp_path / "m.db")
    yield Registry(database, tmp_path / "m.db")
    database.close()


def test_a_job_has_one_version_however_often_it_registers(registry: Registry) -> None:
    first = registry.register(version("a"))
    assert registry.next_version("credit", "b") == 2
    assert registry.register(msgspec.structs.replace(version("a"), sha256="another")) == first
    assert registry.register(version("b")).version == 2
    assert registry.next_version("credit", "a") == 1
    assert registry.register(version("a", "other")).version == 1
    assert [v.version for v in registry.versions("credit")] == [2, 1]


def test_an_alias_moves_by_compare_and_swap(registry: Registry) -> None:
    for job in "abc":
        registry.register(version(job))
    assert registry.swap("credit", expected=None, champion=1)
    registry.challenge("credit", 2)
    assert not registry.swap("credit", expected=None, champion=3)
    assert not registry.swap("credit", expected=3, champion=2)
    assert registry.swap("credit", expected=1, champion=2)
    assert registry.swap("credit", expected=1, champion=2)  # done already
    assert registry.aliases("credit") == {"champion": 2, "previous": 1}
    assert registry.swap("credit", expected=2, champion=1)
    assert registry.aliases("credit") == {"champion": 1, "previous": 2}
    with pytest.raises(StateError, match="no version 9"):
        registry.swap("credit", expected=1, champion=9)
    with pytest.raises(StateError, match="no version 9"):
        registry.get("credit", 9)


def promote(
    path: Path, number: int, barrier: "multiprocessing.synchronize.Barrier", won: "multiprocessing.Queue[int]"
) -> None:
    database = connect(path)
    registry = Registry(database, path)
    made = registry.register(version(f"job-{number}"))
    barrier.wait()
    if registry.swap("credit", expected=1, champion=made.version):
        won.put(made.version)
    database.close()


def test_of_eight_promoters_at_once_one_wins_and_no_version_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    database = connect(path)
    registry = Registry(database, path)
    registry.register(version("first"))
    registry.swap("credit", expected=None, champion=1)
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(8), context.Queue()
    processes = [context.Process(target=promote, args=(path, i, barrier, won)) for i in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    champion = won.get(timeout=10)
    assert won.empty()
    assert registry.aliases("credit") == {"champion": champion, "previous": 1}
    assert [v.version for v in registry.versions("credit")] == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert {v.job for v in registry.versions("credit")} == {"first", *(f"job-{i}" for i in range(8))}
    database.close()


def test_a_state_of_another_program_or_schema_is_refused(tmp_path: Path) -> None:
    import sqlite3

    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(StateError, match="another program's"):
        connect(tmp_path / "other.db")
    database = connect(tmp_path / "m.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StateError, match="must have schema 2; got 99"):
        connect(tmp_path / "m.db")
    (tmp_path / "text.db").write_text("no database, but long enough to be looked at as one" * 40)
    with pytest.raises(StateError, match="must be a sound modelops state"):
        connect(tmp_path / "text.db")


def test_a_second_service_on_one_state_is_refused(tmp_path: Path) -> None:
    import os

    descriptor = lock(tmp_path / "m.lock")
    with pytest.raises(StateError, match=f"held by process {os.getpid()}"):
        lock(tmp_path / "m.lock")
    os.close(descriptor)
    os.close(lock(tmp_path / "m.lock"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own, about its libraries
def test_mlflow_has_every_version_with_its_lineage_and_the_aliases(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra modelops")
    from mlflow import MlflowClient

    from modelops import tracking

    path, uri = tmp_path / "m.db", f"sqlite:///{tmp_path / 'mlflow.db'}"
    database = connect(path)
    registry = Registry(database, path)
    for job in "ab":
        registry.register(version(job))
    registry.swap("credit", expected=None, champion=1)
    assert tracking.mirror(database, path, uri) == 3
    database.execute("UPDATE versions SET mirrored = 0")  # as after a kill between doing and noting
    assert tracking.mirror(database, path, uri) == 2
    registry.swap("credit", expected=1, champion=2)
    assert not registry.is_mirrored()
    assert tracking.mirror(database, path, uri) == 2
    assert registry.is_mirrored()
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert len(client.search_model_versions("name = 'credit'")) == 2
    champion = client.get_model_version_by_alias("credit", "champion")
    assert champion.tags["modelops.version"] == "2"
    assert client.get_model_version_by_alias("credit", "previous").tags["modelops.version"] == "1"
    assert {"modelops.job": "b", "modelops.alarm": "a1", "modelops.sha256": "h"}.items() <= champion.tags.items()
    run = client.get_run(champion.run_id)
    assert (run.data.params["snapshot"], run.data.metrics) == ("s", {"roc_auc": 0.8, "gate.region _ _": 0.7})
    (tmp_path / "mlflow.db").unlink()
    registry.register(version("c"))
    with pytest.raises(StateError, match="MLflow"):
        tracking.mirror(database, path, "sqlite:////proc/nowhere/mlflow.db")
    database.close()
