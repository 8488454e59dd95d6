"""The receiver of events, with a sink in memory: what is counted is stored, and nothing else is."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterable

import pyarrow as pa
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import BadInput, IndexConflict, Overloaded, ReadOnly, SyncFailed, TooLarge, UnsupportedMedia
from streamgauge.ingest.admission import InFlight
from streamgauge.ingest.event_writer import ALL_GATHERED, GATHERED
from streamgauge.ingest.events import (
    FEW_LINES,
    HTTP,
    LONG,
    WEBSOCKET,
    EventLimits,
    Events,
    Opening,
    Received,
    few_lines,
)
from streamgauge.ingest.turns import Turns
from streamgauge.model.owned import client_name
from streamgauge.stats import Stats
from streamgauge.testing.event_sink import MemoryEventSink
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio
ZSTD = pa.Codec("zstd")


@pytest.fixture
def sink(clock: ManualClock) -> MemoryEventSink:
    return MemoryEventSink(clock)


class Receiver:
    """Posts bodies to a receiver."""

    def __init__(
        self, sink: MemoryEventSink, stats: Stats, clock: ManualClock, limits: EventLimits, inflight: int
    ) -> None:
        self.inflight = InFlight(inflight, stats)
        self.events = Events(sink, stats, clock, self.inflight, Turns(), limits)

    async def post(
        self, *chunks: bytes, lines: bool = False, name: str = "", first: int = 1, **headers: str
    ) -> Received:
        opening = Opening(HTTP, "{}", name, first)
        named = {header.replace("_", "-"): value for header, value in headers.items()}
        return await self.events.receive(opening, named, stream(chunks), lines)


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.fixture
def receiver(sink: MemoryEventSink, stats: Stats, clock: ManualClock) -> Receiver:
    return Receiver(sink, stats, clock, EventLimits(event=1000, streams=2, compressed=4000), 8000 + (8 << 20))


def metric(stats: Stats, line: str) -> float:
    return next(
        float(one.rpartition(" ")[2]) for one in stats.exposition().decode().splitlines() if one.startswith(f"{line} ")
    )


# ---- the outcomes of a request --------------------------------------------------------------------------------------


async def test_all_events_of_a_body_are_stored_and_counted(
    receiver: Receiver, sink: MemoryEventSink, stats: Stats
) -> None:
    received = await receiver.post(b'{"a":1}{"b"', b': "\xc3', b'\xa9"}\n[3]\n 4')
    assert (received.count, received.next_index, received.error) == (4, 5, None)
    assert sink.payloads(received.stream) == [b'{"a":1}', '{"b": "é"}'.encode(), b"[3]", b"4"]
    assert metric(stats, 'streamgauge_ingested_events_total{source="events_http"}') == 4
    assert metric(stats, 'streamgauge_ingest_requests_total{code="200",source="events_http"}') == 1
    assert metric(stats, 'streamgauge_ingest_request_bytes_total{source="events_http"}') == 25
    assert metric(stats, "streamgauge_event_streams") == 0


@pytest.mark.parametrize("chunks", [[], [b""], [b" \n", b"\t"]])
async def test_a_body_without_events_makes_a_stream(
    receiver: Receiver, sink: MemoryEventSink, chunks: list[bytes]
) -> None:
    received = await receiver.post(*chunks)
    assert (received.count, received.next_index, received.error) == (0, 1, None)
    assert sink.streams.keys() == {received.stream}
    assert sink.payloads(received.stream) == []


async def test_each_request_is_a_stream_that_begins_at_one(receiver: Receiver, sink: MemoryEventSink) -> None:
    one, two = await receiver.post(b"1 2 3"), await receiver.post(b"4")
    assert one.stream != two.stream
    assert sink.payloads(one.stream) == [b"1", b"2", b"3"]
    assert sink.payloads(two.stream) == [b"4"]


@pytest.mark.parametrize(
    ("body", "kept", "error", "event", "byte"),
    [
        (b'{"a":1}\n{"a":}\n{"a":3}', 1, BadInput, 2, 13),
        (b"1,2", 1, BadInput, 2, 1),
        (b"\xef\xbb\xbf{}", 0, BadInput, 1, 0),
        (b"[1] NaN", 1, BadInput, 2, 4),
        (b'{"a":1}{"a":', 1, BadInput, 2, 12),
        (b'"a" "\xff"', 1, BadInput, 2, 5),
        (b'1 "' + b"x" * 1000 + b'"', 1, TooLarge, 2, 2),
    ],
)
async def test_what_came_before_something_wrong_is_stored(
    receiver: Receiver,
    sink: MemoryEventSink,
    stats: Stats,
    body: bytes,
    kept: int,
    error: type[Exception],
    event: int,
    byte: int,
) -> None:
    for chunks in ([body], [body[at : at + 1] for at in range(len(body))]):
        received = await receiver.post(*chunks)
        assert type(received.error) is error
        assert received.stop is not None
        assert (received.count, received.stop.event, received.stop.byte) == (kept, event, byte)
        assert len(sink.payloads(received.stream)) == kept
        assert received.next_index == kept + 1
    reason = "too_large" if error is TooLarge else "malformed"
    assert metric(stats, f'streamgauge_refused_total{{reason="{reason}",source="events_http"}}') == 2


async def test_a_failed_append_is_not_counted_and_what_came_before_is(
    receiver: Receiver, sink: MemoryEventSink
) -> None:
    sink.failure, sink.fail_after = SyncFailed("the disk is gone"), 1
    event = b'"' + b"x" * 900 + b'"'

    async def body() -> AsyncIterator[bytes]:
        yield event * 3
        await until(lambda: bool(sink.appends))
        for _ in range(10_000):
            yield event

    received = await receiver.events.receive(Opening(HTTP, "{}"), {}, body())
    assert isinstance(received.error, SyncFailed)
    assert (received.count, received.next_index) == (3, 4)
    assert len(sink.payloads(received.stream)) == 3


async def test_a_failure_ends_a_body_that_does_not_go_on(receiver: Receiver, sink: MemoryEventSink) -> None:
    sink.failure = SyncFailed("the disk is gone")

    async def body() -> AsyncIterator[bytes]:
        yield b"1 "
        await asyncio.Event().wait()

    received = await receiver.events.receive(Opening(HTTP, "{}"), {}, body())
    assert (received.count, received.error) == (0, sink.failure)


async def test_a_stream_that_cannot_be_made_is_an_error_without_events(
    receiver: Receiver, sink: MemoryEventSink
) -> None:
    sink.refusal = Overloaded("too many streams")
    received = await receiver.post(b"{}")
    assert (received.count, received.stream, received.error) == (0, 0, sink.refusal)
    sink.refusal, sink.failure = None, ReadOnly("the disk is full")
    received = await receiver.post(b"")
    assert (received.count, type(received.error)) == (0, ReadOnly)


async def test_what_was_read_is_stored_when_the_client_goes_away(receiver: Receiver, sink: MemoryEventSink) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"1 2 3 [4"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await receiver.events.receive(Opening(HTTP, "{}"), {}, body())
    assert sink.payloads() == [b"1", b"2", b"3"]
    assert receiver.events.limits.streams == 2
    for _ in range(3):  # it is no longer counted as open
        assert (await receiver.post(b"1")).error is None


# ---- other bodies ---------------------------------------------------------------------------------------------------


async def test_each_line_is_an_event_where_that_is_asked_for(receiver: Receiver, sink: MemoryEventSink) -> None:
    received = await receiver.post(b'GET /\n{"a":1', b"}\r\n\n\xff\n7", lines=True)
    assert (received.count, received.error) == (5, None)
    assert sink.payloads() == [b'"GET /"', b'{"a":1}', b'""', b'{"base64":"/w=="}', b"7"]
    received = await receiver.post(b"a\n" + b"x" * 1001, lines=True)
    assert (received.count, type(received.error)) == (1, TooLarge)


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\n\n", b" "])
async def test_short_values_are_taken_a_few_thousand_at_a_time(
    receiver: Receiver, sink: MemoryEventSink, ends: bytes
) -> None:
    piece = ends.join(b"%d" % (n % 10) for n in range(FEW_LINES * 3 + 5))
    assert b"".join(few_lines(piece)) == piece
    assert max(part.count(b"\n") for part in few_lines(piece)) <= FEW_LINES
    assert (await receiver.post(piece)).count == FEW_LINES * 3 + 5
    assert sink.payloads(1) == [b"%d" % (n % 10) for n in range(FEW_LINES * 3 + 5)]


async def test_what_is_long_is_looked_at_aside_with_the_same_result(
    sink: MemoryEventSink, stats: Stats, clock: ManualClock
) -> None:
    receiver = Receiver(sink, stats, clock, EventLimits(), 64 << 20)
    text = b'"' + b"\\ud83d\\ude00\\ud83dx" * (LONG // 12) + b'"'
    mended = text.replace(b"\\ud83dx", b"\\ufffdx")
    chunks = [text[at : at + 300_001] for at in range(0, len(text), 300_001)]
    first = await receiver.post(*chunks, b"[1]", text[:-1])
    assert (first.count, str(first.error)) == (
        2,
        f"event 3, byte {len(text) + 3 + len(text) - 1}: the body ends inside this event",
    )
    assert sink.payloads(1) == [mended, b"[1]"]

    async def messages() -> AsyncIterator[list[bytes]]:
        yield [b"1", text, b"x" * LONG]
        yield [text]

    async with receiver.events.stream(Opening(WEBSOCKET, "{}")) as writer:
        await receiver.events.receive_messages(writer, messages())
    assert sink.payloads(2) == [b"1", mended, b'"' + b"x" * LONG + b'"', mended]


@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_compressed_bodies_are_read_as_they_come(receiver: Receiver, sink: MemoryEventSink, step: int) -> None:
    lines = [json.dumps({"n": n}).encode() + b"\n" for n in range(500)]
    halves = [b"".join(lines[:250]), b"".join(lines[250:])]
    for coding, body in (
        ("gzip", b"".join(map(gzip.compress, halves))),
        ("zstd", b"".join(ZSTD.compress(half, asbytes=True) for half in halves)),
    ):
        chunks = [body[at : at + step] for at in range(0, len(body), step)]
        received = await receiver.post(*chunks, content_encoding=coding)
        assert (received.count, received.error) == (500, None)
        assert sink.payloads(received.stream) == [line.strip() for line in lines]
        received = await receiver.post(*chunks[:-1], body[(len(chunks) - 1) * step : -1], content_encoding=coding)
        assert isinstance(received.error, BadInput)
        assert received.error.message == "the compressed body is cut off"


async def test_damage_and_other_codings_are_refused(receiver: Receiver) -> None:
    received = await receiver.post(b"{}", content_encoding="br")
    assert isinstance(received.error, UnsupportedMedia)
    for coding in ("gzip", "zstd"):
        received = await receiver.post(b"this is neither", content_encoding=coding)
        assert isinstance(received.error, BadInput)
        assert f"is no {coding}" in received.error.message


async def test_a_compressed_bomb_is_one_event_too_large(receiver: Receiver, sink: MemoryEventSink) -> None:
    bomb = b"[1]" + b'"' + b"x" * (20 << 20)
    received = await receiver.post(gzip.compress(bomb), content_encoding="gzip")
    assert (received.count, type(received.error)) == (1, TooLarge)
    received = await receiver.post(ZSTD.compress(bomb, asbytes=True), content_encoding="zstd")
    assert (received.count, type(received.error)) == (1, TooLarge)
    assert (await receiver.post(b"x" * 4001, content_encoding="zstd")).count == 0


def zstd_frame(window: int, content: bytes, checksum: bool = False) -> bytes:
    """A frame of one block that is as it is, which asks for a window of so many KiB, a power of two."""
    header = bytes((4 * checksum, (window.bit_length() - 1) << 3))
    block = (len(content) << 3 | 1).to_bytes(3, "little") + content
    return b"\x28\xb5\x2f\xfd" + header + block + bytes(4 * checksum)


WIDE = zstd_frame(128 << 10, b"2")


@pytest.mark.parametrize(
    "body",
    [
        WIDE,
        b"\x53\x2a\x4d\x18\x05\x00\x00\x00hello" + WIDE,
        zstd_frame(1, b"1 ") + WIDE,
        zstd_frame(1, b"1 ", checksum=True) + WIDE,
        ZSTD.compress(b"1 " * 70_000, asbytes=True) + WIDE,
        ZSTD.compress(b"1 " * 5, asbytes=True) + WIDE,
        # the window of a frame in one segment is its content
        b"\x28\xb5\x2f\xfd\xa0" + (100 << 20).to_bytes(4, "little") + b"\x01\x00\x00",
    ],
)
async def test_a_zstd_window_that_takes_too_much_memory_is_refused_in_any_frame(
    receiver: Receiver, sink: MemoryEventSink, body: bytes
) -> None:
    received = await receiver.post(body, content_encoding="zstd")
    assert isinstance(received.error, BadInput)
    assert "window" in received.error.message
    assert sink.payloads() == []


async def test_zstd_frames_of_many_blocks_and_sizes_are_read(
    sink: MemoryEventSink, stats: Stats, clock: ManualClock
) -> None:
    many = b"\x28\xb5\x2f\xfd\x00\x00" + b"\x10\x00\x00 1" * 9000 + b"\x01\x00\x00"
    skipped = b"\x5f\x2a\x4d\x18\x02\x00\x00\x00xx"
    repeated = b"\x28\xb5\x2f\xfd\x00\x00" + (64 << 3 | 3).to_bytes(3, "little") + b" "
    sized = [ZSTD.compress(b"[" + b"1," * size + b"1]", asbytes=True) for size in (5, 500, 50_000, 5_000_000)]
    body = b"".join((skipped, repeated, *sized, many, zstd_frame(8 << 10, b" 2")))
    receiver = Receiver(sink, stats, clock, EventLimits(), 32 << 20)
    received = await receiver.post(body, content_encoding="zstd")
    assert (received.error, received.count) == (None, 4 + 9000 + 1)


# ---- bounds ---------------------------------------------------------------------------------------------------------


async def test_unfinished_events_count_as_memory_of_requests(
    sink: MemoryEventSink, stats: Stats, clock: ManualClock
) -> None:
    receiver = Receiver(sink, stats, clock, EventLimits(event=10_000), 2000)
    received = await receiver.post(b'1 "', b"x" * 900, b"x" * 900, b"x" * 900, b'"')
    assert isinstance(received.error, Overloaded)
    assert (received.count, received.error.retry_after) == (1, 1)
    assert (await receiver.post(*[b'"' + b"x" * 900, b'"'] * 10)).count == 10
    assert metric(stats, "streamgauge_ingest_inflight_bytes") == 0


async def test_a_body_is_read_no_faster_than_it_is_stored(receiver: Receiver, sink: MemoryEventSink) -> None:
    sink.gate.clear()
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(10_000):
            read += 1
            yield b'"' + b"x" * 990 + b'"\n'

    work = asyncio.create_task(receiver.events.receive(Opening(HTTP, "{}"), {}, body()))
    before = -1
    while read != before:
        before = read
        for _ in range(100):
            await asyncio.sleep(0)
    assert GATHERED < read * 1000 < 2 * GATHERED
    sink.gate.set()
    assert (await work).count == 10_000
    assert sum(sink.appends[:2]) == before, "what gathers while the disk is busy goes there together"


async def test_many_streams_together_gather_little_while_the_disk_is_slow(
    sink: MemoryEventSink, stats: Stats, clock: ManualClock
) -> None:
    receiver = Receiver(sink, stats, clock, EventLimits(), 1 << 30)
    sink.gate.clear()
    read = [0] * 300

    async def body(number: int) -> AsyncIterator[bytes]:
        for _ in range(9):
            read[number] += 1
            yield (b'"' + b"x" * 997 + b'"\n') * 128

    works = [asyncio.create_task(receiver.events.receive(Opening(HTTP, "{}"), {}, body(n))) for n in range(300)]
    await until(lambda: sink.waiting == 300)
    sizes = [receiver.events._on_their_way.size]
    while len(sizes) < 100 or sizes[-1] != sizes[-100]:
        await asyncio.sleep(0)
        sizes.append(receiver.events._on_their_way.size)
    assert sizes[-1] < ALL_GATHERED + 300 * (140 << 10)
    sink.gate.set()
    assert [(await work).count for work in works] == [9 * 128] * 300
    assert receiver.events._on_their_way.size == 0


async def test_requests_at_once_are_limited(receiver: Receiver, stats: Stats) -> None:
    release = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"1 "
        await release.wait()

    begun = [asyncio.create_task(receiver.events.receive(Opening(HTTP, "{}"), {}, body())) for _ in range(2)]
    await until(lambda: metric(stats, "streamgauge_event_streams") == 2)
    received = await receiver.post(b"2")
    assert isinstance(received.error, Overloaded)
    assert received.error.retry_after == 5
    release.set()
    assert [(await work).count for work in begun] == [1, 1]
    assert (await receiver.post(b"2")).count == 1


async def test_a_rate_slows_a_body_down(sink: MemoryEventSink, stats: Stats, clock: ManualClock) -> None:
    receiver = Receiver(sink, stats, clock, EventLimits(rate=100), 1 << 20)
    work = asyncio.create_task(receiver.post(*[b'"' + b"x" * 47 + b'"\n'] * 10))
    for stored in (2, 4, 6):
        for _ in range(50):
            await asyncio.sleep(0)
        assert sum(sink.appends) in (stored - 1, stored)
        await clock.advance(1)
    await clock.advance(10)
    assert (await work).count == 10


# ---- streams with names ---------------------------------------------------------------------------------------------


async def test_events_that_are_sent_again_are_stored_once(receiver: Receiver, sink: MemoryEventSink) -> None:
    received = await receiver.post(b"1 2 3", name="a")
    assert (received.count, received.next_index) == (3, 4)
    received = await receiver.post(b"2 3 4 5", name="a", first=2)
    assert (received.count, received.next_index, received.error) == (4, 6, None)
    received = await receiver.post(b"1 2", name="a", first=1)
    assert (received.count, received.next_index, received.error) == (2, 6, None)
    assert sink.payloads(received.stream) == [b"1", b"2", b"3", b"4", b"5"]


async def test_nothing_sent_asks_for_the_next_index(receiver: Receiver) -> None:
    assert (await receiver.post(b"", name="a")).next_index == 1
    await receiver.post(b"1 2", name="a")
    assert (await receiver.post(b"", name="a")).next_index == 3


async def test_a_gap_is_a_conflict_that_names_the_index_expected(receiver: Receiver, sink: MemoryEventSink) -> None:
    await receiver.post(b"1 2", name="a")
    received = await receiver.post(b"4", name="a", first=4)
    assert isinstance(received.error, IndexConflict)
    assert (received.count, received.error.expected) == (0, 3)
    assert sink.payloads() == [b"1", b"2"]


# ---- messages -------------------------------------------------------------------------------------------------------


async def test_counts_grow_with_what_is_on_disk(receiver: Receiver, sink: MemoryEventSink, stats: Stats) -> None:
    counts: list[int] = []

    async def bursts() -> AsyncIterator[list[bytes]]:
        yield [b"{}", b"text"]
        await until(lambda: bool(counts))
        sink.gate.clear()
        yield [b""]
        await until(lambda: bool(sink.waiting))
        assert counts == [2]
        yield [b"\xff", b"4"]
        sink.gate.set()

    async with receiver.events.stream(Opening(WEBSOCKET, "{}"), counts.append) as writer:
        await receiver.events.receive_messages(writer, bursts())
        assert counts == [2, 3, 5]
    assert sink.payloads() == [b"{}", b'"text"', b'""', b'{"base64":"/w=="}', b"4"]
    assert metric(stats, 'streamgauge_ingested_events_total{source="events_websocket"}') == 5
    assert sink.streams[1].transport == WEBSOCKET


async def test_streams_of_several_owners_may_have_one_name(receiver: Receiver, sink: MemoryEventSink) -> None:
    async def post(owner: str | None, first: int, *texts: bytes) -> Received:
        opening = Opening(HTTP, '{"host":"x"}', "log", first, owner)
        return await receiver.events.receive(opening, {}, stream(texts))

    owners = ("a", "b", "a/b", "a b", None)
    for count, owner in enumerate(owners, 1):
        assert (await post(owner, 1, b"1 " * count)).next_index == count + 1
    for count, owner in enumerate(owners, 1):
        again = await post(owner, 1, b"1 " * count)
        assert (again.count, again.next_index) == (count, count + 1), "nothing of another's is there already"
        gap = await post(owner, 9, b"1")
        assert isinstance(gap.error, IndexConflict)
        assert (gap.error.expected, "stream log does" in gap.error.message) == (count + 1, True)
    found = [(each.headers, client_name(each.name)) for each in sink.streams.values()]
    marks = [f'{{":owner":"{owner}","host":"x"}}' for owner in owners if owner is not None]
    assert found == [(headers, "log") for headers in (*marks, '{"host":"x"}')]
    assert len({each.name for each in sink.streams.values()}) == len(owners)
    assert not any(each.name.isprintable() for each in sink.streams.values() if each.name != "log"), "none can be sent"
