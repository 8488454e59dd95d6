"""What an answer means: who is asked again, when, and with which token."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import formatdate

import pytest

from streamgauge.clock import ManualClock
from streamgauge.forward.remote_write.numbers import Numbers
from streamgauge.forward.remote_write.sender import Sender
from streamgauge.forward.remote_write.target import InfluxDatabase, Protocol, QueuePolicy, RemoteWriteTarget
from streamgauge.http.client import Resolver
from streamgauge.http.options import ClientCredentials, HttpOptions, Secret
from streamgauge.stats import Stats
from streamgauge.testing.target import HttpTarget, Request, answer, http_target
from streamgauge.testing.until import until
from streamgauge.wire.remote_write_encode import EncoderV1

pytestmark = pytest.mark.anyio

OK = answer(b"", "", "204 No Content")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def serving() -> AsyncIterator[HttpTarget]:
    async with http_target() as target:
        target.reply = OK
        yield target


class Deliveries:
    def __init__(self, resolver: Resolver) -> None:
        self.clock = ManualClock()
        self._resolver = resolver
        self._stats = Stats()
        self._numbers = Numbers(self._stats)
        self._senders: list[Sender] = []
        self._work: list[asyncio.Task[int]] = []

    def number(self, name: str) -> float:
        lines = self._stats.exposition().decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"streamgauge_remote_write_{name}")
        )

    def start(self, target: RemoteWriteTarget) -> asyncio.Task[int]:
        """Deliver one request of five samples."""
        sender = Sender(target, self._resolver, self.clock, self._numbers, EncoderV1.headers)
        self._senders.append(sender)

        async def body() -> tuple[bytes, int]:
            return b"body", 5

        self._work.append(asyncio.create_task(sender.deliver(0, body)))
        return self._work[-1]

    async def end(self, work: asyncio.Task[int]) -> int:
        """Let time pass until it ends."""
        while not work.done():
            await self.clock.advance(4)
            await asyncio.sleep(0)
        return work.result()

    async def close(self) -> None:
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        for sender in self._senders:
            sender.close()
        self._resolver.close()


@pytest.fixture
async def deliveries() -> AsyncIterator[Deliveries]:
    made = Deliveries(Resolver())
    yield made
    await made.close()


def target_of(serving: HttpTarget) -> RemoteWriteTarget:
    queue = QueuePolicy(min_backoff=1000, max_backoff=4000)
    http = HttpOptions(headers=(("THANOS-TENANT", Secret("home")),), scheme="Bearer", credentials=Secret("sesame"))
    return RemoteWriteTarget("out", serving.url("/write"), http=http, queue=queue)


async def test_a_request_says_what_it_is_and_whose(serving: HttpTarget, deliveries: Deliveries) -> None:
    assert await deliveries.start(target_of(serving)) == 5
    (request,) = serving.requests
    assert (request.method, request.target, request.body) == ("POST", "/write", b"body")
    assert request.headers["thanos-tenant"] == "home"
    assert request.headers["authorization"] == "Bearer sesame"
    assert request.headers["content-encoding"] == "snappy"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["x-prometheus-remote-write-version"] == "0.1.0"
    assert request.headers["user-agent"].startswith("streamgauge/")


@pytest.mark.parametrize(
    "status", ["503 Busy", "500 Oh", "408 Slow", "429 Much", "401 Who", "403 No", "415 What", "302 There"]
)
async def test_what_says_nothing_of_the_samples_is_tried_again(
    serving: HttpTarget, deliveries: Deliveries, status: str
) -> None:
    serving.reply = answer("no", status=status)
    work = deliveries.start(target_of(serving))
    for attempts, seconds in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 4.0)):
        await until(lambda attempts=attempts: len(serving.requests) == attempts and deliveries.clock.sleepers)
        await deliveries.clock.advance(seconds / 2 - 0.01)
        assert len(serving.requests) == attempts, "a pause is at least half of the back-off"
        await deliveries.clock.advance(seconds / 2 + 0.01)
    serving.reply = OK
    assert await deliveries.end(work) == 5


@pytest.mark.parametrize("status", ["400 Bad", "404 Where", "413 Large", "422 What"])
async def test_what_is_refused_is_not_sent_again(serving: HttpTarget, deliveries: Deliveries, status: str) -> None:
    serving.reply = answer("no", status=status)
    assert await deliveries.start(target_of(serving)) == 0
    assert len(serving.requests) == 1


PARTIAL = "partial write: points beyond retention policy dropped=2"


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        (json.dumps({"error": PARTIAL}), 3),
        (json.dumps({"code": "unprocessable entity", "message": f"failure: {PARTIAL}"}), 3),
        (json.dumps({"error": "partial write: unable to parse 'a v=x': invalid number dropped=0"}), 4),
        (json.dumps({"error": "unable to parse 'a v=x': invalid number"}), 0),
        ("[" * 100_000, 0),
    ],
)
async def test_of_a_partial_write_the_others_are_taken(
    serving: HttpTarget, deliveries: Deliveries, body: str, taken: int
) -> None:
    serving.reply = answer(body, status="400 Bad Request")
    target = replace(target_of(serving), influx=InfluxDatabase(serving.url("/query"), "CREATE DATABASE s"))
    assert await deliveries.start(target) == taken
    assert deliveries.number("samples_failed_total") == 5 - taken


@pytest.mark.parametrize(
    ("result", "words", "made"),
    [
        ({"error": "not implemented"}, "no mapping; it was to be made: not implemented", 0),
        ({}, "no mapping; it was made, which has helped nothing", 1),
    ],
)
async def test_a_database_that_cannot_be_made_or_helps_nothing_is_told_of(
    serving: HttpTarget,
    deliveries: Deliveries,
    caplog: pytest.LogCaptureFixture,
    result: dict[str, str],
    words: str,
    made: int,
) -> None:
    caplog.set_level(logging.INFO)

    def reply(request: Request) -> bytes:
        if request.target == "/query":
            return answer(json.dumps({"results": [{"statement_id": 0, **result}]}))
        return answer("no mapping", status="404 Not Found")

    serving.reply = reply
    target = replace(target_of(serving), influx=InfluxDatabase(serving.url("/query"), "CREATE DATABASE s"))
    work = deliveries.start(target)
    for attempts in (2, 4, 6):  # each asks for the database, too
        await until(lambda attempts=attempts: len(serving.requests) == attempts and deliveries.clock.sleepers)
        await deliveries.clock.advance(4)
    assert words in caplog.text
    assert caplog.text.count("the database was made") == made
    serving.reply = OK
    assert await deliveries.end(work) == 5


async def test_a_destination_that_is_not_there_is_tried_again(serving: HttpTarget, deliveries: Deliveries) -> None:
    away = replace(target_of(serving), url="http://127.0.0.1:1/")
    work = deliveries.start(away)
    await until(lambda: deliveries.clock.sleepers)
    assert not work.done()


async def test_another_reason_is_logged_too(
    serving: HttpTarget, deliveries: Deliveries, caplog: pytest.LogCaptureFixture
) -> None:
    serving.reply = answer("not known", status="401 Unauthorized")
    work = deliveries.start(target_of(serving))
    await until(lambda: deliveries.clock.sleepers)
    for attempts in (2, 3, 4, 5):
        serving.reply = answer("may not write", status="403 Forbidden")
        await deliveries.clock.advance(4)
        await until(lambda attempts=attempts: len(serving.requests) == attempts and deliveries.clock.sleepers)
    said = [record.getMessage() for record in caplog.records]
    assert [text.rpartition("again: ")[2] for text in said] == [
        "401 Unauthorized: not known",
        "403 Forbidden: may not write",
    ]
    serving.reply = OK
    await deliveries.end(work)


async def test_a_pause_that_is_asked_for_is_kept(serving: HttpTarget, deliveries: Deliveries) -> None:
    clock = deliveries.clock
    when = formatdate(clock.now_ms() / 1000 + 30, usegmt=True)
    serving.reply = answer("", status="503 Busy", headers={"retry-after": when})
    work = deliveries.start(target_of(serving))
    await until(lambda: clock.sleepers)
    await clock.advance(29.9)
    assert len(serving.requests) == 1
    serving.reply = OK
    await clock.advance(0.2)
    assert await work == 5


async def test_the_log_says_what_to_change_for_a_receiver_of_1_0(
    serving: HttpTarget, deliveries: Deliveries, caplog: pytest.LogCaptureFixture
) -> None:
    serving.reply = answer("unsupported proto\nsecond line", status="415 Unsupported Media Type")
    work = deliveries.start(replace(target_of(serving), protocol=Protocol.V2))
    await until(lambda: deliveries.clock.sleepers)
    assert "set protobuf_message: prometheus.WriteRequest" in caplog.text
    assert "second line" not in caplog.text
    serving.reply = OK
    with caplog.at_level(logging.INFO):
        await deliveries.end(work)
    assert "samples are sent to out again" in caplog.text
    assert "it may not know remote write 2.0" in caplog.text, "since it did not say how many it had written"


async def test_a_token_that_is_refused_is_fetched_anew(serving: HttpTarget, deliveries: Deliveries) -> None:
    async with http_target() as endpoint:
        endpoint.reply = lambda request: answer(json.dumps({"access_token": f"t{len(endpoint.requests)}"}))

        def reply(request: Request) -> bytes:
            return OK if request.headers["authorization"] == "Bearer t2" else answer("", status="401 Unauthorized")

        serving.reply = reply
        known = ClientCredentials("me", Secret("s"), endpoint.url("/token"))
        wanted = replace(target_of(serving), http=HttpOptions(), oauth2=known)
        work = deliveries.start(wanted)
        await until(lambda: deliveries.clock.sleepers)
        assert await deliveries.end(work) == 5
        assert [request.headers["authorization"] for request in serving.requests] == ["Bearer t1", "Bearer t2"]
        assert len(endpoint.requests) == 2
