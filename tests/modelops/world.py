"""A small world for tests of modelops: events whose concept changes, a configuration, signed webhooks, a sidecar."""

import base64
import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SECRET = "whsec_" + base64.b64encode(b"a secret of tests, 32 bytes long").decode()
TOKEN = "token-of-tests"
REGIONS = ("north", "south", "west")

RECIPE = {
    "data": {
        "features": {"age": "numeric", "income": "numeric", "region": "categorical"},
        "window": "10s",
        "min_rows": 600,
        "patience": "1h",
    },
    "model": {"parameters": {"max_iter": 30}},
    "gate": {"segments": ["region"], "resamples": 200},
    "profile": {"sizes": [200], "mmd_rows": 0},
    "rollout": {
        "observe": "1s",
        "min_requests": 20,
        "watch": "1s",
        "steps": [0.2, 0.5],
        "min_labels": 200,
        "max_latency_ratio": 1000,
    },
}


def features(n: int, seed: int) -> list[dict[str, Any]]:
    """n rows of features."""
    rng = np.random.default_rng(seed)
    age, income = rng.normal(40, 12, n).round(1), rng.lognormal(10, 0.5, n).round(0)
    regions = rng.choice(REGIONS, n)
    return [
        {"age": a, "income": i, "region": r}
        for a, i, r in zip(age.tolist(), income.tolist(), regions.tolist(), strict=True)
    ]


def label(row: dict[str, Any], rng: np.random.Generator, *, changed: bool) -> int:
    """A label of a row; where the concept has changed, age means the opposite."""
    z = (row["age"] - 40) / 12 * (-1.5 if changed else 1.5) + 0.8 * (np.log(row["income"]) - 10) / 0.5
    return int(rng.random() < 1 / (1 + np.exp(1.2 - z)))


def write_events(path: Path, n: int, seed: int, *, start_s: float, changed: bool, step_s: float = 0.1) -> None:
    """Appends labelled prediction events, one every `step_s`."""
    rng = np.random.default_rng(seed + 1)
    with path.open("a") as file:
        for i, row in enumerate(features(n, seed)):
            event = {"id": f"e{seed}-{i}", "time": start_s + i * step_s, "model": "credit", "version": "1"}
            event |= {"features": row, "prediction": 0.5, "label": label(row, rng, changed=changed)}
            file.write(json.dumps(event) + "\n")


def make_folder(folder: Path, *, recipe: dict[str, Any] | None = None, entry: dict[str, Any] | None = None) -> Path:
    """A configuration with its recipe and secret; its path. `recipe` replaces values of sections."""
    folder.mkdir(parents=True, exist_ok=True)
    merged = {name: dict(section) for name, section in RECIPE.items()}
    for name, section in (recipe or {}).items():
        merged[name] = merged.get(name, {}) | section
    (folder / "credit.yaml").write_text(json.dumps(merged))
    (folder / "secret").write_text(SECRET)
    (folder / "token").write_text(TOKEN)
    model = {"recipe": "credit.yaml", "predictions": "log/predictions.jsonl", "labels": "log/labels.jsonl"}
    config = {
        "api": {"port": 0},
        "router": {"port": 0},
        "webhook": {"secret_files": ["secret"], "per_minute": 10_000},
        "models": {"credit": model | (entry or {})},
        "state": {"folder": "state"},
        "tick": "0.1s",
    }
    path = folder / "modelops.yaml"
    path.write_text(json.dumps(config))
    return path


def alarm_body(
    *, start: str, version: str = "1", kind: str = "concept", transition: str = "opened", alarm: str = "a1", **more: Any
) -> tuple[str, bytes]:
    """A webhook's id and body, as driftwatch writes them."""
    webhook_id = f"{alarm}:{transition}"
    data = {
        "model": "credit",
        "version": version,
        "window": {"model": "credit", "version": version, "start": start, "end": start, "n_records": 9},
        "transition": transition,
        "kind": kind,
        "pattern": "abrupt",
        "started_at": start,
        "features": [],
        "suggestion": "retrain",
        "links": {},
    }
    kind_of_alarm = more.pop("alarm_class", "drift")
    event = {
        "specversion": "1.0",
        "id": webhook_id,
        "type": f"driftwatch.{kind_of_alarm}.{transition}",
        "source": "/driftwatch/credit",
        "time": start,
        "subject": f"credit/{version}",
        "datacontenttype": "application/json",
        "data": data | more,
    }
    return webhook_id, json.dumps(event).encode()


def signed(webhook_id: str, body: bytes, *, now_s: float, secret: str = SECRET) -> dict[str, str]:
    """The headers of a webhook."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{webhook_id}.{int(now_s)}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now_s)),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
        "content-type": "application/cloudevents+json",
    }


class Sidecar(http.server.ThreadingHTTPServer):
    """Takes and gives profiles as driftwatch does; `is_down` answers 503."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Desk)
        self.profiles: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.is_down = False

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Desk(http.server.BaseHTTPRequestHandler):
    server: Sidecar

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        version = self.path.rpartition("/")[2]
        found = self.server.profiles.get(version)
        if self.server.is_down:
            self._answer(503, {})
        elif found is None:
            self._answer(404, {})
        else:
            self._answer(200, {"id": hashlib.sha256(found).hexdigest()[:32], "version": version})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {})
        elif self.server.is_down:
            self._answer(503, {})
        else:
            version = self.path.rpartition("/")[2]
            self.server.profiles[version] = data
            self.server.puts.append(version)
            self._answer(201, {})

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def sidecar() -> Iterator[Sidecar]:
    """A sidecar while it is needed."""
    server = Sidecar()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
