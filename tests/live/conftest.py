"""A real store, real query workers and a real listener in this process, with what a live tail needs of the rest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from streamgauge.auth.authenticator import Credentials
from streamgauge.auth.identity import EVERYBODY, Identity
from streamgauge.clock import ManualClock
from streamgauge.live.hub import Hub, TailLimits
from streamgauge.model.events import Stream
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.query.budget import Limits
from streamgauge.query.pool import WorkerPool
from streamgauge.query.requests import Job, SelectorsQuery
from streamgauge.serve.app import build_app
from streamgauge.serve.server import HttpServer
from streamgauge.serve.services import Replay
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.store import Store
from streamgauge.testing.lives import NOON, opened
from streamgauge.wire.sse import SseEvent, SseParser

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path) / "data"


class Reader:
    """One tail over HTTP, that reads when it is told to."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.parser = SseParser()
        self._lines = response.aiter_lines()

    async def next(self) -> SseEvent:
        async with asyncio.timeout(60):
            async for line in self._lines:
                if (event := self.parser.line(line)) is not None:
                    return event
        raise EOFError

    async def take(self, count: int) -> list[Any]:
        """So many events' or samples' JSON."""
        return [(await self.next()).json for _ in range(count)]

    async def begun(self) -> None:
        """Until it has been told where it stands."""
        async with asyncio.timeout(60):
            while not self.parser.id:
                self.parser.line(await anext(self._lines))

    async def comment(self) -> None:
        before = self.parser.comments
        async with asyncio.timeout(60):
            while self.parser.comments == before:
                assert self.parser.line(await anext(self._lines)) is None

    async def ended(self) -> bool:
        async with asyncio.timeout(60):
            return [line async for line in self._lines if line] == []


@dataclass
class Stand:
    """What tests drive."""

    clock: ManualClock
    store: Store
    maintenance: Maintenance
    hub: Hub
    workers: WorkerPool
    server: HttpServer
    http: httpx.AsyncClient
    stack: contextlib.AsyncExitStack

    @property
    def tails(self) -> Hub:
        return self.hub

    async def write(self, stream: Stream, first: int, *payloads: object) -> int:
        texts = [each if isinstance(each, str) else json.dumps(each) for each in payloads]
        return await self.store.events.append_events(
            stream, first, pa.array([text.encode() for text in texts], pa.binary())
        )

    def stream(self, name: str = "") -> Stream:
        if name:
            return self.store.events.resume_stream(name, "http", "{}")[0]
        return self.store.events.open_stream("http", "{}")

    async def tail(self, headers: dict[str, str] | None = None, **parameters: str | Sequence[str]) -> Reader:
        opening = self.http.stream("GET", "/api/v1/tail", params=parameters, headers=headers or {})
        response = await self.stack.enter_async_context(opening)
        assert response.status_code == 200, await response.aread()
        reader = Reader(response)
        if "since" not in parameters and not headers:
            await reader.begun()
        return reader


class ByToken:
    """An Authenticator: whoever has the token `a` or `b` is bound to that team, and everybody else sees everything."""

    async def identify(self, credentials: Credentials) -> Identity:
        for name in ("a", "b"):
            if list(credentials.authorization) == [f"Bearer {name}"]:
                return Identity(name, EVERYBODY.permissions, (("team", name),))
        return EVERYBODY


class _Services:
    """Of serve.services.Services what the route needs."""

    def __init__(self, clock: ManualClock, workers: WorkerPool, tails: Hub) -> None:
        self.clock, self.workers, self.tails = clock, workers, tails
        self.authenticator = ByToken()

    def replay(self) -> Replay:
        return Replay(1, 1, True)

    async def selectors(self, matches: Sequence[str]) -> list[list[Matcher]]:
        answer = json.loads(await self.workers.read(Job(SelectorsQuery(tuple(matches)), Limits())))
        return [[Matcher(name, MatchOp(op), value) for name, op, value in each] for each in answer["data"]]


MakeStand = Callable[..., Any]


@pytest.fixture
async def make_stand(data: Path) -> AsyncIterator[MakeStand]:
    async with contextlib.AsyncExitStack() as stack:

        async def make(limits: TailLimits | None = None, head_events: int = 131_072) -> Stand:
            clock = ManualClock(NOON)
            store, maintenance = await stack.enter_async_context(opened(data, clock, head_events=head_events))
            workers = WorkerPool(store.snapshot, workers=2)
            stack.push_async_callback(workers.close)
            hub = Hub(clock, store.index.keys_of, lambda: store.events.last_stored, limits)
            stack.callback(store.listen(hub))
            running = asyncio.create_task(hub.run())

            async def end() -> None:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

            stack.push_async_callback(end)
            services: Any = _Services(clock, workers, hub)
            server = HttpServer(build_app(services), "127.0.0.1", 0, clock=clock)
            await server.start()
            stack.push_async_callback(server.stop, 0.0)
            stack.callback(hub.close)
            http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False)
            await stack.enter_async_context(http)
            return Stand(clock, store, maintenance, hub, workers, server, http, stack)

        yield make


@pytest.fixture
async def stand(make_stand: MakeStand) -> Stand:
    return await make_stand()
