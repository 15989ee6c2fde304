"""MLflow beside our own registry: a run and a model version for each of ours, and the aliases as they are.

Level-triggered: `mirror` brings MLflow to what the state says, whatever was done before; a crash in between leaves
nothing double, because a version is looked up by its tag first. MLflow is slow to import: this runs in a process of
its own, and a failing MLflow stops no rollout.
"""

import os
import re
import sqlite3
from pathlib import Path
from typing import Any

from modelops.errors import StateError
from modelops.registry import Registry, Version
from modelops.state import state_errors

TAG = "modelops.version"
METRIC = re.compile(r"[^A-Za-z0-9_\-. :/]")  # what a metric's name in MLflow may not hold


def mirror(database: sqlite3.Connection, path: Path, uri: str) -> int:
    """Mirrors every version and alias that MLflow has not yet; how many. Raises StateError where MLflow refuses."""
    registry = Registry(database, path)
    with state_errors(path):
        versions = database.execute(
            "SELECT model, version FROM versions WHERE mirrored = 0 ORDER BY version"
        ).fetchall()
        aliases = database.execute(
            "SELECT model, alias, version, revision FROM aliases WHERE mirrored < revision"
        ).fetchall()
    if not versions and not aliases:
        return 0
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        for model, number in versions:
            _version(client, registry.get(model, number))
            with state_errors(path):
                database.execute("UPDATE versions SET mirrored = 1 WHERE model = ? AND version = ?", (model, number))
        for model, alias, number, revision in aliases:
            found = _found(client, model, number)
            if found is None:
                raise StateError(f"MLflow at {uri} lacks version {number} of {model!r}, which it had. Restore it.")
            client.set_registered_model_alias(model, alias, found)
            with state_errors(path):
                database.execute(
                    "UPDATE aliases SET mirrored = ? WHERE model = ? AND alias = ?", (revision, model, alias)
                )
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise StateError(f"MLflow at {uri} refuses: {error}. It is tried again.") from error
    return len(versions) + len(aliases)


def _version(client: Any, version: Version) -> None:
    """A run and a model version of ours, unless they are there."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(version.model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if _found(client, version.model, version.version) is not None:
        return
    experiment = client.get_experiment_by_name(version.model)
    identity = client.create_experiment(version.model) if experiment is None else experiment.experiment_id
    tags = {"mlflow.runName": f"{version.model}-{version.version}", "modelops.job": version.job}
    run = client.create_run(identity, tags=tags)
    for name, value in version.metrics.items():
        client.log_metric(run.info.run_id, METRIC.sub("_", name), value)
    for name in ("recipe", "kind", "how", "snapshot", "n_rows", "n_train"):
        client.log_param(run.info.run_id, name, getattr(version, name))
    for name, chosen in version.parameters.items():
        client.log_param(run.info.run_id, METRIC.sub("_", f"search.{name}"), chosen)
    client.set_terminated(run.info.run_id)
    client.create_model_version(
        version.model,
        source=Path(version.artifact).absolute().as_uri(),
        run_id=run.info.run_id,
        tags={
            TAG: str(version.version),
            "modelops.job": version.job,
            "modelops.alarm": version.alarm or "",
            "modelops.snapshot": version.snapshot,
            "modelops.sha256": version.sha256,
            "modelops.profile": version.profile_hash,
        },
    )


def _found(client: Any, model: str, number: int) -> str | None:
    """MLflow's own number of a version of ours."""
    found = client.search_model_versions(f"name = '{model}' AND tags.`{TAG}` = '{number}'")
    return str(found[0].version) if found else None
