"""The delivery thread over a real outbox: at least once, in each alarm's order, through outages and kills."""

import http.server
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftwatch.errors import SinkError, StateError
from driftwatch.outbox import Message
from driftwatch.sinks import delivery as delivery_module
from driftwatch.sinks.delivery import Delivery, Outcome
from driftwatch.store import Store, Transaction
from driftwatch.store_outbox import StoredOutbox

HOUR_S = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "state.db", model="credit")) as store:
        yield store


@pytest.fixture
def outbox(store: Store) -> Iterator[StoredOutbox]:
    with closing(store.outbox()) as outbox:
        yield outbox


def put(store: Store, *ids: str, target: str = "hook", created_s: float = 0.0) -> None:
    store.save(Transaction(messages=[Message(id, target, id.encode(), created_s) for id in ids]))


@dataclass
class Clock:
    """Sleeping moves it on at once; `reached` is set when it has come to `until_s`."""

    until_s: float
    now_s: float = 0.0
    reached: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s >= self.until_s:
            self.reached.set()
            time.sleep(0.001)


@dataclass
class Hook:
    """A target that answers as `answer(id, now_s)` says: None, or the error to raise."""

    answer: Callable[[str, float], SinkError | None] = lambda id, now_s: None
    max_age_s: float = 24 * HOUR_S
    posted: list[tuple[str, float]] = field(default_factory=list)
    arrived: list[str] = field(default_factory=list)

    def post(self, id: str, body: bytes, now_s: float) -> None:
        assert body == id.encode()
        self.posted.append((id, now_s))
        if error := self.answer(id, now_s):
            raise error
        self.arrived.append(id)


def down(retry_after_s: float | None = None) -> SinkError:
    return SinkError("down", recoverable=True, retry_after_s=retry_after_s)


def refused() -> SinkError:
    return SinkError("refused", recoverable=False)


def run_until(
    until_s: float, outbox: StoredOutbox, start_s: float = 0.0, seed: int = 0, **targets: Hook
) -> list[Outcome]:
    """Lets a delivery thread work until its clock stands at `until_s`; what came of its attempts."""
    outcomes: list[Outcome] = []
    clock = Clock(until_s, start_s)
    delivery = Delivery(
        outbox, targets, on_outcome=outcomes.append, random=Random(seed), clock=clock, sleep=clock.sleep
    )
    delivery.start()
    reached = clock.reached.wait(30)
    delivery.close()
    assert reached
    return outcomes


def test_what_was_written_in_an_hour_of_outage_arrives_once_and_in_order(store: Store, outbox: StoredOutbox) -> None:
    hook = Hook(lambda id, now_s: down() if now_s < HOUR_S else None)
    ids = [f"{alarm}:{transition}" for alarm in "abc" for transition in ("opened", "resolved")]
    put(store, *ids)
    outcomes = run_until(HOUR_S + 400, outbox, hook=hook)
    assert sorted(hook.arrived) == ids
    assert all(hook.arrived.index(f"{alarm}:opened") < hook.arrived.index(f"{alarm}:resolved") for alarm in "abc")
    assert outcomes.count("delivered") == 6
    assert outcomes.count("retried") == len(hook.posted) - 6
    assert outbox.next_due_s() is None


def test_the_pauses_double_from_a_second_to_five_minutes_and_are_drawn_in_full(
    store: Store, outbox: StoredOutbox
) -> None:
    pauses = []
    for seed in range(30):
        hook = Hook(lambda id, now_s: down() if now_s < HOUR_S / 4 else None)
        put(store, "a:opened")
        run_until(HOUR_S / 2, outbox, seed=seed, hook=hook)
        times = [now_s for _, now_s in hook.posted]
        pauses.append([after - before for before, after in pairwise(times)])
    for attempt in range(9):
        ceiling_s = min(2.0**attempt, 300.0)
        drawn = [p[attempt] for p in pauses if len(p) > attempt]
        assert max(drawn) <= ceiling_s + delivery_module.POLL_MIN_S + 1e-9
        assert min(drawn) < 0.25 * ceiling_s + delivery_module.POLL_MIN_S
        assert max(drawn) > 0.75 * ceiling_s


def test_the_receivers_wish_is_waited_for(store: Store, outbox: StoredOutbox) -> None:
    hook = Hook(lambda id, now_s: down(retry_after_s=1000) if now_s < 1000 else None)
    put(store, "a:opened")
    run_until(1200, outbox, hook=hook)
    assert [now_s for _, now_s in hook.posted] == [0, pytest.approx(1000, abs=delivery_module.POLL_MIN_S)]


def test_a_message_that_is_refused_is_set_aside_with_the_reason_and_its_followers_go(
    store: Store, outbox: StoredOutbox
) -> None:
    hook = Hook(lambda id, now_s: refused() if id == "a:opened" else None)
    put(store, "a:opened", "a:resolved")
    assert run_until(10, outbox, hook=hook) == ["set_aside", "delivered"]
    assert hook.arrived == ["a:resolved"]
    assert [(s.message.id, s.reason) for s in outbox.list_set_aside()] == [("a:opened", "refused")]


