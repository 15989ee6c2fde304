"""Runs the sidecar in forks of itself and kills them as it is told: a start costs no import.

Reads orders on standard input, JSON lines: {"config": path, "point": name | null, "number": k, "delay_s": t | null}.
Point: the fork kills itself at the k-th call of it. Delay: it is killed after so many seconds. "enough", with a source
that has no end: after so many decisions and with nothing left to deliver it is told to stop. Answers with the exit code
of the fork, negative where a signal ended it. Batches are small here, so that there is much to be killed at.
"""

import gc
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from detectors import calibration
from driftwatch import app, cli, config, learned, live_profiles, pipeline
from driftwatch.sinks import delivery
from driftwatch.sinks.webhook import WebhookTarget
from driftwatch.sources import http, spool, tabular
from driftwatch.sources.spool import Spool
from driftwatch.store import Store
from driftwatch.store_outbox import StoredOutbox

BATCH = 240
POINTS: dict[str, tuple[type, str, str]] = {
    "before a save": (Store, "save", "before"),
    "amid a save": (Store, "_save_counts", "after"),
    "after a save": (Store, "save", "after"),
    "before it is learned": (Store, "learn", "before"),
    "amid its learning": (Store, "_assign", "after"),
    "after it is learned": (Store, "learn", "after"),
    "before a post": (WebhookTarget, "post", "before"),
    "after a post": (WebhookTarget, "post", "after"),
    "before a retry is recorded": (StoredOutbox, "retry", "before"),
    "after a delivery is recorded": (StoredOutbox, "delivered", "after"),
    "before an append": (Spool, "append", "before"),
    "amid an append": (Spool, "_write", "amid"),
    "after an append": (Spool, "append", "after"),
}


def kill_at(point: str, number: int) -> None:
    """Replaces a method by one that kills this process at its `number`-th call."""
    owner, name, when = POINTS[point]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def call(*values: Any, **named: Any) -> Any:
        nonlocal calls
        if when != "after":
            calls += 1
            if when == "amid" and calls == number:
                vars(spool)["os"] = HalfWriter()
            else:
                kill_if_due()
        result = original(*values, **named)
        if when == "after":  # one that raised did not get there
            calls += 1
            kill_if_due()
        return result

    def kill_if_due() -> None:
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, call)


class HalfWriter:
    """`os`, but that it writes half of what it is given and then kills this process."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def writev(self, file: int, parts: list[bytes]) -> int:
        whole = b"".join(parts)
        os.write(file, whole[: len(whole) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


def stop_when(state: Path, n_decisions: int) -> None:
    """Tells this process to stop once so much is decided and nothing waits to be delivered."""
    while True:
        time.sleep(0.02)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # it would be killed, not told
            continue
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as opened:
            ((decided, waiting),) = opened.execute(
                "SELECT (SELECT count() FROM decisions), (SELECT count() FROM outbox)"
            )
            if decided >= n_decisions and not waiting:
                os.kill(os.getpid(), signal.SIGTERM)
                return


def small_batches() -> None:
    """Batches of every source, of the Kafka clients where they are installed."""
    vars(tabular)["JsonLinesSource"] = partial(tabular.JsonLinesSource, batch_size=BATCH)
    vars(http)["HttpSource"].__init__.__kwdefaults__["batch_size"] = 5
    with suppress(ImportError):
        from driftwatch.sources import kafka_python

        vars(kafka_python)["BATCH"] = BATCH
        from driftwatch.sources import confluent

        vars(confluent)["CONSUME"] = BATCH


def warm_up(settings: str) -> None:
    """Does before the fork what every fork would do: builds the validator, and looks through the heap once."""
    app.make_policy(config.load(settings))
    gc.collect()
    gc.freeze()


class Inline:
    """In place of `Making`: a learned profile that is built in this process, with few draws."""

    def __init__(self, config_path: Path, source: Path) -> None:
        calibration.DRAWS_FIT, calibration.DRAWS_THRESHOLD = 300, 600
        self._made = learned.build_learned(config.load(config_path), source).to_bytes()

    def wait(self, seconds: float) -> bytes:
        """It is there."""
        return self._made

    def close(self) -> None:
        """Nothing is left."""


def live(order: dict[str, Any]) -> None:
    """One life of the sidecar."""
    pipeline.CHECKPOINT_ROWS = 1
    delivery.BACK_OFF_S, delivery.POLL_MIN_S = 0.01, 0.005
    vars(live_profiles)["Making"] = Inline
    small_batches()
    if (enough := order.get("enough")) is not None:
        state = config.load(order["config"]).state.path
        threading.Thread(target=stop_when, args=(state, enough), daemon=True).start()
    if order["point"] is not None:
        kill_at(order["point"], order["number"])
    cli.main(["run", "-c", order["config"]])


def main() -> None:
    """Answers orders until there are no more."""
    for line in sys.stdin:
        order = json.loads(line)
        warm_up(order["config"])
        child = os.fork()
        if child == 0:
            live(order)
        if order["delay_s"] is not None:
            time.sleep(order["delay_s"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
