"""The same inputs give the same snapshot, whatever differs between two machines."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("duckdb", reason="needs the extra modelops")

from tests.modelops import test_snapshots as rows

SCRIPT = """
import contextlib, hashlib, os, pathlib, sys
from pathlib import Path
import duckdb
from modelops import data
from modelops.config import load
from modelops import inputs
from modelops.recipe import Data
threads, order, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
listdir, iterdir = os.listdir, Path.iterdir
os.listdir = lambda path: sorted(listdir(path), reverse=order == "down")
Path.iterdir = lambda path: iter(sorted(iterdir(path), reverse=order == "down"))
one = data._database
@contextlib.contextmanager
def database():
    with one() as found:
        found.execute(f"SET threads = {threads}")
        yield found
data._database = database
recipe = Data.model_validate_json(sys.argv[4])
with inputs.to_train(load(folder / "modelops.yaml"), "credit", 0.0, print) as (files, _):
    warehouse = data.Warehouse(folder / "state", chunk_bytes=20_000)
    made = warehouse.snapshot(files, recipe, data.Selection("credit", float(sys.argv[5])))
found = data.read_rows(Path(made.path), recipe.features)
parts = [found.ids.tolist(), found.y.tolist(), found.times_s.tolist()] + [c.tolist() for c in found.columns.values()]
print(made.id, hashlib.sha256(repr(parts).encode()).hexdigest(), made.n_rows, made.report)
"""


def test_the_same_inputs_give_the_same_snapshot_on_another_machine(tmp_path: Path) -> None:
    import duckdb

    from tests.modelops import world

    first = tmp_path / "first"
    world.make_folder(first, entry={"labels": "labels", "history": ["old"]})
    (first / "log").mkdir()
    (first / "labels").mkdir()
    (first / "old").mkdir()
    twins = [
        event | {"features": event["features"] | {"age": age}}  # who came first only their values can say
        for event in rows.predictions(300)
        for age in (7.0, 3.0, 5.0)
    ]
    random.Random(3).shuffle(twins)
    rows.write(first / "log" / "predictions.000001.jsonl", twins)
    rows.write(first / "log" / "predictions.jsonl", rows.predictions(1200, first=200))
    old = rows.write(first / "old" / "a.jsonl", rows.predictions(150, first=1400))
    duckdb.sql(f"COPY (SELECT * FROM '{old}') TO '{first}/old/b.parquet'")
    for part in range(3):  # labels come twice, and not the same
        said = rows.labels(1600)[part::3] + [event | {"label": part % 2} for event in rows.labels(90)]
        rows.write(first / "labels" / f"{part}.jsonl", said)
    found = []
    for number, (zone, seed, threads, order) in enumerate(
        [("UTC", "0", 1, "up"), ("Asia/Kathmandu", "1", 4, "down"), ("America/St_Johns", "77", 2, "down")]
    ):
        folder = first if number == 0 else shutil.copytree(first, tmp_path / f"machine-{number}" / "x y")
        shutil.rmtree(folder / "state", ignore_errors=True)
        words = [str(threads), order, str(folder), json.dumps(rows.RECIPE), str(rows.START_S)]
        environment = os.environ | {"TZ": zone, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        made = subprocess.run(
            [sys.executable, "-c", SCRIPT, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        found.append(made.stdout.splitlines()[-1])
    assert found[0] == found[1] == found[2]
    assert " 1500 1,500 labelled rows" in found[0]
