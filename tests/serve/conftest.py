"""A listener on a free port, raw clients for it, and the rest of the server reduced to what the routes need."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.types import ASGIApp

from streamgauge.auth.authorities import Authorities
from streamgauge.auth.cluster_access import ClusterAccess
from streamgauge.auth.tokens import Tokens, added, new_token, without
from streamgauge.clock import Clock, ManualClock
from streamgauge.errors import ConfigError, NotFound, Overloaded
from streamgauge.ingest.admission import InFlight
from streamgauge.ingest.events import EventLimits, Events
from streamgauge.ingest.influx import InfluxWrite, Written
from streamgauge.ingest.scrape.pool import ScrapePool
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata
from streamgauge.model.token import StoredToken
from streamgauge.query.requests import Answer, FederateQuery, Job, RunningQuery
from streamgauge.serve.app import PROMPT_PATHS, build_app
from streamgauge.serve.connections import ConnectionLimits
from streamgauge.serve.prompt import Prompts
from streamgauge.serve.server import HttpServer
from streamgauge.serve.services import ConfigNumbers, HttpOptions, Replay, StoreNumbers
from streamgauge.serve.sessions import Sessions
from streamgauge.serve.stats import HttpStats
from streamgauge.stats import Stats
from streamgauge.testing.event_sink import MemoryEventSink
from streamgauge.testing.push_receiver import receiver_of
from streamgauge.testing.sink import MemorySink
from streamgauge.wire.influx_lines import Precision


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class InProcessWorkers:
    """Answers every job at once with the query's repr, except for queries whose text asks for something else."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()  # a query was stopped before its end
        self.cancelled: list[int] = []

    async def run(self, job: Job) -> Answer:
        self.jobs.append(job)
        text = job.query.matches[0] if isinstance(job.query, FederateQuery) else getattr(job.query, "query", "")
        if text == "too many":
            raise Overloaded("20 queries wait already", retry_after=3)
        if text == "waits":
            await self._hang()
        if text == "fails":
            body = b'{"status":"error","errorType":"execution","error":"many-to-many"}'
            return Answer(422, "application/json", "identity", self._pieces(body))
        if text == "dies":
            return Answer(200, "application/json", "identity", self._dies())
        if text == "streams":
            return Answer(200, "application/json", "identity", self._streams())
        kind = (
            "text/plain; version=0.0.4; charset=utf-8" if isinstance(job.query, FederateQuery) else "application/json"
        )
        body = json.dumps({"status": "success", "data": repr(job.query)}).encode()
        return Answer(200, kind, "identity", self._pieces(body))

    def running(self) -> list[RunningQuery]:
        return [RunningQuery(7, "up", 1_700_000_000_000, "running", 4711)]

    def cancel(self, query_id: int) -> bool:
        self.cancelled.append(query_id)
        return query_id == 7

    async def _hang(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()

    async def _pieces(self, body: bytes) -> AsyncGenerator[bytes, None]:
        half = len(body) // 2
        yield body[:half]
        yield body[half:]

    async def _dies(self) -> AsyncGenerator[bytes, None]:
        yield b'{"status":"success","data":['
        raise ConnectionError("the worker is gone")

    async def _streams(self) -> AsyncGenerator[bytes, None]:
        yield b'{"status":"success","data":['
        await self._hang()


@dataclass
class Reply:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=lambda: {"X-Prometheus-Remote-Write-Samples-Written": "2"})
    body: str = ""


