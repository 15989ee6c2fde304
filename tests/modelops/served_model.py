"""Registered models for tests of serving, made without the training's steps."""

import hashlib
import time
from pathlib import Path

import numpy as np

from modelops import artifact, models
from modelops import recipe as recipes
from modelops.config import Config, load
from modelops.recipe import Kind
from modelops.registry import Registry, Version
from modelops.state import connect
from tests.modelops import world

KINDS: dict[str, Kind] = {"age": "numeric", "income": "numeric", "region": "categorical"}


def register(
    config_path: Path, *, n_versions: int = 1, kind: recipes.ModelKind = "logistic", champion: int = 1
) -> Config:
    """Registers versions that differ; the configuration."""
    config = load(config_path)
    database = connect(config.database)
    registry = Registry(database, config.database)
    for number in range(1, n_versions + 1):
        rows, rng = world.features(400, number), np.random.default_rng(number)
        columns = {name: np.array([r[name] for r in rows], object if name == "region" else float) for name in KINDS}
        y = np.array([world.label(row, rng, changed=number % 2 == 0) for row in rows])
        parameters: dict[str, int | float | str | bool | None] = {} if kind == "logistic" else {"max_iter": 20}
        chosen = recipes.Model(kind=kind, parameters=parameters)
        model = models.fit(chosen, models.encoding_of(columns, KINDS), columns, y)
        folder = config.state.folder / "artifacts" / str(number)
        sha256 = artifact.save(model, folder)
        profile = b"the profile of version %d" % number
        (folder / "reference.profile").write_bytes(profile)
        registry.register(
            Version(
                model="credit", job=f"job-{number}", alarm=None, created_s=time.time(), recipe="", kind=kind,
                snapshot="", snapshot_path="", n_rows=400, n_train=400, artifact=str(folder),
                sha256=sha256, profile=str(folder / "reference.profile"),
                profile_hash=hashlib.sha256(profile).hexdigest()[:32], metrics={},
            )
        )  # fmt: skip
    registry.swap("credit", expected=None, champion=champion)
    database.close()
    return config