def test_a_message_over_its_age_is_set_aside_when_it_fails_again(store: Store, outbox: StoredOutbox) -> None:
    hook = Hook(lambda id, now_s: down(), max_age_s=2 * HOUR_S)
    put(store, "a:opened")
    outcomes = run_until(3 * HOUR_S, outbox, hook=hook)
    assert outcomes[-1] == "set_aside"
    assert outcomes.count("set_aside") == 1
    assert 2 * HOUR_S <= hook.posted[-1][1] <= 2 * HOUR_S + 300 + 1
    assert outbox.list_set_aside()[0].reason.endswith("more than 7200 s: down")


def test_a_message_that_waited_through_a_long_stop_is_tried_before_it_is_given_up(
    store: Store, outbox: StoredOutbox
) -> None:
    hook = Hook()
    put(store, "a:opened")
    assert run_until(30 * HOUR_S + 10, outbox, start_s=30 * HOUR_S, hook=hook) == ["delivered"]


def test_a_message_for_a_sink_that_is_gone_is_set_aside(store: Store, outbox: StoredOutbox) -> None:
    put(store, "a:opened", target="old")
    assert run_until(10, outbox, hook=Hook()) == ["set_aside"]
    assert outbox.list_set_aside()[0].reason == "no sink named 'old' is configured"


def test_a_target_that_is_down_keeps_no_other_waiting(store: Store, outbox: StoredOutbox) -> None:
    dead, hook = Hook(lambda id, now_s: down()), Hook()
    put(store, *(f"{n}:opened" for n in range(20)), target="dead")
    put(store, "a:opened", "a:resolved", target="hook")
    run_until(0.1, outbox, dead=dead, hook=hook)
    assert hook.arrived == ["a:opened", "a:resolved"]
    assert [now_s for _, now_s in hook.posted] == [0, 0]


scripts = st.lists(st.sampled_from(["ok", "down", "refused"]), max_size=12)


