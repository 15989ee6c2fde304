"""How far a search is: in a job over HTTP, on the command line, and as a bar for who trains by hand."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("optuna", reason="needs the extra modelops")

from modelops.job import Searched
from modelops.results import SEARCHED, job_folder
from tests.modelops import world
from tests.modelops.job_bench import START_S, Bench
from tests.modelops.service import ask, run, service, wait_for

SEARCH: dict[str, Any] = {"space": {"C": {"between": [0.01, 10.0], "log": True}}, "trials": 6}
RECIPE: dict[str, Any] = {"model": {"kind": "logistic", "parameters": {}}, "search": SEARCH}


def test_a_job_shows_how_far_its_search_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, RECIPE, n_events=0)
    shown = [run("jobs", "show", "the-job", "-c", bench.config_path, *words).stdout for words in ((), ("--json",))]
    assert "search" not in "".join(shown)
    folder = job_folder(bench.config, "the-job")
    folder.mkdir(parents=True)
    (folder / SEARCHED).write_text('{"trials": 3, "of": 30, "best": 0.81234, "share": 0.1}')
    shown = [run("jobs", *words, "-c", bench.config_path).stdout for words in ((), ("show", "the-job"))]
    assert shown[0] == shown[1]
    assert shown[0].endswith("\n    search: 3 of 30 trials, best roc_auc 0.8123\n")
    found = json.loads(run("jobs", "show", "the-job", "-c", bench.config_path, "--json").stdout)
    assert found["search"] == {"trials": 3, "of": 30, "best": 0.81234, "share": 0.1}
    said = run("jobs", "shown", "the-job", "-c", bench.config_path)
    assert (said.returncode, "must be followed by nothing or by `show JOB`" in said.stderr) == (2, True)
    assert run("jobs", "show", "none", "-c", bench.config_path).returncode == 3
    assert Searched(0, 30, None, 0.0).said == "0 of 30 trials"
    bench.close()


def test_a_person_who_trains_sees_a_bar_with_the_trials(tmp_path: Path) -> None:
    config_path = world.make_folder(tmp_path, recipe=RECIPE, entry={"labels": None})
    (tmp_path / "log").mkdir()
    world.write_events(tmp_path / "log" / "predictions.jsonl", 1200, 3, start_s=START_S, changed=False)
    seen, terminal = pty.openpty()
    command = [sys.executable, "-m", "modelops", "train", "credit", "-c", str(config_path)]
    process = subprocess.Popen(command, stderr=terminal, stdin=subprocess.DEVNULL)
    os.close(terminal)
    said = b""
    while block := _read(seen):
        said += block
    os.close(seen)
    assert process.wait() == 0, said.decode()
    for n in range(7):
        assert f"{n} of 6 trials".encode() in said
    assert b"[####################] 100%  6 of 6 trials, best roc_auc 0." in said
    assert b"modelops: trial" not in said  # the bar says it


@pytest.mark.slow
def test_a_search_that_runs_is_seen_over_http(tmp_path: Path) -> None:
    recipe = {**RECIPE, "search": SEARCH | {"trials": 400, "budget": "60s"}}
    bench = Bench(tmp_path, recipe, n_events=3000)
    bench.close()
    with service(bench.config_path) as made:

        def searched() -> Any:
            found = ask(f"{made.api}/v1/jobs/the-job")[1]
            return found if found and found.get("search", {}).get("trials", 0) > 1 else None

        found = wait_for(searched, made.text)
        assert found["state"] == "running"
        assert found["search"]["of"] == 400
        assert 0.5 < found["search"]["best"] < 1


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # on Linux a terminal that nobody holds any more
        return b""
