"""The registry is locked, or lacks its champion: what was done stays, what is served is served on, and it is said."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("duckdb", reason="needs the extra modelops")

from modelops import recipe as recipes
from modelops.errors import StateUnavailable
from modelops.registry import Registry
from modelops.state import connect
from modelops.steps import Work
from tests.modelops import served_model, world
from tests.modelops.job_bench import Bench
from tests.modelops.open_load import Load
from tests.modelops.service import ask, service, wait_for


@pytest.mark.slow
def test_a_version_that_meets_a_locked_registry_is_registered_later_and_once(tmp_path: Path) -> None:
    with closing(Bench(tmp_path, {}, n_events=1200)) as bench:
        path = bench.config.database
        with closing(connect(path, busy_s=0.05)) as database:
            recipe = recipes.load(bench.config.model("credit").recipe)
            work = Work(bench.config, bench.queue.get("the-job"), recipe, Registry(database, path))
            work.folder.mkdir(parents=True)
            work.profile()
            bench.database.execute("BEGIN IMMEDIATE")
            with pytest.raises(StateUnavailable, match="end what holds it, and try again"):
                work.register()
            bench.database.execute("ROLLBACK")
            assert [work.register().version for _ in range(2)] == [2, 2]
            assert [version.version for version in Registry(database, path).versions("credit")] == [2, 1]


@pytest.mark.slow
def test_without_a_champion_requests_are_answered_on_and_an_alarm_says_what_to_do(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config)
    with service(config) as made:
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        with Load(made.router, 30) as load:
            load.wait_for_more(20)
            with closing(sqlite3.connect(tmp_path / "state" / "modelops.db", isolation_level=None)) as database:
                database.execute("DELETE FROM aliases")
            load.wait_for_more(60)
            assert made.hook(start="2027-01-15T07:50:00Z")[0] == 202
            assert "train one with `modelops train` first" in made.job()["reason"]
            load.wait_for_more(20)
        assert load.failed == []
