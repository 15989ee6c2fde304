"""The router: who gets which request, what a switch, a mirror and a dead server do to those under way."""

import asyncio
import contextlib
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra modelops")
pytest.importorskip("uvicorn", reason="needs the extra modelops")

import aiohttp

from modelops import asgi, copies
from modelops.metrics import ServiceMetrics
from modelops.rollout import Traffic
from modelops.router import Router, Table, Target, choose

PATH = "/v1/models/credit:predict"


class Backend:
    """A model server that says which it is; it may hang, fail or refuse."""

    def __init__(self, name: str) -> None:
        self.name, self.requests, self.status = name, [], 200
        self.requests: list[dict[str, str]]
        self.bodies: list[bytes] = []
        self.answer = b""
        self.gate: asyncio.Event | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        self.requests.append({name.decode(): value.decode() for name, value in scope["headers"]})
        if self.gate is not None:
            await self.gate.wait()
        body = self.answer or json.dumps({"version": self.name}).encode()
        await send(
            {"type": "http.response.start", "status": self.status, "headers": [(b"content-type", b"application/json")]}
        )
        await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    listener = asgi.listen("127.0.0.1", 0)
    server = asgi.server(app)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


class World:
    """A router over two backends, and a client."""

    def __init__(self, router: Router, url: str, session: Any, backends: list[Backend], urls: list[str]) -> None:
        self.router, self.url, self.session, self.backends, self.urls = router, url, session, backends, urls

    def target(self, version: int, share: float = 1.0) -> Target:
        return Target(version, self.urls[version - 1], share)

    async def ask(self, i: int = 0, path: str = PATH, **headers: str) -> tuple[int, Any]:
        body = json.dumps({"instances": [{}], "id": f"r{i}"}).encode()
        async with self.session.post(self.url + path, data=body, headers=headers) as answer:
            return answer.status, json.loads(await answer.read())


def in_world(test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        backends, router = [Backend("1"), Backend("2")], Router(ServiceMetrics())
        async with contextlib.AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(serving(backend)) for backend in backends]
            url = await stack.enter_async_context(serving(router))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            stack.push_async_callback(router.close)
            for backend in backends:
                stack.callback(lambda b=backend: b.gate.set() if b.gate else None)
            await asyncio.wait_for(test(World(router, url, session, backends, urls)), 60)

    asyncio.run(run())


def test_keys_stay_where_they_are_as_a_share_grows() -> None:
    keys = [f"key-{i}" for i in range(4000)]
    before: set[str] = set()
    for share in (0.05, 0.25, 0.5, 1.0):
        targets = (Target(1, "", 1 - share), Target(2, "", share))
        now = {key for key in keys if choose(targets, key).version == 2}
        assert before <= now
        assert len(now) / len(keys) == pytest.approx(share, abs=0.03)
        before = now


def test_a_split_is_sticky_by_id_or_routing_key() -> None:
    async def test(world: World) -> None:
        world.router.switch("credit", Table((world.target(1, 0.5), world.target(2, 0.5))))
        first = [(await world.ask(i))[1]["version"] for i in range(40)]
        assert [(await world.ask(i))[1]["version"] for i in range(40)] == first
        assert set(first) == {"1", "2"}
        keyed = {(await world.ask(i, **{"x-routing-key": "same"}))[1]["version"] for i in range(20)}
        assert len(keyed) == 1
        tally = world.router.tally("credit")
        assert tally[1].requests + tally[2].requests == 100
        world.router.restart("credit")
        assert world.router.tally("credit") == {}

    in_world(test)


def test_a_switch_under_load_fails_no_request_and_takes_effect_at_once() -> None:
    async def test(world: World) -> None:
        world.router.switch("credit", Table((world.target(1),)))
        found: Counter[tuple[int, str]] = Counter()
        stop = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                status, answer = await world.ask()
                found[status, answer["version"]] += 1

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for i in range(20):
            await asyncio.sleep(0.01)
            world.router.switch("credit", Table((world.target(1 + i % 2),)))
        stop.set()
        await asyncio.gather(*clients)
        assert found.keys() == {(200, "1"), (200, "2")}
        world.router.switch("credit", Table((world.target(1),)))
        assert (await world.ask())[1] == {"version": "1"}

    in_world(test)


def test_a_mirror_that_hangs_delays_and_changes_nothing() -> None:
    async def test(world: World) -> None:
        world.backends[1].gate = asyncio.Event()
        world.router.switch("credit", Table((world.target(1),), mirror=world.target(2, 0.0)))
        answers = [await world.ask(i) for i in range(300)]
        assert answers == [(200, {"version": "1"})] * 300
        assert world.router.tally("credit")[1].requests == 300

    in_world(test)


