"""Remote writes that are taken where their body ends: the same answers, and the same stored, as on the usual way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.errors import ReadOnly, StreamgaugeError
from streamgauge.ingest.admission import InFlight, Limits
from streamgauge.ingest.remote_write import AT_ONCE_BYTES, RemoteWrite, Reply
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata
from streamgauge.stats import Stats
from streamgauge.testing import requests
from streamgauge.testing.push_receiver import receiver_of, write
from streamgauge.testing.pushes import body_of, identity
from streamgauge.testing.requests import V1, V2, Series
from streamgauge.testing.sink import MemorySink

pytestmark = pytest.mark.anyio
CLOCK = ManualClock()
NOW = CLOCK.now_ms()


class Endpoint:
    def __init__(self, limits: Limits | None = None) -> None:
        self.sink, self.stats = MemorySink((NOW - 1000, NOW + 1000)), Stats()
        turns, limits = Turns(CLOCK), limits or Limits()
        self.receiver = RemoteWrite(self.sink, self.stats, CLOCK, InFlight(1 << 28, self.stats), turns, limits)

    async def take(self, block: bytes, message: str = V1) -> tuple[Reply, bool]:
        """The answer, and whether it was taken at once."""
        ended: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        headers = requests.headers(message)
        if not self.receiver.begin(headers, block, ended.set_result):
            return await self.receiver.receive(headers, body_of(block)), False
        assert not ended.done(), "answered before it was begun"
        return await ended, True

    def metric(self, name: str) -> float:
        lines = self.stats.exposition().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def many(count: int, time: int = NOW, value: float = 1.5) -> list[Series]:
    return [Series({"__name__": "m", "i": str(number)}, [(time, value)]) for number in range(count)]


def block(series: Iterable[Series], message: str = V1) -> bytes:
    return requests.snappy((requests.v1 if message == V1 else requests.v2)(series))


@pytest.mark.parametrize("message", [V1, V2])
async def test_a_small_request_is_taken_at_once_and_counted(message: str) -> None:
    endpoint = Endpoint()
    for number in range(3):
        reply, taken = await endpoint.take(block(many(3, NOW + number), message), message)
        assert (reply.status, reply.headers["x-prometheus-remote-write-samples-written"], taken) == (204, "3", True)
    assert endpoint.sink.samples(__name__="m", i="2") == [(NOW + number, 1.5) for number in range(3)]
    assert endpoint.metric('streamgauge_ingested_samples_total{source="remote_write"}') == 9
    assert endpoint.metric('streamgauge_ingest_requests_total{code="204",source="remote_write"}') == 3
    assert endpoint.metric("streamgauge_series_cache_bytes") > 0


async def test_many_new_series_let_others_have_their_turn() -> None:
    endpoint = Endpoint()
    assert [(await endpoint.take(block(many(200))))[1] for _ in range(2)] == [False, True]


async def test_a_large_request_goes_the_usual_way() -> None:
    series = [Series({"__name__": "m", "i": "x" * 200}, [(NOW, 1.0)])]
    for limits, count in ((None, AT_ONCE_BYTES // 200), (Limits(body=10), 1), (Limits(content=100), 1)):
        _, taken = await Endpoint(limits).take(block(series * count))
        assert not taken


async def test_what_is_refused_of_a_request_is_named() -> None:
    endpoint = Endpoint()
    reply, taken = await endpoint.take(block([*many(2), *many(3, NOW - 2000)]))
    assert (reply.status, taken) == (400, True)
    assert reply.body.startswith("2 samples were stored; 3 items were not: 3 too_old")
    assert endpoint.metric('streamgauge_refused_total{reason="too_old",source="remote_write"}') == 3
    assert endpoint.metric('streamgauge_ingest_requests_total{code="400",source="remote_write"}') == 1
    assert endpoint.metric('streamgauge_ingest_request_duration_seconds_count{source="remote_write"}') == 1


async def test_metadata_that_was_not_stored_comes_with_the_retry() -> None:
    endpoint = Endpoint()
    body = requests.v2([Series({"__name__": "m"}, [(NOW, 1.0)], metadata=("counter", "Help.", ""))])
    endpoint.sink.failure = ReadOnly("the disk is full")
    reply, taken = await endpoint.take(requests.snappy(body), V2)
    assert (reply.status, taken, reply.headers["retry-after"]) == (503, True, "5")
    assert (endpoint.sink.appends, endpoint.sink.metadata) == (0, {})
    endpoint.sink.failure = None
    reply, taken = await endpoint.take(requests.snappy(body), V2)
    assert (reply.status, taken) == (204, True)
    assert endpoint.sink.metadata == {"m": Metadata("m", "counter", "Help.")}


# ---- against the usual way ------------------------------------------------------------------------------------------

CONTENT = {V1: requests.v1, V2: requests.v2}
SERIES = [
    Series({"__name__": "m", "_id": "one"}, [(NOW, 1.0), (NOW + 1, 2.0)]),
    Series({"__name__": "m", "_id": "one", "x": "y"}, [(NOW, 0.0)]),
    Series({"__name__": "n", "_id": "one"}, [(NOW, 3.0)]),
]


@st.composite
def bodies(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Requests of both versions, some of which were changed on the way."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        message = draw(st.sampled_from([V1, V2]))
        content = bytearray(CONTENT[message](SERIES))
        for _ in range(draw(st.integers(0, 2))):
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
        found.append((message, requests.snappy(bytes(content[: draw(st.sampled_from([len(content), 30, 75]))]))))
    return found


@settings(max_examples=40)
@given(bodies())
async def test_a_body_gives_what_it_gives_on_the_usual_way(sent: list[tuple[str, bytes]]) -> None:
    quick, plain = Endpoint(), Endpoint()
    for message, body in [(V1, block(SERIES)), *sent, (V1, block(SERIES))]:
        reply, _ = await quick.take(body, message)
        usual = await plain.receiver.receive(requests.headers(message), body_of(body))
        assert (reply.status, reply.headers, reply.body) == (usual.status, usual.headers, usual.body)
        assert rows_of(quick.sink) == rows_of(plain.sink)


@settings(max_examples=40)
@given(bodies())
async def test_a_body_of_a_cluster_gives_what_it_gives_on_the_usual_way(sent: list[tuple[str, bytes]]) -> None:
    sinks = MemorySink((NOW - 9, NOW)), MemorySink((NOW - 9, NOW))  # NOW + 1 is too new
    quick, plain = (receiver_of(sink, Stats(), CLOCK) for sink in sinks)
    for message, body in [(V1, block(SERIES)), *sent, (V1, block(SERIES))]:
        headers = requests.headers(message)

        async def quickly(headers: Mapping[str, str] = headers, body: bytes = body) -> Mapping[str, str]:
            return (await write(quick, identity(), headers, body))[0]

        async def plainly(headers: Mapping[str, str] = headers, body: bytes = body) -> Mapping[str, str]:
            return await plain.receive(identity(), headers, body_of(body))

        outcomes = []
        for send in (quickly, plainly):
            try:
                outcomes.append(str(await send()))
            except StreamgaugeError as error:
                outcomes.append(f"{error.status} {error.message}")
        assert outcomes[0] == outcomes[1]
        assert rows_of(sinks[0]) == rows_of(sinks[1])


def rows_of(sink: MemorySink) -> list[tuple[bytes, int, int]]:
    """In the order in which they were stored, however they were divided."""
    return [
        (sink.keys[series], time, bits)
        for batch in sink.batches
        for series, time, bits in zip(
            batch.series.tolist(), batch.times.tolist(), batch.values.view("i8").tolist(), strict=True
        )
    ]
