"""The service's own HTTP interface: webhooks in, and what there is to read. Nothing else is changed through it."""

from collections.abc import Callable

import msgspec
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from modelops import asgi
from modelops.config import Config
from modelops.errors import DataError, Refused, StateError
from modelops.job_queue import JobQueue
from modelops.metrics import ServiceMetrics
from modelops.receiver import Receiver
from modelops.registry import Registry
from modelops.results import described
from modelops.rollouts import Rollouts
from modelops.tokens import Tokens

OPEN = frozenset({"/v1/hooks/driftwatch", "/livez", "/readyz", "/metrics"})
UNAVAILABLE_S = 5  # after which a webhook that could not be kept is to come again


def make_app(
    config: Config,
    receiver: Receiver,
    parts: tuple[JobQueue, Registry, Rollouts],
    metrics: ServiceMetrics,
    *,
    missing: Callable[[], list[str]],
) -> asgi.App:
    """The app. `missing`: what keeps the service from being ready. Raises ConfigError where tokens cannot be read.

    Webhooks are signed, probes and metrics are for machines: the others ask for a bearer token where there are any.
    """
    queue, registry, rollouts = parts

    async def hook(request: Request) -> Response:
        address = request.client.host if request.client else ""
        length = request.headers.get("content-length", "")
        try:
            receiver.admit(address, int(length) if length.isdigit() else None)
            body = await asgi.body_of(request, receiver.max_body)
            receipt = receiver.receive(request.headers, body)
        except Refused as refused:
            metrics.webhooks.labels(str(refused.status)).inc()
            return asgi.problem(refused)
        except StateError as error:
            metrics.webhooks.labels("503").inc()
            return asgi.problem(Refused(503, str(error), retry_after_s=UNAVAILABLE_S))
        status = 202 if receipt.is_new else 200
        metrics.webhooks.labels(str(status)).inc()
        return asgi.json_response({"job": receipt.job, "said": receipt.said, "new": receipt.is_new}, status)

    async def jobs(request: Request) -> Response:
        found = queue.jobs(request.query_params.get("model"))
        return asgi.json_response([msgspec.to_builtins(job) for job in found])

    async def job(request: Request) -> Response:
        try:
            return asgi.json_response(described(config, queue.get(request.path_params["id"])))
        except (StateError, DataError) as error:
            return asgi.problem(Refused(404 if isinstance(error, StateError) else 500, str(error)))

    async def models(request: Request) -> Response:
        return asgi.json_response(
            {
                name: {"aliases": registry.aliases(name), "versions": msgspec.to_builtins(registry.versions(name))}
                for name in config.models
            }
        )

    async def shown_rollouts(request: Request) -> Response:
        return asgi.json_response(msgspec.to_builtins(rollouts.rollouts(request.query_params.get("model"))))

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        said = missing()
        return PlainTextResponse("\n".join(said or ["ok"]) + "\n", 503 if said else 200)

    async def shown_metrics(request: Request) -> Response:
        for state, count in queue.counts().items():
            metrics.jobs.labels(state).set(count)
        return PlainTextResponse(generate_latest(metrics.registry))

    app = Starlette(
        routes=[
            Route("/v1/hooks/driftwatch", hook, methods=["POST"]),
            Route("/v1/jobs", jobs),
            Route("/v1/jobs/{id}", job),
            Route("/v1/models", models),
            Route("/v1/rollouts", shown_rollouts),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", shown_metrics),
        ]
    )
    return app if config.api.token_file is None else guarded(app, Tokens(config.api.token_file))


def guarded(app: asgi.App, tokens: Tokens) -> asgi.App:
    """The app, with everything that is read asking for a token."""

    async def guard(scope: asgi.Message, receive: asgi.Receive, send: asgi.Send) -> None:
        given = next((value for name, value in scope["headers"] if name.lower() == b"authorization"), b"")
        if scope["path"] in OPEN or tokens.admit(given.decode("latin-1")):
            await app(scope, receive, send)
            return
        refusal = asgi.problem(Refused(401, "`Authorization` must be `Bearer TOKEN` with a token of `api.token_file`."))
        refusal.headers["WWW-Authenticate"] = "Bearer"
        await refusal(scope, receive, send)

    return guard