class InProcessServices:
    """Services for the routes, all in memory."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.started_at = clock.now_ms() - 60_000
        self.workers = InProcessWorkers()
        self.access: ClusterAccess | None = None
        self.push_sink = MemorySink()
        self.pushes = receiver_of(self.push_sink, Stats(), ManualClock())
        self.authenticator = Authorities(clock, Tokens(), lambda reason: None)
        self.state = Replay(4, 4, True)
        self.known = [
            Metadata("up", "gauge", "Whether it is up."),
            Metadata("http_requests_total", "counter", "Requests.", "requests"),
            Metadata("http_requests_total", "counter", "Requests, otherwise described."),
        ]
        self.reply = Reply()
        self.takes_writes = False  # at once
        self.begun: list[tuple[Mapping[str, str], bytes]] = []
        self.written: list[tuple[Mapping[str, str], bytes]] = []
        self.imported: list[tuple[Mapping[str, str], bytes]] = []
        self.bindings: list[tuple[tuple[str, str], ...]] = []  # of those who wrote
        self.write_started = asyncio.Event()
        self.write_ended = asyncio.Event()
        self.bad_config = ""
        self.reloads = 0
        self.pools: dict[str, ScrapePool] = {}
        self.retention_bytes = 0
        self.last_event = 0
        self.folder_key = "a key"
        self.relays = None
        self.pins: list[str] = []
        self.made_tokens: Sequence[StoredToken] = ()
        self.snapshots: list[bool] = []  # for each that was asked for: without the head?
        self.deleted: list[tuple[Sequence[str], int, int]] = []
        self.cleaned = 0
        stats = Stats()
        self.event_sink = MemoryEventSink(clock)
        self.influx = InfluxWrite(self.push_sink, stats, clock, InFlight(1 << 20, stats), Turns())
        self.events = Events(
            self.event_sink, stats, clock, InFlight(1 << 20, stats), Turns(), EventLimits(1000, 0, 3, 10_000)
        )

    @property
    def cluster_access(self) -> ClusterAccess:
        if self.access is None:
            raise NotFound("nobody pushes to this server")
        return self.access

    async def remote_write(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], bound: tuple[tuple[str, str], ...] = ()
    ) -> Reply:
        self.bindings.append(bound)
        self.write_started.set()
        try:
            self.written.append((headers, b"".join([piece async for piece in body])))
            return self.reply
        finally:
            self.write_ended.set()

    def begin_remote_write(self, headers: Mapping[str, str], body: bytes, done: Callable[[Reply], None]) -> bool:
        if self.takes_writes:
            self.begun.append((headers, body))
            asyncio.get_running_loop().call_soon(done, self.reply)
        return self.takes_writes

    async def influx_write(
        self,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        precision: Precision,
        bound: tuple[tuple[str, str], ...] = (),
    ) -> Written:
        self.bindings.append(bound)
        return await self.influx.receive(headers, body, precision, bound)

    async def bulk_import(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], bound: tuple[tuple[str, str], ...] = ()
    ) -> Mapping[str, object]:
        self.bindings.append(bound)
        self.imported.append((dict(headers), b"".join([piece async for piece in body])))
        return {"stored": 2, "refused": {}, "examples": []}

    def scrape_pools(self) -> Mapping[str, ScrapePool]:
        return self.pools

    def metadata(self) -> Sequence[Metadata]:
        return self.known

    def replay(self) -> Replay:
        return self.state

    def store_numbers(self) -> StoreNumbers:
        return StoreNumbers(12, 3_456, 1, 15 * 86_400_000, self.retention_bytes, self.last_event)

    def config_numbers(self) -> ConfigNumbers:
        return ConfigNumbers(reloaded=True, loaded_at=self.started_at)

    def config_yaml(self) -> str:
        return "global: {}\n"

    def flags(self) -> Mapping[str, str]:
        return {"listen": "127.0.0.1:4318"}

    async def reload(self) -> None:
        if self.bad_config:
            raise ConfigError(self.bad_config)
        self.reloads += 1

    async def inspect(self, limit: int) -> Mapping[str, object]:
        return {"blocks": [], "limit": limit}

    def limits(self) -> Mapping[str, object]:
        return {"max_series_per_metric": "10", "refused": []}

    async def check(self) -> Mapping[str, object]:
        raise RuntimeError("a bug with /secret/path in it")

    async def pin(self) -> Mapping[str, object]:
        self.pins.append("7")
        return {"id": "7", "state": {}}

    def renew_pin(self, pin: str) -> None:
        if pin not in self.pins:
            raise NotFound("this pin has ended")

    def unpin(self, pin: str) -> None:
        self.pins.remove(pin)

    async def create_token(self, name, scopes, labels, expires):
        text, token = new_token(name, scopes, labels, self.clock.now_ms(), expires)
        self.made_tokens = added(self.made_tokens, token)
        return text, token

    def tokens(self) -> Sequence[StoredToken]:
        return self.made_tokens

    async def revoke_token(self, name: str) -> None:
        self.made_tokens = without(self.made_tokens, name)

    async def folder_snapshot(self, skip_head: bool) -> str:
        self.snapshots.append(skip_head)
        return "20261126T120000Z-0123456789abcdef"

    async def delete_series(self, matches: Sequence[str], start: int, end: int) -> None:
        self.deleted.append((matches, start, end))

    async def clean_tombstones(self) -> None:
        self.cleaned += 1

    def metrics_text(self) -> bytes:
        return b"# TYPE streamgauge_up gauge\nstreamgauge_up 1\n" * 100


@dataclass
class Served:
    """A running application."""

    server: HttpServer
    services: InProcessServices
    stats: HttpStats
    http: httpx.AsyncClient
    sessions: Sessions

    @property
    def authorities(self) -> Authorities:
        return self.services.authenticator


Serve = Callable[..., Awaitable[Served]]
Listen = Callable[..., Awaitable[HttpServer]]


@pytest.fixture
async def listen(clock: ManualClock) -> AsyncIterator[Listen]:
    """Serves an ASGI application with a clock that the test moves."""
    servers: list[HttpServer] = []

    async def start(app: ASGIApp, limits: ConnectionLimits | None = None, host: str = "127.0.0.1") -> HttpServer:
        prompts = Prompts(PROMPT_PATHS, app.begin) if hasattr(app, "begin") else None
        server = HttpServer(app, host, 0, clock=clock, limits=limits, prompts=prompts)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop(0)


@pytest.fixture
async def serve(clock: ManualClock, listen: Listen) -> AsyncIterator[Serve]:
    """Serves the whole application."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(options: HttpOptions | None = None) -> Served:
            services, stats = InProcessServices(clock), HttpStats()
            authorities = services.authenticator
            sessions = Sessions(clock, authorities, lambda: authorities.version)
            server = await listen(build_app(services, options, stats, sessions))
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30, trust_env=False)
            return Served(server, services, stats, await stack.enter_async_context(client), sessions)

        yield start


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve()


