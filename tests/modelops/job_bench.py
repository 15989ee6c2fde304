"""A job over a champion, for tests of what happens in its subprocess."""

import asyncio
import time
from pathlib import Path
from typing import Any

from modelops.config import load
from modelops.executor import Executor
from modelops.job import Action, Job
from modelops.job_queue import JobQueue
from modelops.state import connect
from tests.modelops import served_model, world

START_S = 1_800_000_000.0


class Bench:
    """An executor over a champion and one job."""

    def __init__(
        self, folder: Path, recipe: dict[str, Any], *, n_events: int, kind: str = "concept", action: Action = "retrain"
    ) -> None:
        self.config_path = world.make_folder(folder, recipe=recipe)
        served_model.register(self.config_path)
        self.config = load(self.config_path)
        self.database = connect(self.config.database)
        self.queue = JobQueue(self.database, self.config.database)
        (folder / "log").mkdir()
        if n_events:
            world.write_events(folder / "log" / "predictions.jsonl", n_events, 2, start_s=START_S, changed=True)
        now_s = time.time()
        job = Job(
            id="the-job", model="credit", version="1", kind=kind, action=action, alarm_id="a", started_s=START_S,
            created_s=now_s, due_s=now_s,
        )  # fmt: skip
        self.queue.add(job)

    def close(self) -> None:
        """Closes the state."""
        self.database.close()

    def step(self) -> Job:
        """One step of the executor; the job after it."""
        executor = Executor(self.config, self.config_path, self.queue, registered=lambda job: None)
        assert asyncio.run(executor.step())
        return self.queue.get("the-job")
