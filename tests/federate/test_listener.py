"""What the client answers on --listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import ConfigError, ListenFailed
from streamgauge.federate.buffer import LatestBuffer
from streamgauge.federate.listener import MAX_HEAD_BYTES, Listener
from streamgauge.federate.worker import Worker
from streamgauge.testing.federation import Peers, samples
from streamgauge.wire import metric_family_text

pytestmark = pytest.mark.anyio


@dataclass
class Serving:
    worker: Worker
    port: int = 0
    reloads: list[Exception | None] = field(default_factory=list)  # what each does

    def reload(self) -> None:
        error = self.reloads.pop(0)
        if error is not None:
            raise error

    async def ask(self, method: str, path: str, *headers: str, host: str = "") -> tuple[int, str]:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{self.port}'}", *headers]
        return await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def raw(self, request: bytes) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        answer = (await reader.read()).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split(" ")[1]), body


@pytest.fixture
async def serving(peers: Peers) -> AsyncIterator[Serving]:
    made = Serving(Worker(peers.config(), LatestBuffer(), ManualClock()))
    listener = Listener(made.worker, made.reload)
    server = await listener.start("127.0.0.1:0")
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


async def test_health_is_honest(serving: Serving) -> None:
    assert await serving.ask("GET", "/healthz") == (200, "ok\n")
    assert await serving.ask("GET", "/healthz/ready") == (503, "scrape: not done yet\npush: not done yet\n")
    serving.worker.status.scrape, serving.worker.status.push = "", "the server is away"
    assert await serving.ask("GET", "/healthz/ready") == (503, "push: the server is away\n")
    serving.worker.status.push = ""
    assert await serving.ask("GET", "/healthz/ready") == (200, "ok\n")


async def test_what_was_sent_last(serving: Serving) -> None:
    assert await serving.ask("GET", "/federate") == (200, "")
    serving.worker.sent = tuple(samples(1_790_000_000_000))
    status, text = await serving.ask("GET", "/federate?match[]=ignored")
    assert status == 200
    assert text == '# TYPE up untyped\nup{i="a"} 0 1790000000000\n'
    assert [await serving.ask(method, "/federate") for method in ("HEAD", "POST")] == [
        (405, "/federate is for GET\n")
    ] * 2


async def test_metrics_have_the_names_of_the_reference(serving: Serving) -> None:
    metrics = serving.worker.metrics
    metrics.scraped, metrics.removed, metrics.requests, metrics.failed = 7, 2, 3, 1
    metrics.http["federate_from", "200"] = 3
    metrics.http["federate_to", "429"] = 1
    status, text = await serving.ask("GET", "/metrics")
    assert status == 200
    lines = text.splitlines()
    for line in (
        "federate_samples 7",
        "federate_filtered_samples 2",
        "federate_requests_total 3",
        "federate_requests_failed_total 1",
        'metricsclient_http_requests_total{client="federate_from",status_code="200"} 3',
        'metricsclient_http_requests_total{client="federate_to",status_code="429"} 1',
        'metricsclient_request_retrieve{client="federate_from",status_code="200"} 3',
        'metricsclient_request_send{client="federate_to",status_code="429"} 1',
    ):
        assert line in lines
    assert len(metric_family_text.decode_now(text.encode())) == len(metrics.families())


async def test_reload_is_a_post(serving: Serving) -> None:
    assert await serving.ask("GET", "/-/reload") == (405, "/-/reload is for POST\n")
    serving.reloads = [None, ConfigError("--from is missing")]
    assert await serving.ask("POST", "/-/reload") == (200, "ok\n")
    assert await serving.ask("POST", "/-/reload") == (500, "nothing is changed: --from is missing\n")
    assert not serving.reloads


async def test_pages_of_others_are_refused(serving: Serving) -> None:
    assert (await serving.ask("GET", "/federate", host="attacker.example"))[0] == 403
    assert (await serving.ask("POST", "/-/reload", "Origin: http://attacker.example"))[0] == 403
    assert (await serving.ask("POST", "/-/reload", "Origin: null"))[0] == 403
    assert (await serving.ask("GET", "/healthz", host="localhost:9002"))[0] == 200
    assert (await serving.ask("GET", "/healthz", host="[::1]:9002"))[0] == 200
    assert (await serving.raw(b"GET /healthz HTTP/1.1\r\n\r\n"))[0] == 403


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"x" * MAX_HEAD_BYTES * 2]
)
async def test_what_is_no_request_is_refused(request_: bytes, serving: Serving) -> None:
    assert (await serving.raw(request_))[0] == 400
    assert (await serving.ask("GET", "/nothing"))[0] == 404
    assert "/metrics" in (await serving.ask("GET", "/"))[1]


async def test_an_address_that_is_taken(serving: Serving) -> None:
    with pytest.raises(ListenFailed, match="address already in use"):
        await Listener(serving.worker, serving.reload).start(f"127.0.0.1:{serving.port}")
