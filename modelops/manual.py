"""What a person starts from the command line: a training without an alarm, a rollout without a job."""

import sqlite3
import time
import uuid
from pathlib import Path

from modelops import gate
from modelops import recipe as recipes
from modelops import rollout as machine
from modelops.config import Config
from modelops.controller import expected
from modelops.errors import StateError
from modelops.job import Job
from modelops.registry import Registry, Version
from modelops.rollouts import Rollouts
from modelops.steps import Progress, Work


def train(
    config: Config, database: sqlite3.Connection, model: str, source: Path | None, progress: Progress
) -> tuple[str, Version | None]:
    """Trains and, where the gate agrees, registers a version; the first one becomes the champion. → report, version"""
    registry = Registry(database, config.database)
    champion = registry.alias(model, "champion")
    now_s = time.time()
    job = Job(
        id=uuid.uuid4().hex[:16],
        model=model,
        version="" if champion is None else str(champion),
        kind="manual",
        action="retrain",
        alarm_id="",
        started_s=0.0,
        created_s=now_s,
        due_s=now_s,
    )
    recipe = recipes.load(config.model(model).recipe)
    sources = () if source is None else (source,)
    work = Work(config, job, recipe, registry, sources=sources, progress=progress)
    work.folder.mkdir(parents=True, exist_ok=True)
    for step in ("snapshot", "contract", "train"):
        progress(step, 0.0, "")
        getattr(work, step)()
        progress(step, 1.0, "")
    verdict = work.gate()
    report = verdict.report + ("\n" + gate.table_text(verdict) if verdict.comparisons else "")
    if not verdict.is_better:
        return report, None
    version = work.run()
    if champion is None and not registry.swap(model, expected=None, champion=version.version):
        raise StateError(f"another champion of {model!r} came meanwhile; roll version {version.version} out.")
    return report, version


def start(config: Config, database: sqlite3.Connection, model: str, version: int) -> machine.Rollout:
    """Begins a rollout; it. Raises StateError where one is open, or where there is no champion or no such version."""
    registry = Registry(database, config.database)
    known = registry.get(model, version)
    champion = registry.alias(model, "champion")
    if champion is None or champion == version:
        raise StateError(f"a rollout of {model!r} needs a champion that is not version {version}; it is {champion}.")
    recipe = recipes.load(config.model(model).recipe)
    rollout = machine.begin(
        id=f"{known.job}-{uuid.uuid4().hex[:8]}",
        model=model,
        strategy=recipe.rollout.strategy,
        champion=champion,
        challenger=version,
        expected=expected(config, known.job),
        now_s=time.time(),
    )
    Rollouts(database, config.database).add(rollout)
    return rollout
