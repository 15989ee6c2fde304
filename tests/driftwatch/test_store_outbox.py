"""The outbox of the store: webhooks wait in their order, and are delivered or put back whatever runs beside."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftwatch.errors import StateError
from driftwatch.outbox import Message
from driftwatch.store import (
    Store,
    Transaction,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


def messages(*ids: str, target: str = "hook") -> Transaction:
    return Transaction(messages=[Message(id, target, id.encode(), 10.0) for id in ids])


def test_a_later_message_of_an_alarm_waits_for_the_earlier(path: Path) -> None:
    store = Store.open(path, model="credit")
    outbox = store.outbox()
    store.save(messages("a:opened", "a:resolved", "b:opened"))
    store.save(messages("a:opened", target="other"))
    assert [(m.id, m.target) for m in outbox.due(10.0)] == [
        *(("a:opened", "hook"), ("a:resolved", "hook"), ("b:opened", "hook"), ("a:opened", "other"))
    ]
    outbox.retry("a:opened", "hook", at_s=70.0, attempts=1, error="refused")
    assert [(m.id, m.target) for m in outbox.due(69.0)] == [("b:opened", "hook"), ("a:opened", "other")]
    outbox.delivered("b:opened", "hook")
    outbox.delivered("a:opened", "other")
    assert outbox.next_due_s() == 70.0
    assert [(m.id, m.attempts) for m in outbox.due(70.0)] == [("a:opened", 1), ("a:resolved", 0)]
    outbox.close()
    store.close()


def test_a_message_that_was_set_aside_lets_the_next_go_and_can_be_put_back(path: Path) -> None:
    store = Store.open(path, model="credit")
    outbox = store.outbox()
    store.save(messages("a:opened", "a:resolved"))
    outbox.retry("a:opened", "hook", at_s=70.0, attempts=1, error="refused")
    outbox.set_aside("a:opened", "hook", reason="gone: 410")
    assert [m.id for m in outbox.due(10.0)] == ["a:resolved"]
    (aside,) = outbox.list_set_aside()
    assert (aside.message.id, aside.reason) == ("a:opened", "gone: 410")
    outbox.put_back("a:opened", "hook", now_s=500.0)
    assert outbox.list_set_aside() == []
    assert outbox.due(500.0)[0] == Message("a:opened", "hook", b"a:opened", 500.0, 0)
    with pytest.raises(StateError, match="`id` must be of a webhook that was set aside; got 'a:opened' for 'hook'"):
        outbox.put_back("a:opened", "hook", now_s=500.0)
    outbox.close()
    store.close()


def test_an_empty_outbox_waits_for_nothing(path: Path) -> None:
    store = Store.open(path, model="credit")
    outbox = store.outbox()
    assert (outbox.due(1e18), outbox.next_due_s(), outbox.list_set_aside()) == ([], None, [])
    outbox.close()
    store.close()


def test_a_message_that_still_waits_is_not_written_twice(path: Path) -> None:
    store = Store.open(path, model="credit")
    outbox = store.outbox()
    store.save(messages("a:opened"))
    outbox.retry("a:opened", "hook", at_s=70.0, attempts=3, error="refused")
    store.save(messages("a:opened"))
    assert [m.attempts for m in outbox.due(70.0)] == [3]
    outbox.close()
    store.close()


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.booleans()), min_size=1, max_size=8), st.data())
def test_the_next_due_time_is_the_earliest_at_which_something_is_due(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, bool]], data: st.DataObject
) -> None:
    store = Store.open(tmp_path_factory.mktemp("outbox") / "state.db", model="credit")
    outbox = store.outbox()
    for i, (alarm, due_s, aside) in enumerate(rows):
        store.save(Transaction(messages=[Message(f"{alarm}{i}:x", "hook", b"", float(due_s))]))
        if aside:
            outbox.set_aside(f"{alarm}{i}:x", "hook", reason="old")
    first = next((float(s) for s in range(6) if outbox.due(float(s))), None)
    assert outbox.next_due_s() == first
    outbox.close()
    store.close()


def test_deliveries_in_one_thread_and_saves_in_another_lose_nothing(path: Path) -> None:
    store = Store.open(path, model="credit")
    outbox = store.outbox()
    delivered: list[str] = []

    def deliver() -> None:
        while len(delivered) < 200:
            for message in outbox.due(1e18):
                outbox.delivered(message.id, message.target)
                delivered.append(message.id)

    thread = threading.Thread(target=deliver)
    thread.start()
    for i in range(200):
        store.save(messages(f"{i}:opened"))
    thread.join(30)
    assert delivered == [f"{i}:opened" for i in range(200)]
    outbox.close()
    store.close()


def test_a_webhook_is_put_back_beside_a_running_sidecar(path: Path) -> None:
    running = Store.open(path, model="credit")
    running.save(messages("a:opened"))
    own = running.outbox()
    own.set_aside("a:opened", "hook", reason="gone: 410")
    command = Store.open(path, model="credit", read_only=True)
    other = command.outbox()
    other.put_back("a:opened", "hook", now_s=500.0)
    assert [m.id for m in own.due(500.0)] == ["a:opened"]
    for closed in (other, command, own, running):
        closed.close()


def test_a_store_in_memory_delivers_nothing() -> None:
    store = Store.open(None, model="credit")
    with pytest.raises(
        StateError, match=r"`state.path` must be a file to deliver webhooks from; got a store in memory"
    ):
        store.outbox()
    store.close()
