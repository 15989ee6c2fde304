"""The metrics of the service and of the model server, each defined once. No ids and no values of users as labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

VERSION = ("model", "version")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ServerMetrics:
    """What a model server exports."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.predictions = Counter("model_predictions", "Predictions answered.", VERSION, registry=registry)
        self.latency = Histogram(
            "prediction_latency_seconds", "Time to an answer.", VERSION, registry=registry, buckets=SECONDS
        )
        self.errors = Counter("model_server_errors", "Requests not answered.", ["model", "status"], registry=registry)
        self.unlogged = Counter("model_server_unlogged", "Predictions that no log took.", VERSION, registry=registry)
        self.delivered = Counter(
            "model_server_delivered_rows",
            "Rows of the log that a receiver took.",
            ["model", "receiver"],
            registry=registry,
        )
        self.dropped = Counter(
            "model_server_dropped_rows", "Rows that a receiver will never have.", ["model", "receiver", "reason"],
            registry=registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "model_server_waiting_bytes", "Bytes of the log that wait for a receiver.", ["model", "receiver"],
            registry=registry,
        )  # fmt: skip
        self.batch = Histogram(
            "model_server_batch_rows", "Rows predicted at once.", VERSION, registry=registry, buckets=BATCHES
        )


class ServiceMetrics:
    """What the service exports."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.webhooks = Counter(
            "modelops_webhooks", "Webhooks by their answer's status.", ["status"], registry=registry
        )
        self.jobs = Gauge("modelops_jobs", "Jobs by state.", ["state"], registry=registry)
        self.champion = Gauge("modelops_champion_version", "The version in service.", ["model"], registry=registry)
        self.share = Gauge("modelops_traffic_share", "A version's share of requests.", VERSION, registry=registry)
        self.rollout = Gauge("modelops_rollout_open", "1 in the phase that a rollout is in.", ["model", "phase"],
                             registry=registry)  # fmt: skip
        self.requests = Counter(
            "modelops_router_requests", "Requests of the router.", [*VERSION, "outcome"], registry=registry
        )
        self.latency = Histogram(
            "modelops_router_latency_seconds", "Time to an answer.", VERSION, registry=registry, buckets=SECONDS
        )
        self.mirrored = Counter(
            "modelops_router_mirrored", "Copies by outcome.", ["model", "outcome"], registry=registry
        )
        self.accuracy = Gauge(
            "model_accuracy", "Share of labelled live requests that were answered right, at 0.5.", VERSION,
            registry=registry,
        )  # fmt: skip
        self.auc = Gauge("model_roc_auc", "AUC by the labels of live requests.", VERSION, registry=registry)
        self.labelled = Gauge("model_labelled_requests", "Requests behind it.", VERSION, registry=registry)
        self.lost = Gauge("modelops_state_lost", "1 where the state file was deleted or replaced.", registry=registry)
        self.undelivered = Gauge(
            "modelops_profiles_undelivered", "Profiles that a sidecar lacks.", ["model"], registry=registry
        )
