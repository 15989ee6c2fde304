"""Rollouts under an open-loop load: no request fails in any way that promises it, whatever is killed meanwhile."""

from pathlib import Path

import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("uvicorn", reason="needs the extra modelops")

from benchmarks import rollouts
from tests.modelops import served_model, world
from tests.modelops.service import ready_servers, service, wait_for

ENDS = {"canary, taken back": "rolled_back"}


@pytest.mark.slow
def test_no_request_fails_and_each_is_logged(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config, n_versions=1 + len(rollouts.CASES), kind="hist_gradient_boosting")
    with service(config) as made:
        wait_for(lambda: ready_servers(made) == 1, made.text)
        for version, case in enumerate(rollouts.CASES, 2):
            found = rollouts.measured(made, case, version, rate=60, requests=600)
            assert found["ended"] == ENDS.get(case, "promoted"), (found, made.text())
            assert found["missing"] == 0, found
            if case == "recreate":
                assert found["failed"] > 0
            else:
                assert found["failed"] == 0, (found, made.text())
            if "killed" not in case:
                assert found["twice"] == 0, found
