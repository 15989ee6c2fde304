"""A sidecar that is fed over HTTP and told to stop amid its work, and on a machine whose clock is set back."""

import contextlib
import random
import signal
import threading
import time
from pathlib import Path

from sidecar import TIME, Receiver, decided, drifting, receiving, replayed, rounded, webhook_ids, write_config
from sidecar import write_events as written
from test_http import FEW_DRIFTS, Sender, judged, lines, listens, sidecar, until


def test_told_to_stop_under_load_it_ends_in_order_and_every_acknowledged_body_is_in_the_decisions(folder: Path) -> None:
    stream, dice, n_lives = drifting(FEW_DRIFTS), random.Random(6), 4
    want = replayed(write_config(folder, window=TIME), written(folder / "events.jsonl", stream))[:-1]
    bodies = lines(stream, 5)
    with receiving(Receiver([503, 200, 503])) as receiver, sidecar(folder, sinks=[receiver.sink()]) as running:
        n_stopped = 0

        def send() -> None:
            with contextlib.closing(Sender(running.port)) as sender:
                for i, body in enumerate(bodies):
                    while i * n_lives // len(bodies) > n_stopped:  # each life is sent its share
                        time.sleep(0.01)
                    sender.send(*body)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        for _ in range(n_lives - 1):
            until(lambda: listens(running.port))
            until(lambda: running.get("/readyz")[0] == 200)
            time.sleep(dice.uniform(0, 0.3))
            assert running.end(signal.SIGTERM) == 0, running.log.read_text()
            n_stopped += 1
            running.live()
        thread.join(60)
        assert not thread.is_alive()
        until(judged(running.config, len(want)))
        until(lambda: webhook_ids(want) <= set(receiver.taken.get("/", [])))
        assert running.end(signal.SIGTERM) == 0
        assert rounded(decided(running.config)) == rounded(want)
        assert set(receiver.taken["/"]) == webhook_ids(want)
