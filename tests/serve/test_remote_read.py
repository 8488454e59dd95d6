"""The endpoint of remote read: what becomes a job for the workers, and what is refused before."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from streamgauge.model.source import Matcher, MatchOp, Selector
from streamgauge.query.requests import RawQuery
from streamgauge.serve.remote_read import MAX_REQUEST_BYTES
from streamgauge.serve.services import HttpOptions, Replay
from streamgauge.testing.remote_read import HEADERS, SAMPLES, STREAMED_XOR_CHUNKS, query, request
from streamgauge.testing.requests import snappy
from streamgauge.wire.read_answers import ChunksFormat, SamplesFormat

pytestmark = pytest.mark.anyio

READ = "/api/v1/read"
UP = query(1000, 2000, ("__name__", "=", "up"))


async def test_a_request_becomes_a_job(serve):
    served = await serve(HttpOptions(external_labels=(("replica", "one"),)))
    body = snappy(request(UP, query(-5, 5, ("job", "!~", "a|b"), hints=(0, 3))))
    assert (await served.http.post(READ, content=body, headers=HEADERS)).status_code == 200
    (job,) = served.services.workers.jobs
    up, job_matcher = Matcher("__name__", MatchOp.EQUAL, "up"), Matcher("job", MatchOp.NOT_MATCH, "a|b")
    selectors = (Selector((up,), 1000, 2000), Selector((job_matcher,), 0, 3))
    assert job.query == RawQuery(selectors, SamplesFormat(), (("replica", "one"),))
    assert job.limits == HttpOptions().limits


@pytest.mark.parametrize(
    ("accept", "chosen", "encoding"),
    [
        ([], SamplesFormat(), "snappy"),
        ([SAMPLES, STREAMED_XOR_CHUNKS], SamplesFormat(), "snappy"),
        ([STREAMED_XOR_CHUNKS, SAMPLES], ChunksFormat(), "identity"),
        ([99, STREAMED_XOR_CHUNKS], ChunksFormat(), "identity"),
    ],
)
async def test_the_first_known_response_type_is_taken(served, accept: list[int], chosen: object, encoding: str):
    """Whatever codings the client takes: the type says which it is."""
    headers = HEADERS | {"accept-encoding": "gzip, zstd"}
    await served.http.post(READ, content=snappy(request(UP, accept=accept)), headers=headers)
    (job,) = served.services.workers.jobs
    assert (job.query.format, job.encoding) == (chosen, encoding)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/x-protobuf"},
        {"content-type": "Application/X-Protobuf; charset=x", "content-encoding": "Snappy"},
        {"content-type": "application/x-stream-protobuf", "content-encoding": "snappy"},
        {"content-type": "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"},
    ],
)
async def test_the_content_types_of_clients_are_taken(served, headers: Mapping[str, str]):
    assert (await served.http.post(READ, content=snappy(request(UP)), headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", {}, 400, "snappy: the block does not begin with its decompressed length"),
        (b"\x05\x00", {}, 400, "snappy: the body is damaged or cut short"),
        (b"\xff\xff\xff\xff\x0f", {}, 413, f"decompresses to 4294967295 bytes; the limit is {MAX_REQUEST_BYTES}"),
        (bytes(MAX_REQUEST_BYTES + 1), {}, 413, f"the request is larger than {MAX_REQUEST_BYTES} bytes"),
        (snappy(b"\x0a\x05\x08"), {}, 400, "protobuf: the field at byte 1 says it has 5 bytes"),
        (snappy(request(accept=[5])), {}, 400, "no accepted response type is known here (5)"),
        (snappy(b""), {"content-type": "application/json"}, 415, 'not as "application/json"'),
        (snappy(b""), {"content-encoding": "gzip"}, 415, 'content encoding snappy, not "gzip"'),
    ],
    ids=["empty", "damaged", "bomb", "long", "protobuf", "type", "json", "gzip"],
)
async def test_what_is_wrong_is_named_in_text(
    served, body: bytes, headers: Mapping[str, str], status: int, message: str
):
    response = await served.http.post(READ, content=body, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert message in response.text
    assert response.text.count("\n") == 1
    assert served.services.workers.jobs == []
    assert served.stats.requests[READ, status] == 1


async def test_only_post_and_only_when_ready(served):
    response = await served.http.get(READ)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    served.services.state = Replay(1, 4, False)
    response = await served.http.post(READ, content=snappy(request(UP)))
    assert (response.status_code, response.text) == (503, "the server is starting: 1 of 4 of its log is read\n")
