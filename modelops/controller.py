"""The controller: once a tick it looks at each model, advances its rollout, and brings the world to what is wanted.

The new state is kept before anything is done about it, and what is wanted is the whole of it each time: a controller
that is killed anywhere goes on at its next start.
"""

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from modelops import inputs
from modelops import recipe as recipes
from modelops import rollout as machine
from modelops.bootstrap import auc_with_error
from modelops.config import Config, ModelEntry
from modelops.data import Selection, Warehouse
from modelops.errors import ConfigError, DataError, ModelopsError, SidecarError, TooFewLabels
from modelops.gate import Verdict
from modelops.job import Job, RolloutEnded
from modelops.job_queue import JobQueue
from modelops.metrics import ServiceMetrics
from modelops.policy import DAY_S
from modelops.recipe import Recipe
from modelops.registry import Registry
from modelops.results import job_folder, read_result
from modelops.rollout import Observation, Performance, Rollout, Wanted
from modelops.rollouts import Rollouts
from modelops.router import Router, Table, Target
from modelops.servers import Servers
from modelops.sidecar import deliver

PERFORMANCE_S = 3.0  # between two looks at the labels of live requests in a rollout
WATCHED_S = 60.0  # and otherwise
DELIVERY_S = 5.0  # between two looks at a sidecar that had the profile
log = logging.getLogger("modelops")


@dataclass
class Delivery:
    """What is known of a version's profile at the sidecars: why it is not there (empty = it is), and when we looked."""

    missing: str = "not delivered yet"
    looked_s: float = 0.0
    task: asyncio.Task[None] | None = None


