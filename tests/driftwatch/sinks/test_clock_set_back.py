"""What waits for a time that the machine's clock no longer comes to is tried all the same."""

import threading
from pathlib import Path
from random import Random

from driftwatch.errors import SinkError
from driftwatch.outbox import Message
from driftwatch.sinks.delivery import Delivery
from driftwatch.store import Store, Transaction

NOW_S = 1_700_000_000.0


def test_what_was_put_off_is_tried_at_once_when_the_clock_goes_back(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db", model="credit")
    outbox, clock_s, arrived = store.outbox(), [NOW_S], threading.Event()

    class Hook:
        max_age_s = 86_400.0

        def post(self, id: str, body: bytes, now_s: float) -> None:
            if now_s == NOW_S:
                clock_s[0] = NOW_S - 1800
                raise SinkError("down", recoverable=True, retry_after_s=60)
            arrived.set()

    store.save(Transaction(messages=[Message("a:opened", "hook", b"", NOW_S)]))
    delivery = Delivery(
        outbox, {"hook": Hook()}, on_outcome=lambda outcome: None, random=Random(0), clock=lambda: clock_s[0]
    )
    delivery.start()
    assert arrived.wait(30)
    delivery.close()
    outbox.close()
    store.close()


def test_what_is_due_later_than_anything_is_put_off_is_due_now(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db", model="credit")
    outbox = store.outbox()
    store.save(Transaction(messages=[Message(f"{x}:opened", "hook", b"", NOW_S + x) for x in (0, 300, 86_400)]))
    assert [m.id for m in outbox.due(NOW_S)] == ["0:opened", "86400:opened"]
    outbox.close()
    store.close()
