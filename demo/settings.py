"""What both services are told: configurations, the recipe, secrets, and the rows that the first model learns of."""

import base64
import json
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from demo.stream import FEATURES, applications

REFERENCE_ROWS = 4000
WINDOW = 300  # rows of a window of driftwatch
LABELLED = 150  # fewer labelled rows of a window are not judged
STEPS = (0.1, 0.5)
OBSERVE_S, WATCH_S = 3, 5
OBSERVATION_S = len(STEPS) * OBSERVE_S + WATCH_S  # how long a challenger is looked at before it is kept

RECIPE: dict[str, Any] = {
    "data": {
        "features": FEATURES,
        "label": {"positive": 1, "wait": "30s"},
        "window": "2s",
        "min_rows": 2600,
        "min_of_class": 100,
        "patience": "5m",
    },
    "contract": {
        "columns": {
            "age": {"between": [18, 90], "max_missing": 0.01},
            "income": {"between": [0, 10_000_000], "max_missing": 0.05},
            "channel": {"values": ["web", "app", "branch", "phone"]},
        },
        "positive_share": [0.05, 0.8],
    },
    "model": {
        "kind": "hist_gradient_boosting",
        "parameters": {"max_iter": 60, "learning_rate": 0.08, "max_leaf_nodes": 8},
    },
    "training": {"hold_out": 0.25},
    "gate": {"segments": ["channel"]},
    "rollout": {
        "strategy": "canary",
        "steps": list(STEPS),
        "observe": f"{OBSERVE_S}s",
        "watch": f"{WATCH_S}s",
        "min_requests": 10,
        "min_labels": 400,
        "max_error_rate": 0.2,  # one may kill a model server while this runs: that says nothing of the version
        "max_latency_ratio": 100,
    },
    "profile": {"sizes": [LABELLED, WINDOW], "label": "defaulted", "mmd_rows": 0},
}


@dataclass(frozen=True, slots=True)
class Places:
    """The folder and where everything listens."""

    folder: Path
    api: str
    router: str
    sidecar: str
    unchanged: str

    @property
    def config(self) -> Path:
        """Of modelops."""
        return self.folder / "modelops.yaml"

    @property
    def driftwatch(self) -> Path:
        """Of driftwatch."""
        return self.folder / "driftwatch.yaml"

    @property
    def log(self) -> Path:
        """The prediction log: the model servers write to it, and whoever knows the labels; both services read it."""
        return self.folder / "log" / "predictions.jsonl"


def write(folder: Path, *, seed: int) -> Places:
    """Writes everything but the first model's profile, which driftwatch's configuration names."""
    places = Places(folder, *(f"http://127.0.0.1:{port}" for port in free_ports(4)))
    (folder / "log").mkdir()
    places.log.touch()
    (folder / "secret").write_text("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    (folder / "token").write_text(secrets.token_urlsafe())
    (folder / "credit.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    places.config.write_text(yaml.safe_dump(modelops(places, "log/predictions.jsonl"), sort_keys=False))
    # A model server that goes on with the first version needs a log of its own.
    (folder / "unchanged.yaml").write_text(yaml.safe_dump(modelops(places, "log/unchanged.jsonl"), sort_keys=False))
    made = applications(REFERENCE_ROWS, np.random.default_rng(seed + 1), changed=False)
    with (folder / "reference.jsonl").open("w") as file:
        for i, (row, label) in enumerate(zip(made.rows(), made.defaulted.tolist(), strict=True)):
            event = {"id": f"reference-{i}", "time": 1_767_571_200 + i, "features": row, "label": label}
            file.write(json.dumps(event) + "\n")
    return places


def modelops(places: Places, predictions: str) -> dict[str, Any]:
    """The configuration of modelops."""
    return {
        "api": {"port": port_of(places.api)},
        "router": {"port": port_of(places.router)},
        "webhook": {"secret_files": ["secret"]},
        "models": {
            "credit": {
                "recipe": "credit.yaml",
                "predictions": predictions,
                "sidecars": [{"url": places.sidecar, "token_file": "token"}],
                "policy": {"cooldown": "10s"},
            }
        },
        "state": {"folder": "modelops"},
        "tick": "0.2s",
    }


def write_driftwatch(places: Places, *, version: str, profile: str) -> None:
    """The configuration of driftwatch, with the profile that the first model carries."""
    config = {
        "model": {"name": "credit", "version": version},
        "source": {"kind": "file", "path": "log/predictions.jsonl", "follow": True},
        "events": {
            "features": FEATURES,
            "prediction": {"name": "score", "kind": "probability"},
            "label": {"name": "defaulted", "kind": "binary", "wait": "30s"},
        },
        "reference": {"profile": profile},
        "window": {"count": WINDOW, "min_records": LABELLED, "lateness": "1s"},
        "alarms": {"budget": "1 per 1000 windows"},
        "detectors": {"mmd": {"rows": 0}},
        "sinks": [
            {"kind": "log"},
            {"kind": "prometheus", "host": "127.0.0.1", "port": port_of(places.sidecar), "token_file": "token"},
            {
                "kind": "webhook",
                "url": f"{places.api}/v1/hooks/driftwatch",
                "secret_file": "secret",
                "on": ["*.opened", "*.resolved", "*.updated"],
                "allow_http": True,
                "allow_private": ["127.0.0.0/8"],
            },
        ],
        "state": {"path": "driftwatch/state.db"},
    }
    places.driftwatch.write_text(yaml.safe_dump(config, sort_keys=False))


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def port_of(url: str) -> int:
    """The port of an address."""
    return int(url.rpartition(":")[2])