@dataclass
class Measured:
    """Performance of versions by the labels of live requests, and when it was measured."""

    found: dict[int, Performance] = field(default_factory=dict)
    looked_s: float = -math.inf
    task: asyncio.Task[None] | None = None

    def is_due(self, every_s: float) -> bool:
        """Whether it is time again, and the last time is over."""
        return time.monotonic() - self.looked_s >= every_s and (self.task is None or self.task.done())

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Measures now."""
        self.looked_s = time.monotonic()
        self.task = asyncio.create_task(work)


@dataclass
class Controller:
    """Looks after all models. Made once; `tick` is called again and again in one task."""

    config: Config
    queue: JobQueue
    registry: Registry
    rollouts: Rollouts
    servers: Servers
    router: Router
    metrics: ServiceMetrics
    session: aiohttp.ClientSession
    _deliveries: dict[tuple[str, int], Delivery] = field(default_factory=dict)
    _measured: dict[str, Measured] = field(default_factory=dict)  # in a rollout
    _watched: dict[str, Measured] = field(default_factory=dict)
    _said: dict[str, str] = field(default_factory=dict)
    _phases: dict[str, tuple[str, str, int]] = field(default_factory=dict)

    async def tick(self) -> None:
        """One look at every model; what goes wrong with one does not keep the others from theirs."""
        for name, entry in self.config.models.items():
            try:
                await self._look_after(name, entry)
                self._said.pop(name, None)
            except (ModelopsError, OSError) as error:
                if self._said.get(name) != str(error):  # once, not at every tick
                    log.warning("%s: %s", name, error)
                self._said[name] = str(error)

    def begin(self, job: Job) -> None:
        """Begins the rollout of a job's version, in the transaction in which it was registered."""
        champion = self.registry.alias(job.model, "champion")
        if champion is None or job.new_version is None:
            raise DataError(f"{job.model}: a rollout needs a champion; train one with `modelops train`.")
        recipe = recipes.load(self.config.model(job.model).recipe)
        self.rollouts.insert(
            machine.begin(
                id=job.id,
                model=job.model,
                strategy=recipe.rollout.strategy,
                champion=champion,
                challenger=job.new_version,
                expected=expected(self.config, job.id),
                now_s=time.time(),
            )
        )

    async def _look_after(self, model: str, entry: ModelEntry) -> None:
        champion = self.registry.alias(model, "champion")
        ready = await self.servers.ready(self.session, model)
        found = self.rollouts.open(model)
        if found is not None:
            wanted = self._advance(model, entry, *found, champion, ready)
        elif champion is not None:
            shares = ((champion, 1.0),) if champion in ready else ()
            route = machine.Route(shares, spares=(champion,))
            wanted = Wanted(frozenset({champion}), route, (champion,), champion, None)
            self._watch_labels(model, entry)
        else:
            return
        self._switch(model, wanted)
        self.registry.challenge(model, wanted.challenger)
        if champion is not None and wanted.champion != champion and found is not None:
            self.registry.swap(model, expected=champion, champion=wanted.champion)
        self.servers.want(model, wanted.servers)
        for version in wanted.profiles:
            self._deliver(model, entry, version)
        self.metrics.champion.labels(model).set(wanted.champion)

    def _advance(
        self,
        model: str,
        entry: ModelEntry,
        rollout: Rollout,
        command: machine.Command | None,
        champion: int | None,
        ready: frozenset[int],
    ) -> Wanted:
        recipe = recipes.load(entry.recipe)
        place = (rollout.id, rollout.phase, rollout.step)
        if self._phases.get(model) != place:  # also after a restart: the phase is observed from now on
            self.router.restart(model)
            self._phases[model] = place
        self._measure(model, entry, recipe, rollout)
        seen = Observation(
            champion=champion,
            ready=ready,
            undelivered=self._undelivered(model, entry, rollout.challenger),
            traffic=self.router.tally(model),
            performance=dict(self._measured[model].found),
            command=command,
        )
        after, wanted = machine.step(rollout, recipe.rollout, seen, time.time())
        if after != rollout or command is not None:
            self.rollouts.save(after, command, None if after.is_open else lambda: self._end(after))
        if after.phase != rollout.phase or after.step != rollout.step:
            log.info("%s: %s", model, after.log[-1])
        for phase in ("preparing", "replacing", "observing", "watching", "rolling_back"):
            self.metrics.rollout.labels(model, phase).set(after.phase == phase)
        return wanted

    def _end(self, rollout: Rollout) -> None:
        """Tells the job that began a rollout of its end, in the transaction that keeps it."""
        self._measured.pop(rollout.model, None)
        job = next((job for job in self.queue.jobs(rollout.model) if job.id == rollout.id), None)
        if job is not None:
            told = RolloutEnded(rollout.phase == "promoted", rollout.reason, rollout.reason == machine.ABORTED)
            self.queue.note(job.id, told, now_s=time.time())

    def _switch(self, model: str, wanted: Wanted) -> None:
        known = self.servers.known(model)
        shares = dict(wanted.route.shares)
        targets = tuple(Target(v, known[v].url, share) for v, share in sorted(shares.items()) if v in known)
        spares = tuple(Target(v, known[v].url, 0.0) for v in wanted.route.spares if v in known)
        mirror = wanted.route.mirror
        copies = None if mirror is None or mirror not in known else Target(mirror, known[mirror].url, 0.0)
        self.router.switch(model, Table(targets, spares, copies))
        for version in known:
            self.metrics.share.labels(model, str(version)).set(shares.get(version, 0.0))

    def _undelivered(self, model: str, entry: ModelEntry, version: int) -> str:
        if not entry.sidecars:
            return ""
        return self._deliveries.setdefault((model, version), Delivery()).missing

    def _deliver(self, model: str, entry: ModelEntry, version: int) -> None:
        """Looks, in a task, whether the sidecars have a version's profile, and puts it where they have not."""
        if not entry.sidecars:
            return
        delivery = self._deliveries.setdefault((model, version), Delivery())
        is_due = time.monotonic() - delivery.looked_s >= (DELIVERY_S if not delivery.missing else 1.0)
        if is_due and (delivery.task is None or delivery.task.done()):
            delivery.looked_s = time.monotonic()
            delivery.task = asyncio.create_task(self._put(model, entry, version, delivery))

    async def _put(self, model: str, entry: ModelEntry, version: int, delivery: Delivery) -> None:
        try:
            known = self.registry.get(model, version)
            for sidecar in entry.sidecars:
                path = Path(known.profile)
                if await deliver(self.session, sidecar, str(version), path, known.profile_hash):
                    log.info("%s: the profile of version %s was put to %s", model, version, sidecar.url)
            delivery.missing = ""
        except (SidecarError, ModelopsError) as error:
            if delivery.missing != str(error):
                log.warning("%s: the profile of version %s waits: %s", model, version, error)
            delivery.missing = str(error)
        self.metrics.undelivered.labels(model).set(
            sum(1 for (name, _), kept in self._deliveries.items() if name == model and kept.missing)
        )

    def _measure(self, model: str, entry: ModelEntry, recipe: Recipe, rollout: Rollout) -> None:
        """Measures performance, in a thread, where it may bear on the rollout."""
        measured = self._measured.setdefault(model, Measured())
        if rollout.phase in ("observing", "watching") and measured.is_due(PERFORMANCE_S):
            measured.begin(self._measured_in_thread(model, recipe, rollout.began_s, measured))

    def _watch_labels(self, model: str, entry: ModelEntry) -> None:
        """Measures, for the metrics, how well the requests were answered whose labels may have come lately."""
        measured = self._watched.setdefault(model, Measured())
        if measured.is_due(WATCHED_S):
            recipe = recipes.load(entry.recipe)
            since_s = time.time() - recipe.data.label.wait - DAY_S
            measured.begin(self._measured_in_thread(model, recipe, since_s, measured))

    async def _measured_in_thread(self, model: str, recipe: Recipe, since_s: float, measured: Measured) -> None:
        warehouse = Warehouse(self.config.state.folder)

        def scores() -> dict[str, np.ndarray]:
            with inputs.served(self.config, model) as files:
                return warehouse.live_scores(files, recipe.data, Selection(model, since_s))

        try:
            pairs = await asyncio.to_thread(scores)
        except TooFewLabels:
            return  # nothing was logged yet
        except (DataError, ConfigError) as error:
            log.warning("%s: live performance is unknown: %s", model, error)
            return
        measured.found = {
            int(v): p for v, rows in pairs.items() if v.isdigit() and (p := performance(rows)) is not None
        }
        for version, rows in pairs.items():
            self.metrics.labelled.labels(model, version).set(len(rows))
            self.metrics.accuracy.labels(model, version).set(float(np.mean((rows[:, 0] >= 0.5) == (rows[:, 1] == 1))))
        for number, found in measured.found.items():
            self.metrics.auc.labels(model, str(number)).set(found.auc)


def performance(rows: np.ndarray) -> Performance | None:
    """AUC of (scores, labels) rows and its standard error; None where a class has fewer than two."""
    positive, negative = np.sort(rows[rows[:, 1] == 1, 0]), np.sort(rows[rows[:, 1] != 1, 0])
    if min(len(positive), len(negative)) < 2:
        return None
    auc, error = auc_with_error(positive, negative)
    return Performance(auc, error, len(rows))


def expected(config: Config, job_id: str) -> float | None:
    """The challenger's AUC on the new rows at the gate; None where the gate judged by something else."""
    verdict = read_result(job_folder(config, job_id) / "gate.json", Verdict)
    if verdict is None or verdict.metric != "roc_auc":
        return None
    return next((line.challenger for line in verdict.comparisons if line.name == "new rows"), None)
