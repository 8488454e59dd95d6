"""The remote-write endpoint, transport aside: what it answers, and what is stored by then."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import IndexFull, Overloaded, ReadOnly, StreamgaugeError, SyncFailed
from streamgauge.ingest.admission import InFlight, Limits
from streamgauge.ingest.remote_write import Protocol, RemoteWrite, Reply, negotiate
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.wire.snappy import compress

NOW = 1_790_000_000_000
V1 = {"content-type": "application/x-protobuf", "content-encoding": "snappy"}
V2 = {**V1, "content-type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}
WRITTEN = "x-prometheus-remote-write-{}-written"


def varint(number: int) -> bytes:
    out = []
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + varint(len(content)) + content


def sample(time: int, value: float) -> bytes:
    return message(0x12, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time))


def label(name: str, value: str) -> bytes:
    return message(0x0A, message(0x0A, name.encode()) + message(0x12, value.encode()))


def series(number: int, *samples: bytes) -> bytes:
    return message(0x0A, label("__name__", "m") + label("i", str(number)) + b"".join(samples))


HISTOGRAM = message(0x22, b"\x19" + bytes(8))
EXEMPLAR = message(0x1A, b"\x11" + bytes(8))


async def chunks(data: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(0)


class Endpoint:
    def __init__(self, limits: Limits | None = None, sink: MemorySink | None = None) -> None:
        self.sink = sink or MemorySink()
        self.stats = Stats()
        limits = limits or Limits()
        self.inflight = InFlight(limits.inflight, self.stats)
        self.remote_write = RemoteWrite(self.sink, self.stats, ManualClock(NOW), self.inflight, Turns(), limits)

    async def post(self, data: bytes, headers: dict[str, str] = V1) -> Reply:
        return await self.remote_write.receive(headers, chunks(compress(data)))

    def send(self, data: bytes, headers: dict[str, str] = V1) -> Reply:
        return asyncio.run(self.post(data, headers))

    def metric(self, line: str) -> float:
        """The value of a line of our own metrics; 0 when it is not there."""
        for found in self.stats.exposition().decode().splitlines():
            if found.startswith(line + " "):
                return float(found.rsplit(" ", 1)[1])
        return 0.0


def test_a_stored_request_is_answered_204_with_what_was_written() -> None:
    endpoint = Endpoint()
    reply = endpoint.send(series(1, sample(NOW, 1.0), sample(NOW + 1, 2.0)) + series(2, sample(NOW, 3.0)))
    assert (reply.status, reply.body) == (204, "")
    assert [reply.headers[WRITTEN.format(what)] for what in ("samples", "histograms", "exemplars")] == ["3", "0", "0"]
    assert endpoint.sink.samples(__name__="m", i="1") == [(NOW, 1.0), (NOW + 1, 2.0)]
    assert endpoint.metric('streamgauge_ingested_samples_total{source="remote_write"}') == 3
    assert endpoint.metric('streamgauge_ingest_requests_total{code="204",source="remote_write"}') == 1


def test_version_2_is_chosen_by_the_content_type() -> None:
    endpoint = Endpoint()
    symbols = b"".join(message(0x22, symbol) for symbol in (b"", b"__name__", b"m", b"Help."))
    body = message(0x0A, b"\x01\x02") + sample(NOW, 1.5) + message(0x2A, b"\x08\x01\x18\x03")
    reply = endpoint.send(symbols + message(0x2A, body), V2)
    assert reply.status == 204
    assert reply.headers[WRITTEN.format("samples")] == "1"
    assert endpoint.sink.samples(__name__="m") == [(NOW, 1.5)]
    assert endpoint.sink.metadata == {"m": Metadata("m", "counter", "Help.")}


def test_an_empty_request_is_stored() -> None:
    assert Endpoint().send(b"").status == 204


def test_metadata_alone_is_stored() -> None:
    endpoint = Endpoint()
    data = message(0x1A, b"\x08\x02" + message(0x12, b"m") + message(0x22, b"Help."))
    assert endpoint.send(data).status == 204
    assert endpoint.sink.metadata == {"m": Metadata("m", "gauge", "Help.")}


@pytest.mark.parametrize(
    ("headers", "protocol"),
    [
        ({}, Protocol.V1),
        (V1, Protocol.V1),
        ({"content-type": "application/x-protobuf; proto=prometheus.WriteRequest"}, Protocol.V1),
        (V2, Protocol.V2),
        ({"content-type": 'Application/X-Protobuf ; Proto="io.prometheus.write.v2.Request"'}, Protocol.V2),
    ],
)
def test_what_is_spoken(headers: dict[str, str], protocol: Protocol) -> None:
    assert negotiate(headers) is protocol


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"content-type": "application/json"}, "application/json"),
        ({"content-type": "text/plain"}, "text/plain"),
        ({"content-type": "application/x-protobuf;proto=io.prometheus.write.v3.Request"}, "v3.Request"),
        ({**V1, "content-encoding": "gzip"}, "gzip"),
        ({**V1, "content-encoding": "identity"}, "identity"),
    ],
)
def test_what_is_not_spoken_is_answered_415_by_name(headers: dict[str, str], what: str) -> None:
    reply = Endpoint().send(b"", headers)
    assert reply.status == 415
    assert what in reply.body


def test_the_valid_part_is_stored_and_the_rest_is_named() -> None:
    endpoint = Endpoint(sink=MemorySink((NOW, NOW + 10)))
    data = b"".join(
        (
            series(1, sample(NOW, 1.0)),
            message(0x0A, label("__name__", "bad") + label("a", "1") + label("a", "2") + sample(NOW, 1.0)),
            series(2, sample(NOW - 1, 1.0), sample(NOW, 2.0), sample(NOW + 11, 3.0)),
            series(3, sample(NOW, 4.0), HISTOGRAM, EXEMPLAR),
        )
    )
    for _ in range(2):  # a repeated request is answered alike
        reply = endpoint.send(data)
        assert reply.status == 400
        assert reply.headers[WRITTEN.format("samples")] == "3"
        assert reply.headers[WRITTEN.format("histograms")] == "0"
        first, *examples = reply.body.splitlines()
        assert first == (
            "3 samples were stored; 5 items were not: "
            "1 exemplar, 1 invalid_labels, 1 native_histogram, 1 too_new, 1 too_old"
        )
        assert len(examples) == 5
        assert any('bad{a="1",a="2"}' in example and "more than once" in example for example in examples)
        assert any('m{i="2"}' in example and str(NOW - 1) in example for example in examples)
    assert endpoint.sink.samples(__name__="m", i="1") == [(NOW, 1.0)]
    assert endpoint.sink.samples(__name__="m", i="2") == [(NOW, 2.0)]
    assert endpoint.sink.samples(__name__="m", i="3") == [(NOW, 4.0)]
    assert endpoint.metric('streamgauge_refused_total{reason="too_old",source="remote_write"}') == 2


def test_a_series_without_room_is_named_and_does_not_hold_up_the_others() -> None:
    endpoint = Endpoint()
    endpoint.send(series(1, sample(NOW, 1.0)))
    endpoint.sink.refuse_series = IndexFull("the series index is full")
    reply = endpoint.send(series(1, sample(NOW + 1, 1.0)) + series(2, sample(NOW, 1.0)))
    assert reply.status == 400
    assert "series_limit" in reply.body
    assert "the series index is full" in reply.body
    assert len(endpoint.sink.samples(__name__="m", i="1")) == 2


def test_a_request_that_breaks_off_keeps_what_came_before() -> None:
    endpoint = Endpoint()
    data = b"".join(series(i, sample(NOW, 1.0)) for i in range(3000))
    reply = endpoint.send(data[:-3])
    assert reply.status == 400
    assert "at byte" in reply.body
    assert "2999 samples before that were stored" in reply.body
    assert len(endpoint.sink.series()) == 2999


@pytest.mark.parametrize("block", [b"", b"\x05abc", b"\xff\xff\xff\xff\xff\xff"])
def test_a_body_that_is_not_snappy_is_answered_400(block: bytes) -> None:
    reply = asyncio.run(Endpoint().remote_write.receive(V1, chunks(block)))
    assert reply.status == 400
    assert "snappy" in reply.body


@pytest.mark.parametrize("failure", [ReadOnly("the disk is full"), SyncFailed("sync failed"), Overloaded("busy", 3)])
def test_a_failure_that_a_retry_can_cure_is_answered_503(failure: StreamgaugeError) -> None:
    endpoint = Endpoint()
    endpoint.sink.failure = failure
    data = series(1, sample(NOW, 1.0)) + message(0x1A, b"\x08\x02" + message(0x12, b"m"))
    reply = endpoint.send(data)
    assert (reply.status, reply.body) == (503, failure.message + "\n")
    assert reply.headers["retry-after"] == ("3" if isinstance(failure, Overloaded) else "5")
    assert reply.headers[WRITTEN.format("samples")] == "0"
    endpoint.sink.failure = None
    assert endpoint.send(data).status == 204
    assert endpoint.sink.samples(__name__="m", i="1") == [(NOW, 1.0)]
    assert "m" in endpoint.sink.metadata


def test_metadata_of_version_2_that_was_not_stored_comes_with_the_retry() -> None:
    endpoint = Endpoint()
    symbols = b"".join(message(0x22, symbol) for symbol in (b"", b"__name__", b"m", b"Help."))
    body = message(0x0A, b"\x01\x02") + sample(NOW, 1.5) + message(0x2A, b"\x08\x01\x18\x03")
    endpoint.sink.failure = ReadOnly("the disk is full")
    assert endpoint.send(symbols + message(0x2A, body), V2).status == 503
    endpoint.sink.failure = None
    assert endpoint.send(symbols + message(0x2A, body), V2).status == 204
    assert "m" in endpoint.sink.metadata


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_while_it_is_read() -> None:
    endpoint = Endpoint(Limits(body=1000))
    consumed = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal consumed
        while True:
            consumed += 1
            yield bytes(100)

    reply = asyncio.run(endpoint.remote_write.receive(V1, endless()))
    assert (reply.status, consumed) == (413, 11)
    announced = asyncio.run(endpoint.remote_write.receive({**V1, "content-length": "1001"}, endless()))
    assert (announced.status, consumed) == (413, 11)
    assert "the limit is 1000" in announced.body


def test_a_decompression_bomb_is_refused() -> None:
    endpoint = Endpoint(Limits(content=1 << 20))
    bomb = compress(bytes(2 << 20))
    assert len(bomb) < 1 << 17
    reply = asyncio.run(endpoint.remote_write.receive(V1, chunks(bomb)))
    assert reply.status == 413
    assert "the limit is 1048576" in reply.body


def test_requests_beyond_the_memory_for_them_are_told_to_come_again() -> None:
    endpoint = Endpoint(Limits(inflight=10_000))

    async def scenario() -> tuple[Reply, Reply, Reply]:
        going_on = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield compress(series(1, sample(NOW, 1.0)))
            await going_on.wait()

        first = asyncio.create_task(endpoint.remote_write.receive(V1, slow()))
        await asyncio.sleep(0)
        refused = await endpoint.post(b"".join(series(i, sample(NOW, 1.0)) for i in range(300)))
        going_on.set()
        return await first, refused, await endpoint.post(series(2, sample(NOW, 1.0)))

    first, refused, later = asyncio.run(scenario())
    assert (first.status, refused.status, later.status) == (204, 503, 204)
    assert refused.headers["retry-after"] == "1"
    assert endpoint.metric("streamgauge_ingest_inflight_bytes") == 0


def test_a_sender_that_goes_away_leaves_nothing_behind() -> None:
    endpoint = Endpoint()

    class Gone(Exception):
        pass

    async def breaks() -> AsyncIterator[bytes]:
        yield b"abc"
        raise Gone

    with pytest.raises(Gone):
        asyncio.run(endpoint.remote_write.receive(V1, breaks()))
    assert endpoint.metric("streamgauge_ingest_inflight_bytes") == 0
    assert endpoint.sink.batches == []


# ---- living with the store ------------------------------------------------------------------------------------------


def test_other_tasks_run_between_the_batches_of_a_large_request() -> None:
    endpoint = Endpoint()
    data = b"".join(series(i, sample(NOW, 1.0)) for i in range(20_000))

    async def scenario() -> tuple[Reply, int]:
        turns = 0
        request = asyncio.create_task(endpoint.post(data))
        while not request.done():
            turns += 1
            await asyncio.sleep(0)
        return await request, turns

    reply, turns = asyncio.run(scenario())
    assert reply.headers[WRITTEN.format("samples")] == "20000"
    assert turns > 12  # ten batches, and the body before them


def test_the_batches_of_a_request_wait_for_the_disk_together() -> None:
    """They all have to be under way before the first is done, or each would need a sync of its own."""

    class SlowSink(MemorySink):
        waiting = 0
        most = 0

        async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            if self.waiting == 5:
                all_waiting.set()
            await synced.wait()
            self.waiting -= 1
            await super().append(batch, metadata)

    sink = SlowSink()
    endpoint = Endpoint(sink=sink)
    data = b"".join(series(i, sample(NOW, 1.0)) for i in range(10_000))
    synced, all_waiting = asyncio.Event(), asyncio.Event()

    async def scenario() -> Reply:
        request = asyncio.create_task(endpoint.post(data))
        await all_waiting.wait()
        assert not request.done()
        synced.set()
        return await request

    assert asyncio.run(scenario()).status == 204
    assert sink.most >= 5


def test_ids_that_became_invalid_on_the_way_are_never_used() -> None:
    """The store prunes series while a request is being decoded: MemorySink fails on an id of before."""
    endpoint = Endpoint()
    data = b"".join(series(i, sample(NOW, 1.0)) for i in range(10_000))

    async def scenario() -> Reply:
        request = asyncio.create_task(endpoint.post(data))
        for turn in range(40):
            await asyncio.sleep(0)
            if turn in (9, 17):
                endpoint.sink.prune()
        return await request

    assert asyncio.run(scenario()).status == 204
    assert all(endpoint.sink.samples(__name__="m", i=str(i)) for i in range(0, 10_000, 997))


def test_a_store_that_prunes_all_the_time_is_answered_503() -> None:
    endpoint = Endpoint()
    data = b"".join(series(i, sample(NOW, 1.0)) for i in range(5_000))

    async def scenario() -> Reply:
        request = asyncio.create_task(endpoint.post(data))
        while not request.done():
            endpoint.sink.prune()
            await asyncio.sleep(0)
        return await request

    assert asyncio.run(scenario()).status == 503


def test_many_senders_at_once() -> None:
    endpoint = Endpoint()

    async def scenario() -> list[Reply]:
        requests = [
            endpoint.post(b"".join(series(i, sample(NOW + turn, 1.0)) for i in range(start, start + 3000)))
            for turn in range(3)
            for start in (0, 1500, 3000)
        ]
        return list(await asyncio.gather(*requests))

    assert {reply.status for reply in asyncio.run(scenario())} == {204}
    assert all(len(endpoint.sink.samples(__name__="m", i=str(i))) == 3 for i in (0, 2000, 4000, 5999))
