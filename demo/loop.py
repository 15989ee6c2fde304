"""The whole loop, in phases. What each waits for is an event of a service; only what does not come has a deadline."""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from demo import report, settings
from demo.processes import Children
from demo.story import ENDED, Story
from demo.traffic import Answered, Traffic, ask

CALM = 8  # windows that are judged ok on their labels before anything changes
AFTER_ROWS = 4000  # that the promoted version must have answered before it is judged
PATIENCE_S = 240.0  # for each phase, on a machine that has much else to do
LOOK_S = 0.2
AT_ONCE = 100  # rows in a request to the model that stayed
ATTEMPTS = 3  # of a command that was killed


class NotSeenError(Exception):
    """What was expected did not come."""


class Loop:
    """One run in a folder; nothing of it is left when it is left. `say` is told what happens."""

    def __init__(self, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        self.folder, self.seed, self.say = folder, seed, say
        self._story, self._read, self._first = Story(), 0, ""
        self._places = settings.write(folder, seed=seed)
        self._children = Children(folder, lambda line: say(f"restart     {line}"))
        self._traffic: Traffic | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._traffic is not None:
            self._traffic.stop()
        self._children.stop()

    def run(self) -> dict[str, Any]:
        """The result; everything runs on. Raises NotSeenError."""
        self._first = self._train()
        self._start()
        self._traffic = Traffic(self._places.router, self._places.log, seed=self.seed)
        self._calm()
        self._traffic.change()
        self._story.moments["changed"] = time.time()
        self.say("CHANGE      a recession, and debts are forgiven: incomes fall, more apply by phone, debts tell less")
        self._until("a job of modelops", lambda: self._story.job is not None)
        self._until("the job's end", lambda: self._job_state() in ENDED)
        unchanged = self._unchanged()
        if self._job_state() == "promoted":
            self._until("the alarms to be resolved", lambda: self._story.resolved)
            self._until(f"{AFTER_ROWS} rows of the new version", lambda: len(self._after()) >= AFTER_ROWS)
        return self._result(self._traffic, unchanged)

    def is_closed(self, made: Mapping[str, Any]) -> bool:
        """Whether the loop closed: promoted, resolved, and better than the model that stayed."""
        after, stayed = made["performance"]["after"], made["performance"]["no_retraining"]
        return self._job_state() == "promoted" and self._story.resolved and after > stayed

    def table(self, made: dict[str, Any]) -> list[str]:
        """The result for a person."""
        return report.table(made, self._story, {child.name: child.restarts for child in self._children.all})

    def where(self) -> list[str]:
        """Where everything listens."""
        at = self._places
        return [
            f"predictions    POST {at.router}/v1/models/credit:predict",
            f"modelops       {at.api}/v1/jobs, /v1/models, /v1/rollouts, /metrics",
            f"driftwatch     {at.sidecar}/metrics, /v1/profile/VERSION",
            f"files          {self.folder}: configurations, logs, state",
        ]

    def look(self) -> None:
        """Takes notice of what is new."""
        now_s = time.time()
        for decision in self._decisions():
            for line in self._story.decided(decision, now_s):
                self.say(line)
        jobs, rollouts = fetch(f"{self._places.api}/v1/jobs"), fetch(f"{self._places.api}/v1/rollouts")
        if jobs is not None and rollouts is not None:
            for line in self._story.worked(jobs, rollouts, now_s):
                self.say(line)

    def _train(self) -> str:
        """Trains the first model as anybody would; its version."""
        self.say(f"modelops    trains the first model on {settings.REFERENCE_ROWS:,} applications of calm days …")
        config, reference = str(self._places.config), str(self.folder / "reference.jsonl")
        command("modelops", "train", "credit", "-c", config, "--from", reference)
        listed = [
            json.loads(line) for line in command("modelops", "registry", "list", "-c", config, "--json").splitlines()
        ]
        champion = next(version for version in listed if "champion" in version["aliases"])
        first = str(champion["version"])
        settings.write_driftwatch(self._places, version=first, profile=champion["profile"])
        self.say(f"modelops    version {first}: AUC {champion['metrics']['roc_auc']:.3f} on rows held out")
        return first

    def _start(self) -> None:
        """Starts both services and waits until they serve."""
        at = self._places
        self._children.start("modelops", "modelops", "serve", "-c", str(at.config))
        self._children.start("driftwatch", "driftwatch", "run", "-c", str(at.driftwatch))
        self._until("modelops to be ready", lambda: fetch(f"{at.router}/readyz") is not None)
        self._until("driftwatch to be ready", lambda: fetch(f"{at.sidecar}/readyz") is not None)
        for line in self.where():
            self.say(line)

    def _calm(self) -> None:
        """Waits for windows that are ok on their labels."""
        self.say(f"traffic     begins; {CALM} windows of {settings.WINDOW} rows before anything changes")
        judged = self._story.judged_on_labels
        self._until("windows judged on their labels", lambda: len(judged.get(self._first, [])) >= CALM)

    def _unchanged(self) -> str:
        """Starts a model server that goes on with the first version, beside the loop; its address."""
        at = self._places
        port = str(settings.port_of(at.unchanged))
        words = ("predict", "-c", str(self.folder / "unchanged.yaml"), "--model", "credit")
        self._children.start("unchanged", "modelops", *words, "--version", self._first, "--port", port)
        self._until("a server of the first version", lambda: fetch(f"{at.unchanged}/readyz") is not None)
        return at.unchanged

    def _after(self) -> list[Answered]:
        """Rows that the promoted version answered once it was promoted."""
        since_s = self._story.moments.get("promoted", float("inf"))
        answered = [] if self._traffic is None else list(self._traffic.answered)
        return [a for a in answered if a.version != self._first and a.time_s > since_s]

    def _result(self, traffic: Traffic, unchanged: str) -> dict[str, Any]:
        after = self._after()
        scores: list[float] = []
        for start in range(0, len(after), AT_ONCE):
            scores += self._again(unchanged, [a.row for a in after[start : start + AT_ONCE]])
        figures = report.performance(list(traffic.answered), self._first, after, scores)
        models = fetch(f"{self._places.api}/v1/models") or {}
        requests = {"sent": traffic.sent, "failed": traffic.failed}
        return report.result(self._story, figures, requests, models.get("credit", {}))

    def _again(self, server: str, rows: list[dict[str, Any]]) -> list[float]:
        """The scores of rows at a server."""
        body = json.dumps({"instances": rows}).encode()
        with contextlib.closing(http.client.HTTPConnection(urlsplit(server).netloc, timeout=30)) as connection:
            answer: Any = None

            def answered() -> bool:
                nonlocal answer
                answer = ask(connection, "/v1/models/credit:predict", body)
                return answer is not None

            self._until("an answer of the first version", answered)
        return list(answer["predictions"])

    def _job_state(self) -> str:
        return "" if self._story.job is None else str(self._story.job["state"])

    def _decisions(self) -> Iterator[dict[str, Any]]:
        """Decisions that driftwatch has written since we looked; whole lines only, each once."""
        out = self.folder / "driftwatch.out"
        if not out.exists():
            return
        with out.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):  # half a line, of a process that was killed within it
                yield json.loads(line)

    def _until(self, what: str, is_there: Callable[[], bool]) -> None:
        """Looks until something is there. Raises NotSeenError."""
        until_s = time.monotonic() + PATIENCE_S
        while not is_there():
            gave_up = any(child.gave_up for child in self._children.all)
            if gave_up or time.monotonic() > until_s:
                words = "; ".join(f"{child.name} said: {child.last_words()}" for child in self._children.all)
                raise NotSeenError(f"{what} did not come within {PATIENCE_S:.0f} s. {words}")
            self.look()
            time.sleep(LOOK_S)


def command(*words: str) -> str:
    """What a command prints; one that was killed is run again. Raises NotSeenError."""
    for _ in range(ATTEMPTS):
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        if done.returncode > 0:
            break
    raise NotSeenError(f"`{' '.join(words[:3])}` ended with {done.returncode}: {done.stderr.strip()[-600:]}")


def fetch(url: str) -> Any:
    """The JSON or text at an address of this machine; None where there is no answer of 200."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=5)) as connection:
        try:
            connection.request("GET", parts.path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
    if answer.status != 200:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()
