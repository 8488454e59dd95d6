"""Calls of the gRPC listener: how they end that do not end by themselves, and how each failure is told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from streamgauge.auth.authenticator import Credentials
from streamgauge.auth.identity import EVERYBODY, Identity
from streamgauge.auth.refused import Refused
from streamgauge.clock import ManualClock
from streamgauge.errors import (
    Corrupt,
    IndexFull,
    Overloaded,
    QueryTimeout,
    ReadOnly,
    StreamgaugeError,
    TimeNotAdmitted,
)
from streamgauge.ingest.admission import InFlight
from streamgauge.ingest.timeseries import TimeSeries
from streamgauge.ingest.turns import Turns
from streamgauge.query.requests import Answer, Job
from streamgauge.serve.rpc import calls
from streamgauge.serve.rpc.server import RpcServer
from streamgauge.serve.services import Replay
from streamgauge.serve.sessions import Sessions
from streamgauge.stats import Stats
from streamgauge.testing.readings import reading
from streamgauge.testing.sink import MemorySink
from streamgauge.testing.time_series import datum, wanted
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

ROW, FILTER = datum("m", [], 1.0, 1.0), wanted("m", [], 0.0, 1.0)
MESSAGE = "a message"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Site:
    """A listener with the rest of the server reduced to what calls need, and a connection to it."""

    def __init__(self) -> None:
        self.clock, self.sink, self.stats = ManualClock(), MemorySink(), Stats()
        self.version, self.known = 0, True
        self.identity = EVERYBODY
        self.failure: Exception | None = None  # with which queries fail
        self.held = asyncio.Event()
        self.held.set()
        self.answer: tuple[int, list[bytes]] = (200, [])
        self.services: Any = SimpleNamespace(
            authenticator=self,
            workers=self,
            timeseries=TimeSeries(
                self.sink, self.stats, self.clock, InFlight(1 << 30, self.stats), Turns(), gather=1000.0
            ),
            replay=lambda: Replay(1, 1, True),
        )
        self.sessions = Sessions(self.clock, self, lambda: self.version)
        self.server = RpcServer(self.services, self.sessions, self.stats, self.clock)

    async def identify(self, credentials: Credentials) -> Identity:
        if not self.known:
            raise Refused("unknown", "this token is not known here")
        return self.identity

    async def run(self, job: Job) -> Answer:
        await self.held.wait()
        if self.failure is not None:
            raise self.failure
        status, chunks = self.answer

        async def pieces() -> AsyncGenerator[bytes, None]:
            for chunk in chunks:
                yield chunk

        return Answer(status, "", "identity", pieces())

    @property
    def open(self) -> int:
        return int(reading(self.stats, "streamgauge_grpc_calls"))

    @property
    def held_bytes(self) -> float:
        """Of rows that have come and are not stored yet."""
        return reading(self.stats, "streamgauge_ingest_inflight_bytes")

    def counted(self) -> dict[str, float]:
        """Calls by their codes."""
        (counter,) = [each for each in self.stats.families() if each.name == "streamgauge_grpc_calls_total"]
        return {dict(labels)["code"]: value for _, labels, value in counter.samples}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    (port,) = await site.server.start(["127.0.0.1:0"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        site.channel = channel
        site.insert = channel.stream_unary("/proto.TStorage/InsertRows")
        site.insert_row = channel.unary_unary("/proto.TStorage/InsertRow")
        site.select = channel.unary_stream("/proto.TStorage/Select")
        site.watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        yield site
    await site.server.stop(0)


async def ended(call: Any) -> tuple[StatusCode, str]:
    return await call.code(), await call.details()


async def stream(site: Site) -> Any:
    """A stream of rows that goes on, after its first."""
    call = site.insert()
    await call.write(ROW)
    await until(lambda: site.open == 1 and site.held_bytes)
    return call


async def test_a_stream_in_which_nothing_happens_is_ended_and_what_came_is_kept(site: Site) -> None:
    sweeping = asyncio.create_task(site.server.run())
    call = await stream(site)
    while site.open:
        await site.clock.advance(calls.CHECK_SECONDS)
    assert await ended(call) == (StatusCode.DEADLINE_EXCEEDED, "nothing was sent or read for 300 s")
    assert site.sink.samples(__name__="m") == [(1000, 1.0)]
    await until(lambda: site.counted() == {"DEADLINE_EXCEEDED": 1})
    sweeping.cancel()


async def test_a_query_that_takes_long_is_not_the_doing_of_its_client(site: Site) -> None:
    sweeping = asyncio.create_task(site.server.run())
    site.held = asyncio.Event()
    call = site.select(FILTER)
    await until(lambda: site.open == 1)
    for _ in range(round(2 * calls.IDLE_SECONDS / calls.CHECK_SECONDS)):
        await site.clock.advance(calls.CHECK_SECONDS)
    site.held.set()
    assert await call.code() is StatusCode.OK
    sweeping.cancel()


async def test_whose_credentials_are_not_good_any_more_is_sent_away(site: Site) -> None:
    call = await stream(site)
    await site.sessions.check()
    assert site.open == 1
    site.known, site.version = False, 1
    await site.sessions.check()
    assert await ended(call) == (StatusCode.UNAUTHENTICATED, "the credentials are not good any more")
    assert await ended(site.insert_row(ROW)) == (StatusCode.UNAUTHENTICATED, "this token is not known here")


async def test_a_client_that_goes_away_is_no_failure(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    call = await stream(site)
    call.cancel()
    await until(lambda: site.open == 0)
    assert site.sink.samples(__name__="m") == [(1000, 1.0)]
    await until(lambda: site.counted() == {"CANCELLED": 1})
    assert caplog.text == ""


async def test_a_stop_ends_what_would_not_end_and_waits_for_the_rest(site: Site) -> None:
    watching = site.watch(health_pb2.HealthCheckRequest().SerializeToString())
    assert await watching.read() == b"\x08\x01"
    call = await stream_beside(site)
    stopping = asyncio.create_task(site.server.stop(60))
    assert (await ended(watching))[0] is StatusCode.UNAVAILABLE
    assert not stopping.done()
    await call.done_writing()
    assert await call == b""
    await stopping


async def stream_beside(site: Site) -> Any:
    call = site.insert()
    await call.write(ROW)
    await until(lambda: site.open == 2)
    return call


async def test_no_more_calls_at_once_than_there_may_be(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_CALLS", 1)
    call = await stream(site)
    code, text = await ended(site.insert_row(ROW))
    assert (code, text) == (StatusCode.UNAVAILABLE, "1 calls go on already, which is the limit")
    await call.done_writing()
    assert await call == b""
    assert await site.insert_row(ROW) == b""


async def test_a_call_that_never_sends_its_message_counts_and_ends(site: Site) -> None:
    sweeping = asyncio.create_task(site.server.run())
    silent = [
        site.channel.stream_unary(f"/{name}")() for name in ("proto.TStorage/InsertRow", "grpc.health.v1.Health/Check")
    ]
    silent += [
        site.channel.stream_stream(f"/{name}")() for name in ("proto.TStorage/Select", "grpc.health.v1.Health/Watch")
    ]
    await until(lambda: site.open == 4)
    while site.open:
        await site.clock.advance(calls.CHECK_SECONDS)
    assert {await call.code() for call in silent} == {StatusCode.DEADLINE_EXCEEDED}
    empty = site.channel.stream_unary("/proto.TStorage/InsertRow")()
    await empty.done_writing()
    assert await ended(empty) == (StatusCode.INVALID_ARGUMENT, "the call ended without a message")
    sweeping.cancel()


async def test_nobody_takes_more_than_a_share(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_CALLS_OF_ONE", 1)
    call = await stream(site)
    code, text = await ended(site.insert_row(ROW))
    assert (code, text) == (
        StatusCode.UNAVAILABLE,
        "1 calls of one address ipv4:127.0.0.1 go on already, which is the limit",
    )
    site.identity = Identity("boiler", EVERYBODY.permissions)
    await call.done_writing()
    assert await call == b""
    call = await stream(site)
    site.identity = Identity("meter", EVERYBODY.permissions)
    assert await site.insert_row(ROW) == b""
    site.identity = Identity("boiler", EVERYBODY.permissions)
    assert (await ended(site.insert_row(ROW)))[1].startswith("1 calls of one name boiler go on")
    await call.done_writing()
    assert await call == b""
    assert await site.insert_row(ROW) == b""


async def test_calls_that_last_have_a_limit_of_their_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_LASTING", 1)
    watching = site.watch(b"")
    assert await watching.read() == b"\x08\x01"
    assert (await ended(site.watch(b"")))[0] is StatusCode.UNAVAILABLE
    watching.cancel()


async def test_nothing_is_answered_before_the_log_is_read(site: Site) -> None:
    site.services.replay = lambda: Replay(1, 2, False)
    for call in (site.insert_row(ROW), site.select(FILTER)):
        code, text = await ended(call)
        assert (code, text) == (StatusCode.UNAVAILABLE, "the server is starting: 1 of 2 of its log is read")


@pytest.mark.parametrize(
    ("failure", "code", "text"),
    [
        (Overloaded(MESSAGE), StatusCode.UNAVAILABLE, MESSAGE),
        (IndexFull(MESSAGE), StatusCode.RESOURCE_EXHAUSTED, MESSAGE),
        (QueryTimeout(MESSAGE), StatusCode.DEADLINE_EXCEEDED, MESSAGE),
        (ReadOnly(MESSAGE), StatusCode.UNAVAILABLE, MESSAGE),
        (Corrupt(MESSAGE), StatusCode.DATA_LOSS, MESSAGE),
        (TimeNotAdmitted(MESSAGE), StatusCode.OUT_OF_RANGE, MESSAGE),
        (StreamgaugeError("a" * 5_000), StatusCode.INTERNAL, "a" * 1_997 + "..."),
        (StreamgaugeError("\U0001f600" * 5_000), StatusCode.INTERNAL, "\U0001f600" * 497 + "..."),
        (ZeroDivisionError("a secret"), StatusCode.INTERNAL, "internal error; the server's log says more"),
    ],
)
async def test_each_failure_has_its_code(site: Site, failure: Exception, code: StatusCode, text: str) -> None:
    site.failure = failure
    assert await ended(site.select(FILTER)) == (code, text)
    await until(lambda: site.counted() == {code.name: 1})


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b'{"errorType":"timeout","error":"too slow"}', StatusCode.DEADLINE_EXCEEDED, "too slow"),
        (b'{"errorType":"execution","error":"too many samples"}', StatusCode.FAILED_PRECONDITION, "too many samples"),
        (b'{"errorType":"internal","error":"x"}', StatusCode.INTERNAL, "x"),
        (b"<html>", StatusCode.INTERNAL, "the query failed"),
    ],
)
async def test_an_error_of_a_query_is_told(site: Site, body: bytes, code: StatusCode, text: str) -> None:
    site.answer = (422, [body[:5], body[5:]])
    assert await ended(site.select(FILTER)) == (code, text)
    await until(lambda: site.counted() == {code.name: 1})


async def test_a_full_disk_is_said_and_passes(site: Site) -> None:
    site.sink.failure = ReadOnly("the disk is full: writes are refused")
    call = site.insert()
    await call.write(ROW)
    await call.done_writing()
    said = "the disk is full: writes are refused; 0 of 1 rows were stored"
    assert await ended(call) == (StatusCode.UNAVAILABLE, said)
    site.sink.failure = None
    assert await site.insert_row(ROW) == b""