def test_while_a_mirror_hangs_one_bundle_is_under_way_and_few_copies_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "WAIT_S", 0.001)
    monkeypatch.setattr(copies, "MOST", 50)

    async def test(world: World) -> None:
        gate = world.backends[1].gate = asyncio.Event()
        world.backends[1].answer = b'{"answered": 1, "failed": 0}'
        world.router.switch("credit", Table((world.target(1),), mirror=world.target(2, 0.0)))
        for i in range(200):
            await world.ask(i)
        assert len(world.backends[1].bodies) == 1
        first = len(copies.decode(world.backends[1].bodies[0]))
        gate.set()
        while world.router.tally("credit").get(2, Traffic()).requests < first + 50:
            await asyncio.sleep(0.01)
        sent = [copy for body in world.backends[1].bodies for copy in copies.decode(body)]
        assert [json.loads(copy.body)["id"] for copy in sent] == [f"r{i}" for i in range(first + 50)]

    in_world(test)


def test_every_request_is_copied_once_in_few_bundles() -> None:
    async def test(world: World) -> None:
        world.router.switch("credit", Table((world.target(1),), mirror=world.target(2, 0.0)))
        world.backends[1].answer = b'{"answered": 1, "failed": 0}'
        for i in range(100):
            await world.ask(i)
        while world.router.tally("credit").get(2, Traffic()).requests < 100:
            await asyncio.sleep(0.01)
        sent = [copy for body in world.backends[1].bodies for copy in copies.decode(body)]
        assert [json.loads(copy.body)["id"] for copy in sent] == [f"r{i}" for i in range(100)]
        assert {copy.path for copy in sent} == {PATH}
        assert [copy.id for copy in sent] == [headers["x-request-id"] for headers in world.backends[0].requests]
        assert len(world.backends[1].bodies) < 50
        assert world.router.tally("credit")[2].errors == 0
        world.router.switch("credit", Table((world.target(1),), mirror=Target(3, "http://127.0.0.1:9", 0.0)))
        assert (await world.ask())[0] == 200
        while world.router.tally("credit").get(3, Traffic()).errors < 1:
            await asyncio.sleep(0.01)

    in_world(test)


def test_a_request_whose_server_is_gone_is_answered_by_a_spare() -> None:
    async def test(world: World) -> None:
        gone = Target(2, "http://127.0.0.1:9", 1.0)
        world.router.switch("credit", Table((gone,), (world.target(1, 0.0),)))
        assert await world.ask() == (200, {"version": "1"})
        tally = world.router.tally("credit")
        assert (tally[2].errors, tally[1].errors) == (1, 0)
        assert [await world.ask() for _ in range(3)] == [(200, {"version": "1"})] * 3
        assert world.router.tally("credit")[2].errors == 1  # for a while the other one is asked first
        world.router.switch("credit", Table((gone,)))
        status, answer = await world.ask()
        assert (status, "no model server" in answer["detail"]) == (503, True)

    in_world(test)


def test_where_no_server_is_known_to_be_ready_the_spares_are_asked() -> None:
    async def test(world: World) -> None:
        world.router.switch("credit", Table((), (world.target(1, 0.0), world.target(2, 0.0))))
        assert await world.ask() == (200, {"version": "1"})
        async with world.session.get(f"{world.url}/readyz") as answer:
            assert answer.status == 503

    in_world(test)


def test_an_error_of_a_server_is_its_answer_and_is_counted() -> None:
    async def test(world: World) -> None:
        world.backends[0].status = 500
        world.router.switch("credit", Table((world.target(1),), (world.target(2, 0.0),)))
        assert (await world.ask())[0] == 500
        assert world.router.tally("credit")[1].errors == 1
        assert world.backends[1].requests == []

    in_world(test)


def test_what_is_not_there_is_said() -> None:
    async def test(world: World) -> None:
        assert (await world.ask(path="/v1/models/other:predict"))[0] == 404
        assert (await world.ask(path="/nothing"))[0] == 404
        world.router.switch("credit", Table(()))
        assert (await world.ask())[0] == 503
        async with world.session.get(f"{world.url}/readyz") as answer:
            assert answer.status == 503
        world.router.switch("credit", Table((world.target(1),)))
        async with world.session.post(world.url + PATH, data=io.BytesIO(b"x" * (8 << 20) + b"x")) as answer:
            assert answer.status == 413

    in_world(test)
