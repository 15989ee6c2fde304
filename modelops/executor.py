"""The executor: takes a job by lease, runs its steps in a subprocess with a deadline, and tells what came out.

The subprocess is in a session of its own and outlives a killed service; the next start finds its results.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from modelops import recipe as recipes
from modelops.config import Config
from modelops.errors import ConfigError, DataError, ModelopsError
from modelops.job import STEPS, Crashed, Done, Happening, Job, LabelsMissing, Registered, Rejected, Taken
from modelops.job_queue import JobQueue
from modelops.results import job_folder, read_result
from modelops.worker import OUTCOME, Outcome

LEASE_S = 30.0
LOOK_S = 0.2
LOG_TAIL = 400  # characters of the subprocess's log in a report


@dataclass
class Executor:
    """Runs one job at a time. `registered(job)` is called in the transaction in which a job registered its version."""

    config: Config
    config_path: Path
    queue: JobQueue
    registered: Callable[[Job], None]
    owner: str = field(default_factory=lambda: f"{os.uname().nodename}:{os.getpid()}:{time.time_ns()}")

    async def step(self) -> bool:
        """Runs the next due job, if there is one, until it waits or ends."""
        job = self.queue.take(self.owner, lease_s=LEASE_S, now_s=time.time())
        if job is None:
            return False
        try:
            await self._run(job)
        finally:
            self.queue.release(job.id, self.owner)
        return True

    async def _run(self, job: Job) -> None:
        folder = job_folder(self.config, job.id)
        folder.mkdir(parents=True, exist_ok=True)
        self._tell(job.id, Taken())
        try:
            recipe = recipes.load(self.config.model(job.model).recipe)
        except ConfigError as error:
            self._tell(job.id, Crashed(str(error), attempts=1))
            return
        (folder / OUTCOME).unlink(missing_ok=True)
        ended = await self._process(job, folder, recipe.training.deadline)
        self._note_steps(job.id, folder)
        try:
            outcome = read_result(folder / OUTCOME, Outcome)
        except DataError as error:
            outcome, ended = None, str(error)
        if outcome is None:
            self._tell(job.id, Crashed(f"{ended}{_tail(folder / 'log.txt')}", recipe.training.attempts))
        elif outcome.kind == "registered" and outcome.version is not None:
            try:
                self._tell(job.id, Registered(outcome.version, outcome.report), and_then=self.registered)
            except ModelopsError as error:
                self._tell(job.id, Rejected(f"version {outcome.version} is registered, but {error}"))
        elif outcome.kind == "labels":
            self._tell(job.id, LabelsMissing(outcome.report, recipe.data.patience))
        elif outcome.kind == "rejected":
            self._tell(job.id, Rejected(outcome.report))
        else:
            self._tell(job.id, Crashed(outcome.report, recipe.training.attempts))

    async def _process(self, job: Job, folder: Path, deadline_s: float) -> str:
        """Runs the subprocess to its end; how it ended, in words."""
        command = [sys.executable, "-m", "modelops", "work", "-c", str(self.config_path), job.id]
        with (folder / "log.txt").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, start_new_session=True)
        until_s = time.monotonic() + deadline_s
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), LOOK_S)
                if process.returncode is not None:
                    break
                self._note_steps(job.id, folder)
                if time.monotonic() > until_s:
                    process.kill()
                    await process.wait()
                    return f"training took longer than `training.deadline`, {deadline_s:g} s, and was ended."
                if not self.queue.renew(job.id, self.owner, lease_s=LEASE_S, now_s=time.time()):
                    process.kill()
                    await process.wait()
                    return "the lease of this job was taken over."
        finally:
            if process.returncode is None:  # the service ends: the next start goes on from the steps that are done
                process.kill()
        code = process.returncode
        if code < 0:
            return f"the training process was ended by {signal.Signals(-code).name}."
        return f"the training process ended with exit code {code}."

    def _note_steps(self, job_id: str, folder: Path) -> None:
        done = self.queue.get(job_id).done
        for step in STEPS:
            if step not in done and (folder / f"{step}.json").exists():
                self._tell(job_id, Done(step))

    def _tell(self, job_id: str, what: Happening, and_then: Callable[[Job], None] | None = None) -> None:
        self.queue.tell(job_id, what, now_s=time.time(), and_then=and_then)


def _tail(path: Path) -> str:
    """The end of a log, for a report."""
    try:
        text = path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
    return f" Its log ends: {' '.join(text[-LOG_TAIL:].split())}" if text else ""
