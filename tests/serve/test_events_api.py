"""Events by POST, over a real listener: statuses and bodies are those that clients know."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from streamgauge.errors import Overloaded, ReadOnly, SyncFailed
from streamgauge.serve.services import HttpOptions, Replay
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio
PATHS = ["/", "/api/v1/events"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "status", "count"),
    [
        (b'{"a":1}{"b":2}', 200, 2),
        (b"", 200, 0),
        (b" \n ", 200, 0),
        (b'{"a":1}\n{"a"}', 400, 1),
        (b'{"a":1}\n{"a":', 400, 1),
        (b"1 2 \xff", 400, 2),
        (b"\xff", 400, 0),
        (b'1 "' + b"x" * 1000 + b'"', 413, 1),
    ],
)
async def test_the_answer_is_the_bare_number_of_events_stored(served, path: str, body: bytes, status: int, count: int):
    answer = await served.http.post(path, content=body, headers={"content-type": "application/jsonl"})
    assert (answer.status_code, answer.text) == (status, str(count))
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert ("x-reason" in answer.headers) == (status != 200)
    assert len(served.services.event_sink.payloads()) == count
    assert served.services.event_sink.streams[1].transport == "http"


async def test_json_says_why_and_where(served):
    ask = {"accept": "application/json"}
    answer = await served.http.post("/", content=b'{"a":1} {"b":2}', headers=ask)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"status": "success", "data": {"count": 2, "stream_id": 1}}
    answer = await served.http.post("/api/v1/events", content=b'{"a":1} , {"b":2}', headers=ask)
    assert answer.status_code == 400
    assert answer.json() == {
        "status": "error",
        "errorType": "bad_data",
        "error": "event 2, byte 8: invalid character",
        "data": {"count": 1, "stream_id": 2, "event": 2, "byte": 8},
    }


@pytest.mark.parametrize(
    ("failure", "status", "retry"),
    [
        (SyncFailed("the disk is gone"), 503, "5"),
        (ReadOnly("the disk is full"), 503, "5"),
        (Overloaded("there is no room", retry_after=3), 503, "3"),
    ],
)
async def test_what_was_not_stored_is_not_counted(served, failure: Exception, status: int, retry: str):
    served.services.event_sink.failure = failure
    answer = await served.http.post("/", content=b"1 2 3")
    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (status, "0", retry)
    served.services.event_sink.failure, served.services.event_sink.refusal = None, failure
    answer = await served.http.post("/", content=b"", headers={"accept": "application/json"})
    assert (answer.status_code, answer.headers["retry-after"]) == (status, retry)
    assert answer.json()["data"] == {"count": 0}
    assert answer.json()["error"] == str(failure)


async def test_a_stream_with_a_name_takes_each_event_once(served):
    names = {"x-stream-id": "a", "x-stream-index": "1"}
    answer = await served.http.post("/", content=b"1 2 3", headers=names)
    assert (answer.text, answer.headers["x-stream-next"]) == ("3", "4")
    answer = await served.http.post("/api/v1/events?stream=a&index=3", content=b"3 4")
    assert (answer.text, answer.headers["x-stream-next"]) == ("2", "5")
    answer = await served.http.post("/", content=b"", headers=names | {"accept": "application/json"})
    assert answer.json()["data"] == {"count": 0, "stream_id": 1, "next": 5}
    assert served.services.event_sink.payloads() == [b"1", b"2", b"3", b"4"]
    for ask in ({}, {"accept": "application/json"}):
        answer = await served.http.post("/?stream=a&index=6", content=b"6", headers=ask)
        assert (answer.status_code, answer.headers["x-stream-next"]) == (409, "5")
    assert answer.json()["errorType"] == "conflict"
    assert answer.json()["data"] == {"count": 0, "next": 5}
    assert "x-stream-next" not in (await served.http.post("/", content=b"1")).headers


@pytest.mark.parametrize(
    "query",
    [
        "stream=a",
        "index=1",
        "stream=a&index=0",
        "stream=a&index=x",
        "stream=a&index=-1",
        "stream=a&index=99999999999999999999",
        "stream=a%0A&index=1",
        f"stream={'a' * 201}&index=1",
        "format=xml",
    ],
)
async def test_a_wrong_name_index_or_format_is_refused(served, query: str):
    answer = await served.http.post(f"/?{query}", content=b"1")
    assert (answer.status_code, answer.text) == (400, "0")
    assert answer.headers["x-reason"]
    assert not served.services.event_sink.streams


@pytest.mark.parametrize(
    ("query", "kind", "payloads"),
    [
        ("?format=lines", "application/json", [b'"a b"', b"1", b'"2 3"']),
        ("", "text/plain;charset=UTF-8", [b'"a b"', b"1", b'"2 3"']),
        ("?format=json", "text/plain", []),
    ],
)
async def test_lines_are_events_where_that_is_asked_for(served, query: str, kind: str, payloads: list[bytes]):
    answer = await served.http.post(f"/{query}", content=b"a b\n1\n2 3", headers={"content-type": kind})
    assert answer.text == str(len(payloads))
    assert served.services.event_sink.payloads() == payloads


async def test_compressed_bodies_are_read(served):
    headers = {"content-encoding": "gzip"}
    assert (await served.http.post("/", content=gzip.compress(b"1 2"), headers=headers)).text == "2"
    answer = await served.http.post("/", content=b"1 2", headers=headers)
    assert (answer.status_code, answer.text) == (400, "0")
    answer = await served.http.post("/", content=b"1 2", headers={"content-encoding": "br"})
    assert (answer.status_code, answer.text) == (415, "0")


async def test_headers_are_kept_without_secrets(served):
    headers = [
        ("X-One", "a"),
        ("x-two", "b"),
        ("X-Two", "c"),
        ("Authorization", "Bearer hunter2"),
        ("cookie", "hunter2"),
    ]
    await served.http.post("/?token=hunter2", content=b"1", headers=headers)
    kept = json.loads(served.services.event_sink.streams[1].headers)
    assert (kept["x-one"], kept["x-two"], kept["host"]) == ("a", ["b", "c"], f"127.0.0.1:{served.server.port}")
    assert kept["authorization"] == kept["cookie"] == "[redacted]"
    assert "hunter2" not in json.dumps(kept)


async def test_the_answer_waits_for_the_disk(served):
    sink = served.services.event_sink
    sink.gate.clear()
    asked = asyncio.create_task(served.http.post("/", content=b"1"))
    await until(lambda: bool(sink.waiting))
    assert not asked.done()
    sink.gate.set()
    assert (await asked).text == "1"


async def test_events_are_stored_while_the_body_still_comes_however_slowly(served, connect, clock):
    client = await connect(served.server)
    await client.send(b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\n1\n\r\n")
    await until(lambda: len(served.services.event_sink.appends) == 1)
    await clock.advance(3600)
    await client.send(b"2\r\n2\n\r\n")
    await until(lambda: len(served.services.event_sink.appends) == 2)
    await client.send(b"0\r\n\r\n")
    assert b" 200 " in await client.read_head()
    assert await client.read(1) == b"2"


async def test_what_came_is_stored_when_the_client_goes_away(served, connect):
    client = await connect(served.server)
    await client.send(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n1 2 3 [4")
    client.abort()
    await until(lambda: len(served.services.event_sink.payloads()) == 3)
    assert served.services.event_sink.payloads() == [b"1", b"2", b"3"]


async def test_requests_at_once_are_limited(served, connect):
    for _ in range(3):
        client = await connect(served.server)
        await client.send(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n1 ")
    await until(lambda: len(served.services.event_sink.streams) == 3)
    answer = await served.http.post("/", content=b"1")
    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "0", "5")


async def test_events_wait_for_the_start(served):
    served.services.state = Replay(1, 4, False)
    for path in PATHS:
        answer = await served.http.post(path, content=b"1")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await served.http.get("/")).status_code == 200


async def test_other_methods_are_refused(served):
    assert (await served.http.put("/", content=b"1")).status_code == 405
    assert (await served.http.get("/api/v1/events")).status_code == 405
    assert (await served.http.post("/elsewhere", content=b"1")).status_code == 404


async def test_a_page_of_an_allowed_origin_may_send_events_and_no_other(serve):
    served = await serve(HttpOptions(allow_origins=("https://app.example",)))
    ask = {"origin": "https://app.example", "access-control-request-method": "POST"}
    answer = await served.http.options("/", headers=ask)
    assert answer.status_code == 204
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert {"content-type", "x-stream-id", "x-stream-index"} <= set(allowed)
    answer = await served.http.post("/?stream=a&index=1", content=b"1", headers={"origin": "https://app.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")
    assert "X-Stream-Next" in answer.headers["access-control-expose-headers"]
    for request in (served.http.post, served.http.options):
        answer = await request("/", headers={"origin": "https://evil.example"})
        assert answer.status_code == 403
    assert len(served.services.event_sink.streams) == 1


@pytest.mark.parametrize(
    "framing", [b"content-length: 4\r\n\r\n1 2 ", b"transfer-encoding: chunked\r\n\r\n4\r\n1 2 \r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
@pytest.mark.parametrize("step", [1, 50, 1000])
async def test_a_body_of_a_request_that_wants_to_upgrade_is_read(
    served, connect, framing: bytes, upgrade: bytes, step: int
):
    client = await connect(served.server)
    head = b"POST / HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AA\r\n"
    text = head + b"upgrade: " + upgrade + b"\r\n" + framing
    for at in range(0, len(text), step):
        await client.send(text[at : at + step])
        await asyncio.sleep(0)
    answer = await client.read_head()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert served.services.event_sink.payloads() == [b"1", b"2"]


async def test_a_handshake_with_a_body_is_no_handshake(served, connect):
    client = await connect(served.server)
    head = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    key = b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    await client.send(head + key + b"content-length: 6\r\n\r\n\x81\x80\0\0\0\0")
    assert b" 426 " in await client.read_head()
    assert served.services.event_sink.streams == {}
