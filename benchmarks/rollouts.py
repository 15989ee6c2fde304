"""Requests that fail while a version is rolled out: python -m benchmarks.rollouts [CASE …]

Real processes on loopback: `modelops serve` with its router, a model server for each version (HistGradientBoosting),
and a client that sends at a fixed rate, each request at its intended time. In each case at least 10,000 requests are
sent, from before the rollout begins until after it has ended. Writes docs/rollouts.md; lines of other cases stay.
"""

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import document
from tests.modelops import served_model, world
from tests.modelops.open_load import Load
from tests.modelops.service import Service, ready_servers, run, servers_of, service, wait_for

RATE = 120.0
REQUESTS = 10_000
BEFORE = 100  # requests before the rollout begins
PLAN = {"observe": "2s", "min_requests": 200, "watch": "2s", "steps": [0.1, 0.5], "min_labels": 10**9}
HEAD = ("case", "ended", "requests", "failed", "outage, s", "answered by version", "p50, ms", "p99, ms", "logged")
TEXT = (
    f"`modelops serve` with its router, a model server for each version, and a client that sends {RATE:.0f} requests a "
    "second, each at its intended time; latencies count from then, and all share the cores with whatever else runs "
    "there: failures are what is measured, latencies say little. Both model servers of "
    "*model servers killed* got SIGKILL while both answered, one after the other. *Logged*: whether the prediction log "
    "holds each answered request once; a server that is killed between its log and its answer leaves a row twice, and "
    "driftwatch counts an id once. `recreate` ends the old server before the new one begins: its outage, as declared."
)
Result = dict[str, Any]


def nothing(made: Service, load: Load, version: int) -> None:
    """The rollout goes its way."""


def abort(made: Service, load: Load, version: int) -> None:
    """Taken back while the challenger answers half of the requests."""
    wait_for(lambda: str(version) in load.versions, made.text)
    load.wait_for_more(200)
    command(made, "abort")


def kill(made: Service, load: Load, version: int) -> None:
    """SIGKILL to both model servers, one after the other, while both answer; then on."""
    wait_for(lambda: str(version) in load.versions, made.text)
    for pid in servers_of(made.config):
        load.wait_for_more(200)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: ready_servers(made) == 2, made.text)
    load.wait_for_more(200)
    command(made, "promote")


def command(made: Service, word: str) -> None:
    """A command of the command line."""
    found = run("rollout", word, "credit", "-c", made.config)
    assert found.returncode == 0, found.stderr


STAYS: Result = {"strategy": "canary", "steps": [0.5], "observe": "600s"}
CASES: dict[str, tuple[Result, Callable[[Service, Load, int], None]]] = {
    "canary": ({"strategy": "canary"}, nothing),
    "blue-green": ({"strategy": "blue_green"}, nothing),
    "shadow": ({"strategy": "shadow"}, nothing),
    "canary, taken back": (STAYS, abort),
    "canary, model servers killed": (STAYS, kill),
    "recreate": ({"strategy": "recreate"}, nothing),
}


def measured(made: Service, case: str, version: int, *, rate: float = RATE, requests: int = REQUESTS) -> Result:
    """One case: what became of the requests."""
    plan, meanwhile = CASES[case]
    path = made.config.parent / "credit.yaml"
    recipe = json.loads(path.read_text())
    recipe["rollout"] |= PLAN | plan
    path.write_text(json.dumps(recipe))
    champion = made.get("/v1/models")["credit"]["aliases"]["champion"]
    with Load(made.router, rate, name=case) as load:
        wait_for(lambda: len(load.done) >= BEFORE, made.text)
        started = run("rollout", "start", "credit", version, "-c", made.config)
        assert started.returncode == 0, started.stderr
        meanwhile(made, load, version)
        wait_for(lambda: made.phase() in ("promoted", "rolled_back"), made.text)
        wait_for(lambda: len(load.done) >= requests, made.text)
    ended = made.get("/v1/rollouts")[0]
    ids = [
        json.loads(line)["id"] for line in (made.config.parent / "log" / "predictions.jsonl").read_bytes().splitlines()
    ]
    logged = [id for id in ids if id.startswith(f"{case}-")]
    answered = {one.id for one in load.done if one.status == 200}
    return {
        "case": case, "champion": champion, "ended": ended["phase"], "reason": ended["reason"],
        "requests": len(load.done), "failed": len(load.failed), "outage_s": load.outage_s(),
        "versions": load.versions, "p50_ms": load.quantile_ms(0.5), "p99_ms": load.quantile_ms(0.99),
        "missing": len(answered - set(logged)), "twice": len(logged) - len(set(logged)),
        "statuses": sorted({one.status for one in load.failed}),
    }  # fmt: skip


def row(found: Result) -> list[str]:
    """A line of the table."""
    versions = ", ".join(
        f"{'old' if int(v) == found['champion'] else 'new'} {n:,}" for v, n in found["versions"].items()
    )
    logged = "each once" if not found["missing"] + found["twice"] else f"{found['missing']} not, {found['twice']} twice"
    return [
        found["case"], found["ended"].replace("_", " "), f"{found['requests']:,}", f"{found['failed']:,}",
        f"{found['outage_s']:.1f}" if found["failed"] else "none", versions, f"{found['p50_ms']:.1f}",
        f"{found['p99_ms']:.0f}", logged,
    ]  # fmt: skip


def rows_before() -> dict[str, list[str]]:
    """The page's lines by case, of this run's cases or not."""
    page = document.DOCS / "rollouts.md"
    lines = page.read_text("utf-8").splitlines() if page.exists() else []
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {found[0]: found for found in cells if found[0] in CASES}


def main() -> None:
    """The cases one after the other, on one service."""
    parser = document.parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    cases = parser.parse_args().cases
    if unknown := [case for case in cases if case not in CASES]:
        parser.error(f"`CASE` must be one of {', '.join(CASES)}; got {unknown[0]!r}.")
    rows = rows_before()
    with tempfile.TemporaryDirectory() as folder:
        config = world.make_folder(Path(folder))
        served_model.register(config, n_versions=1 + len(CASES), kind="hist_gradient_boosting")
        with service(config) as made:
            wait_for(lambda: ready_servers(made) == 1, made.text)
            for version, case in enumerate(cases or CASES, 2):
                began_s = time.monotonic()
                found = measured(made, case, version)
                rows[case] = row(found)
                took_s = time.monotonic() - began_s
                print(f"{' | '.join(rows[case])}  ({took_s:.0f} s) {found['reason']} {found['statuses']}", flush=True)
    ordered = [rows[case] for case in CASES if case in rows]
    command = "OPENBLAS_NUM_THREADS=1 python -m benchmarks.rollouts"
    document.write("rollouts", "Requests during a rollout", command, [document.table(HEAD, ordered), TEXT])


if __name__ == "__main__":
    main()