class RawClient:
    """Bytes over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send, and let the server see it. Loopback delivers in the call; the loop needs a few turns."""
        self._writer.write(data)
        await self._writer.drain()
        await settle()

    async def read_head(self) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 20)

    async def read(self, count: int) -> bytes:
        return await asyncio.wait_for(self._reader.readexactly(count), 20)

    async def read_all(self) -> bytes:
        """Everything until the server closes."""
        return await asyncio.wait_for(self._reader.read(), 20)

    async def is_reset(self) -> bool:
        """Whether the server broke the connection off; waits until it has closed it one way or the other."""
        try:
            await self.read_all()
        except ConnectionError:
            return True
        return False

    def abort(self) -> None:
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


Connect = Callable[[HttpServer], Awaitable[RawClient]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    clients: list[RawClient] = []

    async def open_client(server: HttpServer) -> RawClient:
        # A small buffer, so that a client that does not read is felt by the server.
        clients.append(RawClient(*await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 16)))
        await settle()
        return clients[-1]

    yield open_client
    for client in clients:
        await client.close()


@pytest.fixture
def assert_error() -> Callable[..., None]:
    """The one check of the API's error envelope."""

    def check(response: httpx.Response, status: int, kind: str, part: str) -> None:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/json"
        body = response.json()
        assert body.keys() == {"status", "errorType", "error"}
        assert (body["status"], body["errorType"]) == ("error", kind)
        assert part in body["error"]

    return check
