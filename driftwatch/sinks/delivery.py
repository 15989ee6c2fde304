"""Delivers the messages of an outbox to their targets: at least once, in the order of each alarm, in one thread.

The transaction that decides on an alarm also writes its message to the outbox, so a message is never lost by a crash
and never sent for something that was not committed. This thread takes what is due, posts it and records the outcome.
A message that was posted but whose outcome was not recorded before a crash is posted again under the same id: the
receiver drops it by its id.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Literal, Protocol

from driftwatch.errors import SinkError, StateError
from driftwatch.outbox import Message

Outcome = Literal["delivered", "retried", "set_aside"]

BACK_OFF_S = 1.0  # the first retry comes within this; doubles with each attempt
BACK_OFF_MAX_S = 300.0
STATE_RETRY_S = 1.0  # an outbox that cannot be read or written is tried again after this
POLL_S = 5.0  # another process may put a message back (`driftwatch dlq replay`) and cannot wake this one
POLL_MIN_S = 0.1
SET_BACK_S = 1.0  # a clock that goes back by more than this was set: what is smaller, time-keeping does all day


class Outbox(Protocol):
    """The messages that wait; each call is a short transaction of its own and may raise StateError.

    Used by the delivery thread, and by `Delivery.drain` from the thread that calls it.
    """

    def due(self, now_s: float) -> Sequence[Message]:
        """The messages whose time has come, oldest first.

        A message stays back while an earlier one of the same target and `Message.alarm` waits for a time after
        `now_s`: `resolved` never overtakes `opened`, also after a restart.
        """

    def delivered(self, id: str, target: str) -> None: ...

    def retry(self, id: str, target: str, *, at_s: float, attempts: int, error: str) -> None: ...

    def set_aside(self, id: str, target: str, *, reason: str) -> None: ...

    def next_due_s(self) -> float | None:
        """The earliest time at which `due` answers anything; None: nothing waits."""


class Target(Protocol):
    """Where messages go. `max_age_s`: a message older than this is not tried again after a failure."""

    @property
    def max_age_s(self) -> float: ...

    def post(self, id: str, body: bytes, now_s: float) -> None:
        """One attempt, within a bounded time; raises SinkError."""


class Delivery:
    """The delivery thread.

    Parameters
    ----------
    outbox : what waits.
    targets : by the name that a message carries in `target`; a message for another name is set aside.
    on_outcome : called once for each attempt's outcome, in the delivery thread.
    random : draws the jitter.
    clock : epoch seconds; what `created_s`, `at_s` and `deadline_s` are measured on.
    sleep : waits so many seconds; by default `wake` and `close` end it early.
    """

    def __init__(
        self,
        outbox: Outbox,
        targets: Mapping[str, Target],
        *,
        on_outcome: Callable[[Outcome], None],
        random: Random,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._outbox = outbox
        self._targets = targets
        self._on_outcome = on_outcome
        self._random = random
        self._clock = clock
        self._sleep = sleep or self._wait
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._turned = threading.Condition()
        self._next_due_s: float | None = -math.inf  # written under `_turned`; −inf: a turn has yet to look
        self._turned_s = -math.inf  # when the last turn began
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Says that new messages were committed; callable from any thread."""
        self._woken.set()

    def drain(self, deadline_s: float) -> Sequence[Message]:
        """Waits until nothing falls due before `deadline_s` (on the clock) or it has passed; answers what is left.

        The thread must have been started. What is left stays in the outbox for the next start.
        """
        with self._turned:
            self._next_due_s = -math.inf
            self.wake()
            self._turned.wait_for(lambda: not self._falls_due_by(deadline_s), deadline_s - self._clock())
        return self._outbox.due(math.inf)

    def close(self) -> None:
        """Ends the thread; waits for the attempt in flight, which the target's timeout bounds."""
        self._closing.set()
        self.wake()
        self._thread.join()

    def _falls_due_by(self, deadline_s: float) -> bool:
        return self._next_due_s is not None and self._next_due_s <= deadline_s

    def _wait(self, seconds: float) -> None:
        self._woken.wait(seconds)
        self._woken.clear()  # before the next look at the outbox, so that no wake is lost

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                pause_s = self._turn()
            except StateError:
                pause_s = STATE_RETRY_S
            if pause_s > 0:
                self._sleep(pause_s)

    def _turn(self) -> float:
        """Tries each message that is due, once; answers for how long nothing needs doing.

        A target that fails is left alone for the rest of the turn: its later messages keep their order, and a target
        that hangs costs the others one timeout a turn, not one a message.
        """
        now_s, before_s = self._clock(), self._turned_s
        self._turned_s = now_s
        # Times from before the clock was set back may lie far ahead of it now: what waits is tried at once instead.
        messages = self._outbox.due(math.inf if now_s < before_s - SET_BACK_S else now_s)
        failing: set[str] = set()
        for message in messages:
            if self._closing.is_set():
                break
            if message.target not in failing and not self._deliver(message):
                failing.add(message.target)
        with self._turned:
            next_due_s = self._next_due_s = self._outbox.next_due_s()
            self._turned.notify_all()
        if messages:
            return 0.0  # look again at once: the attempts took time, in which more may have come
        return POLL_S if next_due_s is None else min(max(next_due_s - self._clock(), POLL_MIN_S), POLL_S)

    def _deliver(self, message: Message) -> bool:
        """One attempt and its outcome; False where the message still waits."""
        target = self._targets.get(message.target)
        if target is None:
            self._set_aside(message, f"no sink named {message.target!r} is configured")
            return True
        try:
            target.post(message.id, message.body, self._clock())
        except SinkError as error:
            return self._failed(message, error, target.max_age_s)
        self._record("delivered", lambda: self._outbox.delivered(message.id, message.target))
        return True

    def _failed(self, message: Message, error: SinkError, max_age_s: float) -> bool:
        now_s = self._clock()
        age_s = now_s - message.created_s
        if not error.recoverable:
            self._set_aside(message, str(error))
            return True
        if age_s >= max_age_s:  # after an attempt, never before: a message that was put back gets one
            self._set_aside(message, f"given up after {age_s:.0f} s, more than {max_age_s:.0f} s: {error}")
            return True
        ceiling_s = min(BACK_OFF_S * 2.0 ** min(message.attempts, 60), BACK_OFF_MAX_S)
        at_s = now_s + max(self._random.uniform(0.0, ceiling_s), error.retry_after_s or 0.0)
        attempts = message.attempts + 1
        self._record(
            "retried",
            lambda: self._outbox.retry(message.id, message.target, at_s=at_s, attempts=attempts, error=str(error)),
        )
        return False

    def _set_aside(self, message: Message, reason: str) -> None:
        self._record("set_aside", lambda: self._outbox.set_aside(message.id, message.target, reason=reason))

    def _record(self, outcome: Outcome, write: Callable[[], None]) -> None:
        """Writes an outcome, however often it takes: what arrived is not sent again because the disk was full."""
        self._on_outcome(outcome)
        while True:
            try:
                return write()
            except StateError:
                if self._closing.is_set():
                    return None  # the next start sends it again, under the same id
                self._sleep(STATE_RETRY_S)
