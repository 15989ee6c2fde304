"""`modelops serve`: composes the service from its configuration. Receiver, queue, executor, controller and router."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp

from modelops import asgi, signature
from modelops import recipe as recipes
from modelops.api import make_app
from modelops.config import Config, read_secret
from modelops.controller import Controller
from modelops.errors import ModelopsError, StateError
from modelops.executor import Executor
from modelops.job_queue import JobQueue
from modelops.metrics import ServiceMetrics
from modelops.policy import Limits
from modelops.receiver import Rate, Receiver
from modelops.registry import Registry
from modelops.results import write
from modelops.rollouts import Rollouts
from modelops.router import Router
from modelops.servers import Servers
from modelops.state import connect, lock

STILL_S = 30.0  # a controller that has not ticked for longer is not alive
MIRROR_S = 10.0
BUSY_S = 2.0  # of a locked state file: probes are to be answered meanwhile
READY_S = 30.0  # at most; until champions answer, requests wait in the router's socket
log = logging.getLogger("modelops")


async def serve(config: Config, config_path: Path) -> None:
    """Serves until SIGTERM or SIGINT. Raises ModelopsError where it cannot begin."""
    for entry in config.models.values():
        recipes.load(entry.recipe)
    keys = [signature.decode_key(read_secret(path)) for path in config.webhook.secret_files]
    lock(config.database.with_suffix(".lock"))
    database = connect(config.database, busy_s=BUSY_S)
    opened = os.stat(config.database)
    parts = (
        JobQueue(database, config.database),
        Registry(database, config.database),
        Rollouts(database, config.database),
    )
    queue, registry, rollouts = parts
    queue.forget_leases()
    metrics = ServiceMetrics()
    router = Router(metrics)
    servers = Servers(database, config.database, config_path, config.state.folder / "servers")
    async with aiohttp.ClientSession() as session:
        controller = Controller(config, queue, registry, rollouts, servers, router, metrics, session)
        executor = Executor(config, config_path, queue, controller.begin)
        limits = {n: Limits(e.policy.cooldown, e.policy.max_per_day) for n, e in config.models.items()}
        receiver = Receiver(queue, keys, limits, Rate(config.webhook.per_minute), config.webhook.max_body)
        ticked_s, is_lost = time.monotonic(), False
        is_ready = threading.Event()

        def missing() -> list[str]:
            still_s = time.monotonic() - ticked_s
            return [f"the controller has not ticked for {still_s:.0f} s"] if still_s > STILL_S else []

        async def tick() -> None:
            nonlocal ticked_s, is_lost
            was_lost, is_lost = is_lost, _is_lost(config.database, opened)
            if is_lost and not was_lost:
                log.error("%s is not the state that was opened: end the service and put it back.", config.database)
            metrics.lost.set(is_lost)
            await controller.tick()
            ticked_s = time.monotonic()
            if all(router.serves(name) or registry.alias(name, "champion") is None for name in config.models):
                is_ready.set()

        async def revive() -> None:
            for name, limit in limits.items():
                queue.revive(name, limit, now_s=time.time())

        async def mirror() -> None:
            if not registry.is_mirrored():
                await _mirror(config_path)

        api = make_app(config, receiver, parts, metrics, missing=missing)
        loops = [(tick, config.tick), (executor.step, config.tick), (revive, config.tick), (mirror, MIRROR_S)]
        try:
            await _serve_all(config, api, router, loops, is_ready)
        finally:
            servers.stop()
            database.close()


async def _serve_all(
    config: Config,
    api: asgi.App,
    router: Router,
    loops: Sequence[tuple[Callable[[], Awaitable[object]], float]],
    is_ready: threading.Event,
) -> None:
    """Both HTTP servers and the loops, until a signal.

    The router has a thread and a loop of its own: whatever holds the others up, a locked state file say, it routes on.
    """
    ours, given = {"api": config.api, "router": config.router}, asgi.handed_down()
    listeners = [given.get(name) or asgi.listen(at.host, at.port) for name, at in ours.items()]
    ports = {name: listener.getsockname()[1] for name, listener in zip(ours, listeners, strict=True)}
    write(config.state.folder / "ports.json", json.dumps(ports).encode())
    https = [asgi.server(api), asgi.server(router)]
    thread = ThreadPoolExecutor(1, "router")

    async def route() -> None:
        until_s = time.monotonic() + READY_S
        while not (is_ready.is_set() or https[1].should_exit) and time.monotonic() < until_s:
            await asyncio.sleep(0.05)
        try:
            await https[1].serve(sockets=[listeners[1]])
        finally:
            await router.close()

    def stop() -> None:
        for http in https:
            http.should_exit = True

    leaving: set[asyncio.Task[None]] = set()

    async def leave() -> None:
        await asyncio.gather(*(http.leave() for http in https))
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: leaving.add(asyncio.create_task(leave())))
    tasks = [asyncio.create_task(_again(step, pause_s)) for step, pause_s in loops]
    for task in tasks:  # a loop that ends has failed in a way that nobody foresaw: no service without it
        task.add_done_callback(lambda _: stop())
    log.info("webhooks at http://%s:%d, predictions at http://%s:%d", config.api.host, ports["api"],
             config.router.host, ports["router"])  # fmt: skip
    routed = asyncio.get_running_loop().run_in_executor(thread, asyncio.run, route())
    routed.add_done_callback(lambda _: stop())
    try:
        await https[0].serve(sockets=[listeners[0]])
    finally:
        stop()
        await routed
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task  # raises what ended it


def _is_lost(path: Path, opened: os.stat_result) -> bool:
    """Whether the state file is not the one that was opened: what is written to that one is lost at the end."""
    try:
        return not os.path.samestat(path.stat(), opened)
    except OSError:
        return True


async def _again(step: Callable[[], Awaitable[object]], pause_s: float) -> None:
    """Calls a step again and again; a step that says True has more to do at once."""
    while True:
        try:
            has_more = await step()
        except (ModelopsError, OSError) as error:
            log.warning("%s", error)
            has_more = False
        if has_more is not True:
            await asyncio.sleep(pause_s)


async def _mirror(config_path: Path) -> None:
    """Mirrors the registry to MLflow in a process of its own, which ends at once where there is nothing to do."""
    command = [sys.executable, "-m", "modelops", "registry", "mirror", "-c", str(config_path)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise StateError(f"the registry is not mirrored to MLflow: {said.decode('utf-8', 'replace')[-400:].strip()}")
