"""Remote read from the real server: both forms of answer, limits, and clients that go away."""

from __future__ import annotations

import math
import struct
import time

import pytest

from streamgauge.model.arrays import STALE_BITS
from streamgauge.testing.remote_read import (
    HEADERS,
    STREAMED_XOR_CHUNKS,
    ReadSeries,
    chunks_answer,
    query,
    request,
    samples_answer,
)
from streamgauge.testing.requests import STALE, Series, snappy
from streamgauge.testing.server import Response, ServerProcess
from streamgauge.wire.snappy import decompress

from .conftest import StartServer

NOW = int(time.time() * 1000)
QUIET_NAN = struct.unpack("<Q", struct.pack("<d", math.nan))[0]


@pytest.fixture(scope="module", autouse=True)
def data(server: ServerProcess) -> None:
    """Written in an order that is not that of their labels."""
    series = [Series({"__name__": "read", "i": str(i)}, [(NOW - 100 + i, float(i))]) for i in (5, 3, 1, 2, 4)]
    odd = [math.inf, -math.inf, -0.0, 0.0, math.nan, STALE, b"\x01\x02\x03\x04\x05\x06\xf8\x7f", 5e-324]
    series.append(Series({"__name__": "read_odd"}, [(NOW - 100_000 + 17 * i, value) for i, value in enumerate(odd)]))
    long = [(NOW - 3_600_000 + 3000 * i, float(i % 7)) for i in range(1000)]
    assert server.write([*series, Series({"__name__": "read_long", "größe": "groß"}, long)]).status == 204


def read(server: ServerProcess, body: bytes) -> Response:
    return server.request("POST", "/api/v1/read", snappy(body), HEADERS)


def both(server: ServerProcess, *queries: bytes) -> list[list[ReadSeries]]:
    """The same from both forms of answer."""
    answer = read(server, request(*queries))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-protobuf")
    assert answer.headers["content-encoding"] == "snappy"
    found = samples_answer(decompress(answer.body, 1 << 30))
    answer = read(server, request(*queries, accept=[STREAMED_XOR_CHUNKS]))
    assert answer.status == 200
    kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
    assert answer.headers["content-type"] == kind
    assert "content-encoding" not in answer.headers
    assert chunks_answer(answer.body, len(queries)) == found
    return found


def test_series_are_sorted_and_samples_have_all_their_bits(server: ServerProcess) -> None:
    one, odd = both(
        server,
        query(NOW - 99, NOW - 95, ("__name__", "=", "read")),
        query(0, NOW, ("__name__", "=~", "read_o.+")),
    )
    assert [series.labels for series in one] == [(("__name__", "read"), ("i", str(i))) for i in (1, 2, 3, 4, 5)]
    assert [series.samples[0][0] for series in one] == [NOW - 99, NOW - 98, NOW - 97, NOW - 96, NOW - 95]
    bits = [bits for _, bits in odd[0].samples]
    assert bits[2:7] == [1 << 63, 0, QUIET_NAN, STALE_BITS, 0x7FF8_0605_0403_0201]
    assert (bits[0], bits[1], bits[7]) == (0x7FF0 << 48, 0xFFF0 << 48, 1)


def test_a_long_series_comes_in_chunks(server: ServerProcess) -> None:
    ((long,),) = both(server, query(NOW - 3_600_000, NOW, ("größe", "=", "groß"), ("__name__", "=~", "read_l.*")))
    assert long.samples == [
        (NOW - 3_600_000 + 3000 * i, struct.unpack("<Q", struct.pack("<d", i % 7))[0]) for i in range(1000)
    ]


def test_nothing_is_found(server: ServerProcess) -> None:
    assert both(server, query(0, NOW, ("__name__", "=", "read_nothing")), query(5, 4, ("i", "!~", ""))) == [[], []]
    assert both(server) == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (request(query(0, NOW, ("i", "=~", "a("))), 400, "invalid regular expression 'a(' of label 'i': "),
        (request(query(0, NOW), query(0, NOW, ("i", "!~", "*")), accept=[1]), 400, "invalid regular expression '*'"),
        (b"\x0a\xff", 400, "protobuf: a number is cut off at byte 2"),
    ],
    ids=["regex", "second", "protobuf"],  # the bytes hold the time
)
def test_what_is_wrong_is_told_in_text(server: ServerProcess, body: bytes, status: int, message: str) -> None:
    answer = read(server, body)
    assert answer.status == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "content-encoding" not in answer.headers
    assert answer.text.startswith(message)


@pytest.mark.parametrize("accept", [[], [STREAMED_XOR_CHUNKS]])
def test_a_read_is_within_the_limits_of_a_query(start_server: StartServer, accept: list[int]) -> None:
    server = start_server("--query-max-samples", "500")
    samples = [(NOW - i, float(i)) for i in range(300)]
    assert server.write([Series({"__name__": "many", "i": i}, samples) for i in "ab"]).status == 204
    within = query(0, NOW, ("i", "=", "a"))
    assert read(server, request(within, accept=accept)).status == 200
    answer = read(server, request(within, within, accept=accept))
    assert answer.status == 422
    assert "needs more than 500 samples (--query-max-samples)" in answer.text
    assert server.metric('streamgauge_http_requests_total{code="422",handler="/api/v1/read"}') == 1


@pytest.mark.parametrize("accept", [[], [STREAMED_XOR_CHUNKS]])
def test_a_client_that_goes_away_cancels_its_read(start_server: StartServer, accept: list[int]) -> None:
    """Seconds of work, given up at once."""
    server = start_server("--query-max-samples", "100000000")
    samples = [(NOW - i, float(i)) for i in range(200)]
    assert server.write([Series({"__name__": "many", "i": str(i)}, samples) for i in range(1000)]).status == 204
    body = snappy(request(*[query(0, NOW, ("__name__", "=", "many"))] * 250, accept=accept))
    head = f"POST /api/v1/read HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head.encode() + body)
        while not (running := server.data_of("/api/v1/status/queries")["queries"]):
            pass
        assert running[0]["query"].startswith('read {__name__="many"} {__name__="many"}')
    while server.metric("streamgauge_query_canceled_total") == 0:
        pass
    assert server.metric("streamgauge_query_killed_total") == 0


def test_external_labels(start_server: StartServer, tmp_path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {external_labels: {replica: one}}\n")
    server = start_server("--config", str(config))
    series = [Series({"__name__": "m", "i": "1"}, [(NOW, 1.0)]), Series({"i": "2", "replica": "two"}, [(NOW, 1.0)])]
    assert server.write(series).status == 204
    every, mine = both(server, query(0, NOW), query(0, NOW, ("replica", "=", "one")))
    first = (("__name__", "m"), ("i", "1"), ("replica", "one"))
    assert [one.labels for one in every] == [first, (("i", "2"), ("replica", "two"))]
    assert [one.labels for one in mine] == [first]
