"""Profiles that come while the loop runs: put over HTTP, or learned from the stream.

All happens between two transactions of the loop, in its thread: memory and store then say the same, so a crash at any
point leaves a state from which the same windows are counted on the same profiles.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from detectors.profile import hash_of
from driftwatch import profiles
from driftwatch.config import Config
from driftwatch.counters import Counters
from driftwatch.errors import ConfigError, DriftwatchError, StoreUnavailable
from driftwatch.late_labels import LateLabels
from driftwatch.learning import Learner
from driftwatch.metrics import Metrics
from driftwatch.monitor import Monitor
from driftwatch.profiles import Making
from driftwatch.references import ALWAYS, Loaded, named_profiles
from driftwatch.store import Store, Transaction
from driftwatch.store_profiles import Assignment
from driftwatch.units import format_duration
from driftwatch.whole_file import replace_file
from driftwatch.window import Windower

RETRY_S = 600.0  # of machine time before what failed is tried again
PROGRESS_S = 600.0  # of machine time from one line on learning to the next
log = logging.getLogger("driftwatch")


@dataclass(frozen=True, slots=True)
class Judging:
    """What rows are counted and judged with; `learner`: where the configured version's profile is being learned."""

    windower: Windower
    counters: Counters
    monitor: Monitor
    learner: Learner | None
    labels: LateLabels | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """What profiles that come are handed to.

    `lacks` is told what the configured version lacks to be judged, None = nothing.
    """

    config: Config
    config_path: Path
    store: Store
    judging: Judging
    lacks: Callable[[str | None], None]
    metrics: Metrics


