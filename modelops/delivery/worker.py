"""Threads that deliver the prediction log, one for each receiver. No answer waits for them.

The log is the queue: what a receiver has not taken yet lies in it, over restarts, until its oldest file is deleted. Of
several model servers that share a log one delivers; where it dies, another one goes on from the kept place.
"""

import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from modelops.config import HttpTarget, KafkaTarget, ModelEntry
from modelops.delivery.http import HttpReceiver
from modelops.delivery.log_reader import MOST_LINE_BYTES, LogReader, Part, lines_after, read_place
from modelops.delivery.receiver import Receiver, Unavailable, Unwanted
from modelops.errors import DataError, StateUnavailable
from modelops.metrics import ServerMetrics
from modelops.prediction_log import delete, rotated, shadow_log

LOOK_S, BACK_OFF_S, BACK_OFF_MAX_S = 0.2, 0.5, 30.0
TIDY_S = 5.0
LEFT_OUT = {
    "unreadable": "no JSON event with an `id`, as of a write that was cut off by a full disk",
    "too_long": f"longer than {MOST_LINE_BYTES >> 20} MiB",
}
log = logging.getLogger("modelops")


class Delivery:
    """Delivers a log to one receiver until it is stopped. `make` connects; it is called in the thread."""

    def __init__(self, path: Path, name: str, model: str, make: Callable[[], Receiver], metrics: ServerMetrics) -> None:
        self.name, self.place_file = name, path.with_name(f".{path.name}.{name}.place")
        self._path, self._model, self._make = path, model, make
        self._delivered = metrics.delivered.labels(model, name)
        self._dropped = {why: metrics.dropped.labels(model, name, why) for why in ("refused", *LEFT_OUT)}
        self._waiting = metrics.waiting.labels(model, name)
        self._stop = threading.Event()
        self._said = ""
        self._left_out: set[str] = set()  # for which reasons, as far as it was said
        self._thread = threading.Thread(target=self._run, name=f"deliver-{name}", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after what is being sent now, or after 5 s."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        descriptor = os.open(self.place_file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while not self._stop.is_set():
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:  # another process delivers
                    self._stop.wait(LOOK_S)
            if not self._stop.is_set():
                receiver = self._make()
                self._deliver(receiver)
                receiver.close()
        finally:
            os.close(descriptor)

    def _deliver(self, receiver: Receiver) -> None:
        reader: LogReader | None = None
        pause_s = BACK_OFF_S
        while not self._stop.is_set():
            try:
                reader = reader or LogReader(self._path, self.place_file)
                part = reader.next()
                self._waiting.set(reader.behind_bytes())
                if part is None:
                    self._stop.wait(LOOK_S)
                    continue
                self._send(receiver, part)
                reader.keep(part.end)
                self._count_left_out(part)
                pause_s = BACK_OFF_S
                self._say("")
            except Unavailable as error:
                self._say(f"{error} Rows wait in the log.")
                self._stop.wait(min(error.after_s or pause_s, BACK_OFF_MAX_S))
                pause_s = min(2 * pause_s, BACK_OFF_MAX_S)
            except (DataError, StateUnavailable, OSError) as error:
                self._say(str(error))
                self._stop.wait(BACK_OFF_S)

    def _send(self, receiver: Receiver, part: Part) -> None:
        refused = 0
        if part.rows:
            try:
                receiver.send(part.rows)
            except Unwanted as unwanted:
                refused = unwanted.n_rows
                self._say(f"{unwanted} {refused} rows are not delivered.")
        self._dropped["refused"].inc(refused)
        self._delivered.inc(len(part.rows) - refused)

    def _count_left_out(self, part: Part) -> None:
        """Counts the lines that are no rows, and says the first one of each reason."""
        for why, count in (("unreadable", part.unreadable), ("too_long", part.too_long)):
            self._dropped[why].inc(count)
            if count and why not in self._left_out:
                self._left_out.add(why)
                log.warning(
                    "%s: %s: a line before byte %d of file %d is %s; it is left out. "
                    "`model_server_dropped_rows_total` counts those that follow.",
                    self._model, self.name, part.end.offset, part.end.number, LEFT_OUT[why],
                )  # fmt: skip

    def _say(self, text: str) -> None:
        """Once, not at every try."""
        if text and text != self._said:
            log.warning("%s: %s", self._model, text)
        if not text and self._said:
            log.info("%s: %s takes rows again", self._model, self.name)
        self._said = text


def deliveries(model: str, entry: ModelEntry, metrics: ServerMetrics) -> list[Delivery]:
    """Those of a model, not started. Raises ConfigError where a client's settings are wrong."""
    return [
        Delivery(entry.predictions, _name(target), model, _maker(model, target), metrics) for target in entry.deliver
    ]


class Tidying:
    """Deletes the oldest files of the logs where there are more than are kept; what nobody took of them is counted."""

    def __init__(self, model: str, entry: ModelEntry, delivered: Sequence[Delivery], metrics: ServerMetrics) -> None:
        self._model, self._entry, self._delivered, self._metrics = model, entry, delivered, metrics

    def once(self) -> None:
        """One look. Raises OSError and DataError."""
        for path in (self._entry.predictions, shadow_log(self._entry.predictions)):
            for number, file in list(rotated(path).items())[: -self._entry.rotation.keep]:
                lost = {d.name: self._lost(d, number, file) for d in self._delivered if path == self._entry.predictions}
                if not delete(path, file):
                    continue  # somebody reads it, or another model server was first
                for name, count in lost.items():
                    self._metrics.dropped.labels(self._model, name, "deleted").inc(count)
                    if count:
                        log.warning("%s: %d rows were deleted before %s took them", self._model, count, name)

    @staticmethod
    def _lost(delivery: Delivery, number: int, file: Path) -> int:
        place = read_place(delivery.place_file)
        if place.number > number:
            return 0
        return lines_after(file, place.offset if place.number == number else 0)


def _name(target: HttpTarget | KafkaTarget) -> str:
    at = target.url if isinstance(target, HttpTarget) else f"{','.join(target.brokers)}/{target.topic}"
    return f"{target.kind}-{hashlib.sha256(at.encode()).hexdigest()[:8]}"


def _maker(model: str, target: HttpTarget | KafkaTarget) -> Callable[[], Receiver]:
    if isinstance(target, HttpTarget):
        return lambda: HttpReceiver(target.url, target.token_file, model)
    from modelops.delivery.kafka import KafkaReceiver

    made = KafkaReceiver(target.brokers, target.topic, target.client_settings())
    return lambda: made
