"""The whole loop as `make demo` runs it: it closes, also where each of its processes is killed once."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="needs the extra modelops")

LIVE_S = {"modelops train": 3.0, "modelops serve": 20.0, "driftwatch run": 25.0}  # before it is killed
OTHERS_LIVE_S = 2.5
PATIENCE_S = 600.0


def running(folder: Path) -> Iterator[tuple[int, str]]:
    """The processes of demos in a folder, with what they are."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(f"{folder}/loop-demo-" in word for word in words) and "-m" in words:
                    at = words.index("-m")
                    version = words[words.index("--version") + 1] if "--version" in words else ""
                    beside = " beside" if any("unchanged" in word for word in words) else ""
                    yield int(entry.name), f"{words[at + 1]} {words[at + 2]} {version}".strip() + beside


@pytest.mark.slow
def test_the_loop_closes_although_each_process_is_killed_once(tmp_path: Path) -> None:
    killed: set[str] = set()
    seen_s: dict[int, float] = {}
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-m", "demo", "--json", "--seed", "3"]
    with (
        (tmp_path / "said").open("wb") as said,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, env=environment) as demo,
    ):
        until_s = time.monotonic() + PATIENCE_S
        while demo.poll() is None:
            assert time.monotonic() < until_s, (tmp_path / "said").read_text()
            for pid, name in [*running(tmp_path)]:
                since_s = seen_s.setdefault(pid, time.monotonic())
                if name not in killed and time.monotonic() - since_s > LIVE_S.get(name, OTHERS_LIVE_S):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.add(name)
            time.sleep(0.1)
        assert demo.stdout is not None
        out = demo.stdout.read()
    story = (tmp_path / "said").read_text()
    assert demo.returncode == 0, story
    assert {"modelops serve", "driftwatch run", "modelops predict 1", "modelops predict 2"} <= killed, killed
    made = json.loads(out.splitlines()[-1])
    performance, seconds = made["performance"], made["seconds"]
    assert performance["before"] > performance["during"] + 0.1
    assert performance["after"] > performance["no_retraining"] + 0.08
    assert made["jobs"][0]["state"] == "promoted"
    assert {alarm["reason"] for alarm in made["alarms"] if alarm["version"] == "1"} == {"superseded"}
    assert [version["version"] for version in made["versions"]] == ["1", "2"]
    assert all(
        seconds[name] is not None for name in ("drift_to_alarm", "alarm_to_job", "training", "alarm_to_promoted")
    )
    assert made["requests"]["sent"] > 1000
    assert [*running(tmp_path)] == []
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


def test_an_interrupt_ends_it_with_its_children_and_its_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as demo:
        until_s = time.monotonic() + PATIENCE_S
        while not [*running(tmp_path)]:
            assert demo.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.05)
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 130
    assert b"interrupted" in said
    assert b"Traceback" not in said
    assert [*running(tmp_path)] == []
    assert [*tmp_path.iterdir()] == []