class LiveProfiles:
    """Looks after each transaction for profiles that wait, and brings them into use."""

    def __init__(self, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        self._l = live
        self._clock = clock
        self._named = {version for version, _ in named_profiles(live.config)} | {live.config.model.version}
        self._said_s = clock()
        self._making: tuple[str, str, Making] | None = None  # version, content hash ("" = learned), process
        self._unfit: set[tuple[str, str]] = set()  # made for other windows: these wait for one another
        self._failed: dict[tuple[str, str], float] = {}  # when
        self._show()

    def step(self) -> None:
        """Does what is due. A state that cannot be written now is tried again the next time."""
        with suppress(StoreUnavailable):  # the loop's own transaction says so
            self._drop_outdated()
            self._take_made(0.0)
            for given in self._l.store.given(waiting=True):
                self._take_up(given.version, given.hash)
            self._look_at_learning()

    def finish(self, goes_on: Callable[[], bool]) -> None:
        """At the end of the stream: waits for a profile that is being made."""
        while self._making is not None and goes_on():
            self._take_made(0.2)

    def close(self) -> None:
        """Ends what is being made; the next start makes it anew."""
        if self._making is not None:
            self._making[2].close()
            self._making = None

    # Put ------------------------------------------------------------------------------------------------------------

    def _take_up(self, version: str, content_hash: str) -> None:
        """Uses a profile that waits, or has it simulated for these windows first."""
        if self._rests(version, content_hash) or (self._making is not None and (version, content_hash) in self._unfit):
            return
        body = self._l.store.given_body(version)
        if body is None or hash_of(body) != content_hash:
            return  # another one came just now
        put = Loaded.of(body)
        if profiles.fits(put.profile, self._l.config):
            self._use(version, put)
            return
        self._unfit.add((version, content_hash))
        if self._making is None:
            log.info("version %s: the profile %s is simulated for the configured windows", version, content_hash)
            self._make(version, content_hash, body)

    def _drop_outdated(self) -> None:
        """Ends what is made of a profile in whose place another was put, or of rows where one was put."""
        if self._making is None:
            return
        version, content_hash, _ = self._making
        waiting = {given.version: given.hash for given in self._l.store.given(waiting=True)}
        if waiting.get(version, content_hash) != content_hash:
            self.close()

    def _take_made(self, seconds: float) -> None:
        if self._making is None:
            return
        version, content_hash, making = self._making
        try:
            made = making.wait(seconds)
        except DriftwatchError as error:
            self._fail(version, content_hash, error)
            return
        if made is None:
            return
        if content_hash:
            self._use(version, Loaded.of(made, content_hash))
        else:
            self._freeze(version, made)
        self.close()

    def _make(self, version: str, content_hash: str, source: Path | bytes) -> None:
        try:
            self._making = version, content_hash, Making(self._l.config_path, source)
        except DriftwatchError as error:
            self._fail(version, content_hash, error)

    def _fail(self, version: str, content_hash: str, error: Exception) -> None:
        log.error("version %s: %s It is tried again in %s.", version, error, format_duration(RETRY_S))
        self._failed[version, content_hash] = self._clock()
        if not content_hash:
            self._l.lacks(f"version {version} is not learned: {error}")
        self.close()

    def _rests(self, version: str, content_hash: str) -> bool:
        """Whether it failed a short while ago."""
        return self._clock() - self._failed.get((version, content_hash), -RETRY_S) < RETRY_S

    # Learned --------------------------------------------------------------------------------------------------------

    def _look_at_learning(self) -> None:
        learner = self._l.judging.learner
        if learner is None or learner.is_stopped:
            return
        self._l.metrics.learning(learner.state.share(learner.learn_s))
        if learner.is_too_short:
            log.warning(
                "learning goes on for as long again: %s have shown %d rows, at least %d are needed",
                format_duration(learner.learn_s),
                learner.state.n_kept,
                learner.least_rows,
            )
            learner.go_on()
        elif learner.state.is_closed or learner.is_complete:
            if not learner.state.is_closed:
                learner.close()
                self._l.store.save(Transaction(learning=learner.changes()))
            if self._making is None and not self._rests(learner.schema.version, ""):
                log.info("learned %d rows, of which %d are kept", learner.state.n_rows, learner.state.n_kept)
                self._make(learner.schema.version, "", self._l.config.state.path)
        elif self._clock() - self._said_s >= PROGRESS_S:
            self._said_s = self._clock()
            share = learner.state.share(learner.learn_s)
            log.info("learning: %.0f %% of the time has passed, %d rows seen", 100 * share, learner.state.n_rows)

    def _freeze(self, version: str, made: bytes) -> None:
        learned = Loaded.of(made)
        save = None if self._l.config.reference is None else self._l.config.reference.save
        if save is not None:
            try:
                replace_file(save, made)
                log.info("wrote the learned profile to %s", save)
            except OSError as error:
                log.error("`reference.save`: %s cannot be written: %s; the state keeps it", save, error.strerror)
        self._use(version, learned, is_learned=True)
        for line in profiles.coverage(learned.profile, self._l.config):
            log.info("version %s: %s", version, line)

    # Both -----------------------------------------------------------------------------------------------------------

    def _use(self, version: str, loaded: Loaded, *, is_learned: bool = False) -> None:
        """From the next window on the version is judged on the profile."""
        store, profile = self._l.store, loaded.profile
        before = [a.since_s for a in store.current() if a.version == version]
        since_s = max(self._l.judging.windower.next_start_s, *before, ALWAYS)
        try:
            rate = profiles.rate_per_window(self._l.config, profile)
        except ConfigError as error:
            self._fail(version, "" if is_learned else loaded.origin or profile.hash, error)
            return
        assignment = Assignment(version, since_s, profile.hash, loaded.origin)
        if is_learned:
            store.learn(assignment, loaded.data)
        else:
            store.assign(assignment, loaded.data)
        self._l.judging.monitor.know(profile, rate)
        if self._l.judging.labels is not None:
            self._l.judging.labels.know(profile)
        self._l.judging.counters.assign(version, since_s, profile)
        learner = self._l.judging.learner
        if learner is not None and not learner.is_stopped and learner.schema.version == version:
            if not is_learned:
                log.info("a profile was put for version %s: it is learned no longer", version)
                store.forget_learning()
            learner.stop()
            self._l.metrics.learning(float("nan"))
        how = "learned" if is_learned else "put"
        log.info("version %s: the profile %s was %s; it counts from the next window on", version, profile.hash, how)
        if version == self._l.config.model.version:
            self._l.lacks(None)
        self.prune()

    def prune(self) -> None:
        """Forgets profiles of versions that have not been used for `state.keep`."""
        for version in self._l.store.prune(self._named):
            log.info("version %s: its profile is forgotten, for it was not used for `state.keep`", version)
            for _, profile in self._l.judging.counters.assignments.get(version, ()):
                self._l.judging.monitor.forget(profile.hash)
            self._l.judging.counters.forget(version)
        self._show()

    def _show(self) -> None:
        """Shows the profile that each version has from now on, by the id under which it came."""
        judged = self._l.judging.counters.assignments.keys()
        held = {a.version: a.origin or a.hash for a in self._l.store.current() if a.version in judged}
        self._l.metrics.profiles(held)
