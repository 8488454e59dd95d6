"""The mount of remote write."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from streamgauge.auth.tokens import new_token
from streamgauge.errors import BadInput, ReadOnly
from streamgauge.serve.services import Replay

pytestmark = pytest.mark.anyio

WRITE = "/api/v1/write"


async def test_the_body_and_the_headers_reach_the_receiver_and_its_reply_the_client(served):
    body = bytes(range(256)) * 1_000
    headers = {"Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
    response = await served.http.post(WRITE, content=body, headers=headers)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["x-prometheus-remote-write-samples-written"] == "2"
    assert "content-length" not in response.headers
    ((got, received),) = served.services.written
    assert received == body
    assert (got["content-encoding"], got["x-prometheus-remote-write-version"]) == ("snappy", "0.1.0")


async def test_a_refusal_of_the_receiver_is_text(served):
    headers = {"x-prometheus-remote-write-samples-written": "2", "content-type": "text/plain; charset=utf-8"}
    served.services.reply = Reply(400, headers, "out of bounds\n")
    response = await served.http.post(WRITE, content=b"x")
    assert (response.status_code, response.text) == (400, "out of bounds\n")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-prometheus-remote-write-samples-written"] == "2"


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (BadInput("no"), 400, "no\n"),
        (ReadOnly("the disk is full"), 503, "the disk is full\n"),
        (RuntimeError("secret"), 500, "internal error; the server's log says more\n"),
    ],
)
async def test_what_the_receiver_raises_is_text_too(served, error: Exception, status: int, text: str):
    async def fails(headers: object, body: object, bound: object) -> None:
        raise error

    served.services.remote_write = fails
    response = await served.http.post(WRITE, content=b"x")
    assert (response.status_code, response.text) == (status, text)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_only_who_may_write_anything_is_let_past_the_application(served):
    services, kinds = served.services, {"content-type": "application/x-protobuf", "content-encoding": "snappy"}
    services.takes_writes = True
    answers = [await served.http.post(WRITE, content=b"x", headers=kinds) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [204, 204]
    assert answers[1].headers["x-prometheus-remote-write-samples-written"] == "2"
    assert services.begun == [(kinds, b"x")], "the first shows its Host"
    texts, tokens = zip(
        new_token("any", ["write"], [], 0, None),
        new_token("bound", ["write"], [("team", "a")], 0, None),
        new_token("reader", ["read"], [], 0, None),
        new_token("late", ["write"], [], 0, 1),
        strict=True,
    )
    services.authenticator.tokens.replace(tokens)
    services.authenticator.asks = True
    statuses = []
    for text in (*texts, "none"):
        headers = {**kinds, "authorization": f"Bearer {text}"}
        statuses.append((await served.http.post(WRITE, content=b"y", headers=headers)).status_code)
    assert statuses == [204, 204, 403, 401, 401]
    assert [body for _, body in services.begun] == [b"x", b"y"]
    assert services.bindings == [(), (("team", "a"),)]


async def test_only_post(served):
    response = await served.http.get(WRITE)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_nothing_is_taken_before_the_log_is_read(served):
    served.services.state = Replay(0, 3, False)
    response = await served.http.post(WRITE, content=b"x")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert served.services.written == []


async def test_a_body_that_stops_half_way_is_never_taken_for_whole(served, connect):
    client = await connect(served.server)
    await client.send(b"POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50)
    await asyncio.wait_for(served.services.write_started.wait(), 20)
    await client.close()
    await asyncio.wait_for(served.services.write_ended.wait(), 20)
    assert served.services.written == []


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: str


async def test_requests_are_counted_by_route_and_status(served):
    await served.http.post(WRITE, content=b"x")
    await served.http.get("/api/v1/label/a/values")
    await served.http.get("/api/v1/label/b/values")
    await served.http.get("/nothing/here")
    assert served.stats.requests == {
        (WRITE, 204): 1,
        ("/api/v1/label/{name}/values", 200): 2,
        ("unknown", 404): 1,
    }