@settings(max_examples=40)
@given(scripts, scripts, st.lists(st.floats(0.1, 40), min_size=1, max_size=3), st.integers(0, 99))
def test_no_message_overtakes_an_earlier_one_of_its_alarm_whatever_fails_and_restarts(
    first: list[str], second: list[str], stops_s: list[float], seed: int
) -> None:
    def scripted(script: list[str]) -> Hook:
        answers = iter(script)
        errors: dict[str, Callable[[], SinkError]] = {"down": down, "refused": refused}
        return Hook(lambda id, now_s: errors.get(next(answers, "ok"), lambda: None)())

    hooks = {"x": scripted(first), "y": scripted(second)}
    ids = [f"{alarm}:{transition}" for transition in ("opened", "updated", "resolved") for alarm in "ab"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        with closing(Store.open(path, model="m")) as store, closing(store.outbox()) as outbox:
            for target in hooks:
                put(store, *ids, target=target)
            now_s = 0.0
            for stop_s in [*stops_s, HOUR_S]:
                run_until(now_s + stop_s, outbox, start_s=now_s, seed=seed, **hooks)
                now_s += stop_s
            set_aside = [(s.message.target, s.message.id) for s in outbox.list_set_aside()]
            assert outbox.next_due_s() is None
    for target, hook in hooks.items():
        assert sorted(hook.arrived + [id for t, id in set_aside if t == target]) == sorted(ids)
        for alarm in "ab":
            posted = [ids.index(id) for id, _ in hook.posted if id.startswith(alarm)]
            assert posted == sorted(posted)


def fail_first(outbox: StoredOutbox, call: str, times: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Lets a call of the outbox fail so often, as it does while the disk is full; what is left of the failures."""
    works, left = getattr(outbox, call), iter(range(times))

    def fails(*values: object, **named: object) -> object:
        if next(left, None) is not None:
            raise StateError("disk full")
        return works(*values, **named)

    monkeypatch.setattr(outbox, call, fails)
    return left


@pytest.mark.parametrize("call", ["due", "next_due_s", "delivered", "retry", "set_aside"])
def test_an_outbox_that_fails_for_a_while_neither_ends_the_thread_nor_doubles_a_message(
    call: str, store: Store, outbox: StoredOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([down(), refused()])
    hook = Hook(lambda id, now_s: next(answers, None))
    put(store, "a:opened", "a:resolved")
    failures = fail_first(outbox, call, 7, monkeypatch)
    assert run_until(60, outbox, hook=hook) == ["retried", "set_aside", "delivered"]
    assert list(failures) == []
    assert [id for id, _ in hook.posted] == ["a:opened", "a:opened", "a:resolved"]


def started(outbox: StoredOutbox, hook: Hook) -> Delivery:
    delivery = Delivery(outbox, {"hook": hook}, on_outcome=lambda outcome: None, random=Random(0))
    delivery.start()
    return delivery


def test_a_wake_brings_what_was_committed_before_the_next_look(
    store: Store, outbox: StoredOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "POLL_S", HOUR_S)
    arrived = threading.Event()
    hook = Hook(lambda id, now_s: arrived.set())
    with closing(started(outbox, hook)) as delivery:
        for n in range(20):
            arrived.clear()
            put(store, f"{n}:opened", created_s=time.time())
            delivery.wake()
            assert arrived.wait(20)


def test_a_thread_that_was_woken_looks_once_and_rests(
    store: Store, outbox: StoredOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "POLL_S", HOUR_S)
    looks: list[float] = []
    monkeypatch.setattr(StoredOutbox, "next_due_s", lambda outbox: looks.append(0.0))
    with closing(started(outbox, Hook())) as delivery:
        for _ in range(3):
            delivery.wake()
            time.sleep(0.05)
    assert 1 <= len(looks) <= 5  # at the start, after each wake, before the close


def test_what_another_process_put_back_is_found_without_a_wake(
    store: Store, outbox: StoredOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "POLL_S", 0.01)
    put(store, "a:opened")
    outbox.set_aside("a:opened", "hook", reason="refused")
    arrived = threading.Event()
    with closing(started(outbox, Hook(lambda id, now_s: arrived.set()))):
        outbox.put_back("a:opened", "hook", now_s=time.time())
        assert arrived.wait(20)


def test_a_drain_delivers_what_is_due_and_leaves_nothing(store: Store, outbox: StoredOutbox) -> None:
    hook = Hook()
    with closing(started(outbox, hook)) as delivery:
        put(store, "a:opened", "a:resolved", "b:opened")
        assert delivery.drain(time.time() + 20) == []
        assert hook.arrived == ["a:opened", "a:resolved", "b:opened"]
        put(store, "c:opened")
        assert delivery.drain(time.time() + 20) == []
        assert hook.arrived[3:] == ["c:opened"]


def test_a_drain_answers_what_is_not_due_before_the_deadline_and_keeps_it(store: Store, outbox: StoredOutbox) -> None:
    hook = Hook(lambda id, now_s: down(retry_after_s=HOUR_S) if id.startswith("a") else None)
    put(store, "a:opened", "a:resolved", "b:opened", created_s=time.time())
    with closing(started(outbox, hook)) as delivery:
        left = delivery.drain(time.time() + 600)  # does not wait: nothing comes due in it
        assert [message.id for message in left] == ["a:opened", "a:resolved"]
    assert hook.arrived == ["b:opened"]
    assert [message.id for message in outbox.due(time.time() + 2 * HOUR_S)] == ["a:opened", "a:resolved"]


def test_a_drain_ends_at_its_deadline_beside_an_attempt_that_hangs(store: Store, outbox: StoredOutbox) -> None:
    release = threading.Event()
    hook = Hook(lambda id, now_s: None if release.wait(30) else down())
    put(store, "a:opened")
    with closing(started(outbox, hook)) as delivery:
        left = delivery.drain(time.time() + 0.1)
        assert [message.id for message in left] == ["a:opened"]
        release.set()
    assert outbox.next_due_s() is None  # close waited for the attempt and recorded it


def test_a_close_while_the_outbox_fails_leaves_the_message_for_the_next_start(
    store: Store, outbox: StoredOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = threading.Event()
    put(store, "a:opened")
    fail_first(outbox, "delivered", 10**9, monkeypatch)
    with closing(started(outbox, Hook(lambda id, now_s: arrived.set()))):
        assert arrived.wait(20)
    assert [message.id for message in outbox.due(time.time())] == ["a:opened"]


SENDER = """
import sys
from ipaddress import ip_network
from pathlib import Path
from random import Random
from driftwatch.sinks.delivery import Delivery
from driftwatch.sinks.webhook import WebhookTarget
from driftwatch.store import Store
url, path = sys.argv[1:]
target = WebhookTarget(url, ["c2VjcmV0"], allow_http=True, allow_private=[ip_network("127.0.0.0/8")])
outbox = Store.open(Path(path), model="credit").outbox()
delivery = Delivery(outbox, {"hook": target}, on_outcome=print, random=Random())
delivery.start()
sys.stdin.read()
delivery.close()
"""


def test_a_kill_between_arrival_and_record_sends_the_same_id_again(store: Store, tmp_path: Path) -> None:
    put(store, "a:opened", created_s=time.time())
    children: list[subprocess.Popen[bytes]] = []
    received: list[str | None] = []
    arrived = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.headers["webhook-id"])
            self.rfile.read(int(self.headers["content-length"]))
            if len(received) == 1:
                os.kill(children[0].pid, signal.SIGKILL)
                children[0].wait()
            else:
                self.send_response(204)
                self.end_headers()
            arrived.set()

        def log_message(self, format: str, *args: object) -> None:
            pass

    def send(url: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SENDER, url, str(tmp_path / "state.db")]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return children[-1]

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        outputs = []
        for _ in range(2):
            with send(url) as child:
                assert arrived.wait(30)
                arrived.clear()
                outputs.append(child.communicate()[0].decode().split())
        server.shutdown()
        serving.join()
    assert received == ["a:opened", "a:opened"]
    assert outputs == [[], ["delivered"]]
    with closing(store.outbox()) as outbox:
        assert outbox.next_due_s() is None
