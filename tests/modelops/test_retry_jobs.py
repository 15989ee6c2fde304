"""Retries in their subprocess and over a killed service: nothing is trained twice on the same rows."""

import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("duckdb", reason="needs the extra modelops")
pytest.importorskip("skops", reason="needs the extra modelops")

from modelops import recipe as recipes
from modelops.errors import TooFewLabels
from modelops.job import Job
from modelops.registry import Registry
from modelops.steps import Work
from modelops.times import rfc3339
from modelops.worker import kept_recipe
from tests.modelops import served_model, world
from tests.modelops.job_bench import START_S, Bench
from tests.modelops.service import Service, Traffic, ask, run, service, wait_for


@pytest.mark.slow
def test_rows_that_were_judged_are_not_trained_on_again_unless_the_recipe_was_changed(tmp_path: Path) -> None:
    with closing(Bench(tmp_path, {}, n_events=1200)) as bench:
        log, folder = tmp_path / "log" / "predictions.jsonl", bench.config.state.folder
        recipe = recipes.load(bench.config.model("credit").recipe)
        first = bench.queue.get("the-job")
        second = msgspec.structs.replace(first, id="the-job-2", retry=1, retry_of="the-job")

        def work(job: Job) -> Work:
            made = Work(bench.config, job, recipe, Registry(bench.database, bench.config.database))
            made.folder.mkdir(parents=True, exist_ok=True)
            kept_recipe(bench.config, "credit", made.folder)
            return made

        kept = work(first).snapshot()
        with log.open("a") as file:
            file.write('{"id": "x", "time": 1, "model": "another"}\n')  # the log is another, its rows are not
        assert work(second).snapshot().id != kept.id  # the first one was never judged
        (folder / "jobs" / "the-job" / "gate.json").touch()
        (folder / "jobs" / "the-job-2" / "snapshot.json").unlink()
        for _ in range(2):
            with pytest.raises(TooFewLabels, match="no labelled row came since job the-job, which was judged on the"):
                work(second).snapshot()
        assert [path.stem for path in (folder / "snapshots").iterdir()] == [kept.id]
        (folder / "jobs" / "the-job-2" / "recipe.json").write_text('{"recipe": "another"}')
        made = Work(bench.config, second, recipe, Registry(bench.database, bench.config.database))
        assert made.snapshot().n_rows == kept.n_rows
        world.write_events(log, 500, 3, start_s=START_S + 120, changed=True)
        third = msgspec.structs.replace(second, id="the-job-3", retry=2)
        assert work(third).snapshot().n_rows > kept.n_rows


@pytest.mark.slow
def test_a_second_attempt_is_promoted_though_the_service_is_killed_before_and_while_it_begins(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra modelops")
    config = world.make_folder(tmp_path, entry={"policy": {"cooldown": "4s"}})
    served_model.register(config)
    changed_s, log = time.time() - 600, tmp_path / "log" / "predictions.jsonl"
    log.parent.mkdir()
    world.write_events(log, 1000, 2, start_s=changed_s, changed=False)  # nothing to gain from these
    with service(config) as made:
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        first = made.hook(start=rfc3339(changed_s))[1]["job"]
        wait_for(lambda: made.job()["retry_s"] is not None, made.text)
        made.kill()
        made.up()
        wait_for(lambda: job_of(made, f"{first}-2", "waiting_for_labels"), made.text)
        said = made.job()["reason"]
        assert said.startswith(f"no labelled row came since job {first}, which was judged on the same ")
        snapshots = list((tmp_path / "state" / "snapshots").iterdir())
        made.kill()
        world.write_events(log, 3000, 3, start_s=changed_s + 150, changed=True)
        made.up()
        wait_for(lambda: job_of(made, f"{first}-2", "running"), made.text)
        made.kill()
        made.up()
        with Traffic(made.router, tmp_path / "log" / "labels.jsonl"):
            wait_for(lambda: job_of(made, f"{first}-2", "promoted"), lambda: (made.text(), made.job()))
        assert len(snapshots) == 1
        jobs = made.get("/v1/jobs")
        assert [(job["id"], job["state"], job["retry"]) for job in jobs] == [
            (f"{first}-2", "promoted", 1),
            (first, "rejected", 0),
        ]
        assert jobs[1]["reason"].startswith("not promotable")
        assert made.get("/v1/models")["credit"]["aliases"] == {"champion": 2, "previous": 1}
    listed = run("jobs", "-c", config).stdout
    assert f"{first}-2" in listed
    assert "rejected: " in listed


def job_of(made: Service, job_id: str, state: str) -> bool:
    """Whether the newest job is that one, in that state."""
    job = made.job()
    return job is not None and (job["id"], job["state"]) == (job_id, state)
