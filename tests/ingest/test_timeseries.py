"""Rows that come over gRPC, up to the store: what is stored, what is said of the rest, and what survives trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import BadInput, ForeignLabel, IndexFull, Overloaded, SyncFailed, TimeNotAdmitted
from streamgauge.ingest.admission import InFlight
from streamgauge.ingest.timeseries import SOURCE, TimeSeries
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.stats import Stats
from streamgauge.testing.sink import MemorySink
from streamgauge.wire.samples import BATCH_ROWS
from streamgauge.wire.timeseries import SECOND, encode_datum

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Site:
    def __init__(self, limit: int = 1 << 30, missing_is_now: bool = False, sink: MemorySink | None = None) -> None:
        self.clock, self.sink, self.stats = ManualClock(), sink or MemorySink(), Stats()
        self.held = InFlight(limit, self.stats)
        self.rows = TimeSeries(self.sink, self.stats, self.clock, self.held, Turns(), missing_is_now)

    def count(self, name: str, **labels: str) -> float:
        found = next(family for family in self.stats.families() if family.name == name)
        return sum(value for _, given, value in found.samples if labels.items() <= dict(given).items())


def row(value: float, second: float | None = 1.0, **labels: str) -> bytes:
    return encode_datum("m", labels, value, None if second is None else round(second * SECOND))


async def test_a_stream_is_stored_when_it_ends_and_counted() -> None:
    site = Site()
    async with site.rows.stream() as rows:
        for at in range(3):
            await rows.put(row(float(at), 1.0 + at, a="b"))
        assert site.sink.appends == 0
        await rows.finish()
    assert site.sink.appends == 1
    assert site.sink.samples(__name__="m", a="b") == [(1000, 0.0), (2000, 1.0), (3000, 2.0)]
    assert site.count("streamgauge_ingested_samples_total", source=SOURCE) == 3
    assert site.count("streamgauge_ingest_inflight_bytes") == 0


async def test_rows_of_a_stream_that_goes_on_are_stored_meanwhile() -> None:
    site = Site()
    async with site.rows.stream() as rows:
        await rows.put(row(1.0))
        await asyncio.sleep(0)
        await site.clock.advance(1.0)
        assert site.sink.samples(__name__="m") == [(1000, 1.0)]
        await rows.put(row(2.0))
    assert site.sink.samples(__name__="m") == [(1000, 2.0)]


async def test_a_client_that_goes_away_in_the_middle_leaves_what_it_sent() -> None:
    site = Site()
    with pytest.raises(asyncio.CancelledError):
        async with site.rows.stream() as rows:
            await rows.put(row(1.0))
            raise asyncio.CancelledError
    assert site.sink.samples(__name__="m") == [(1000, 1.0)]
    assert site.count("streamgauge_ingest_inflight_bytes") == 0


async def test_a_fast_sender_waits_for_the_store() -> None:
    site = Site()
    async with site.rows.stream() as rows:
        for at in range(4_500):
            await rows.put(row(float(at), float(at)))
        assert (site.sink.appends, rows.stored) == (2, 4_000)
        await rows.finish()
    assert len(site.sink.samples(__name__="m")) == 4_500


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (row(1.0, None), BadInput, "row 2: m{}: it has no timestamp"),
        (b"\xff", BadInput, "row 2: protobuf"),
        (encode_datum("", {}, 1.0, 1), BadInput, "row 2: metric must be set"),
        (row(1.0, 99.0), TimeNotAdmitted, "row 2: m{}: time 99000 ms is out of bounds"),
        (row(1.0, team="b"), ForeignLabel, 'row 2: m{team="b"}: its label team'),
    ],
)
async def test_a_row_that_is_refused_is_named_and_the_others_are_stored(
    bad: bytes, error: type[BadInput], text: str
) -> None:
    site = Site()
    site.sink.window = (0, 50_000)
    with pytest.raises(BadInput) as caught:
        async with site.rows.stream((("team", "a"),)) as rows:
            for message in (row(1.0, 1.0), bad, row(3.0, 3.0)):
                await rows.put(message)
            await rows.finish()
    assert type(caught.value) is error
    assert caught.value.message.startswith(text)
    assert "; 2 of 3 rows were stored, and refused: 1 " in rows.told(caught.value)
    assert site.sink.samples(__name__="m", team="a") == [(1000, 1.0), (3000, 3.0)]
    assert site.count("streamgauge_refused_total", source=SOURCE) == 1


async def test_the_first_row_that_is_refused_is_told_whenever_it_is_found_out() -> None:
    site = Site()
    site.sink.window = (0, 50_000)
    with pytest.raises(TimeNotAdmitted, match=r"^row 2: m\{\}: time 99000 ms is out of bounds"):
        async with site.rows.stream() as rows:
            for message in (row(1.0), row(1.0, 99.0), *[b"\xff"] * 7, row(1.0, -1.0)):
                await rows.put(message)
            await rows.finish()
    assert rows.told(BadInput("")) == "; 1 of 10 rows were stored, and refused: 7 malformed, 1 too_new, 1 too_old"


async def test_a_new_series_without_room_is_refused_as_such() -> None:
    site = Site()
    site.sink.refuse_series = IndexFull("the index is full")
    with pytest.raises(IndexFull, match="the index is full"):
        await site.rows.insert_row(row(1.0))


async def test_one_row_without_a_time_is_of_now_where_that_is_configured() -> None:
    site = Site(missing_is_now=True)
    await site.rows.insert_row(row(1.0, None))
    assert site.sink.samples(__name__="m") == [(site.clock.now_ms(), 1.0)]
    with pytest.raises(BadInput, match="no timestamp"):
        async with site.rows.stream() as rows:
            await rows.put(row(1.0, None))
            await rows.finish()


async def test_what_the_disk_refuses_is_said_and_counted() -> None:
    site = Site()
    site.sink.failure = SyncFailed("the disk is full")
    with pytest.raises(SyncFailed):
        async with site.rows.stream() as rows:
            await rows.put(row(1.0))
            await rows.finish()
    assert rows.told(SyncFailed("the disk is full")) == "the disk is full; 0 of 1 rows were stored"
    assert site.count("streamgauge_refused_total", source=SOURCE, reason="storage") == 1


async def test_a_failure_in_between_is_told_with_the_next_row() -> None:
    site = Site()
    site.sink.failure = SyncFailed("the disk is full")
    with pytest.raises(SyncFailed):
        async with site.rows.stream() as rows:
            await rows.put(row(1.0))
            await asyncio.sleep(0)
            await site.clock.advance(1.0)
            await rows.put(row(2.0))
    assert site.count("streamgauge_refused_total", source=SOURCE, reason="storage") == 2


class HeldSink(MemorySink):
    """Appends wait until `open` is set; `broken` is raised by one, whatever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.begun = asyncio.Event(), asyncio.Event()
        self.broken: Exception | None = None

    async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
        self.begun.set()
        await self.open.wait()
        broken, self.broken = self.broken, None
        if broken is not None:
            raise broken
        await super().append(batch, metadata)


async def test_rows_that_are_lost_through_a_mistake_are_not_acknowledged() -> None:
    sink = HeldSink()
    sink.open.set()
    site = Site(sink=sink)
    sink.broken = ZeroDivisionError()
    async with site.rows.stream() as rows:
        await rows.put(row(1.0))
        await asyncio.sleep(0)
        await site.clock.advance(1.0)
        assert sink.begun.is_set()
        with pytest.raises(ZeroDivisionError):
            await rows.finish()
    assert site.count("streamgauge_refused_total", source=SOURCE, reason="storage") == 1
    assert site.count("streamgauge_ingest_inflight_bytes") == 0


async def test_rows_that_were_being_stored_as_the_client_went_are_stored() -> None:
    sink = HeldSink()
    site = Site(sink=sink)

    async def send() -> None:
        async with site.rows.stream() as rows:
            for at in range(BATCH_ROWS):
                await rows.put(row(float(at), float(at)))

    sending = asyncio.create_task(send())
    await sink.begun.wait()
    sending.cancel()
    sink.open.set()
    await asyncio.gather(sending, return_exceptions=True)
    assert sending.cancelled()
    assert len(sink.samples(__name__="m")) == BATCH_ROWS
    assert site.count("streamgauge_ingested_samples_total", source=SOURCE) == BATCH_ROWS
    assert site.count("streamgauge_ingest_inflight_bytes") == 0


async def test_a_call_that_is_broken_off_twice_counts_what_it_loses_and_leaves_no_task() -> None:
    sink = HeldSink()
    site = Site(sink=sink)
    before = asyncio.all_tasks()

    async def send() -> None:
        async with site.rows.stream() as rows:
            await rows.put(row(1.0))
            await rows.finish()

    sending = asyncio.create_task(send())
    await sink.begun.wait()
    sink.begun.clear()
    sending.cancel()
    await sink.begun.wait()  # again, for the end of the stream
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert asyncio.all_tasks() == before
    assert site.count("streamgauge_refused_total", source=SOURCE, reason="cancelled") == 1
    assert site.count("streamgauge_ingest_inflight_bytes") == 0


async def test_series_that_are_pruned_meanwhile_are_found_again() -> None:
    site = Site()
    async with site.rows.stream() as rows:
        await rows.put(row(1.0, 1.0))
        await rows.finish()
        site.sink.prune()
        await rows.put(row(2.0, 2.0))
        await rows.finish()
    assert len(site.sink.keys) == 2
    assert sum(len(batch) for batch in site.sink.batches) == 2


async def test_memory_that_waits_is_bounded() -> None:
    site = Site(limit=1_000)
    with pytest.raises(Overloaded, match="requests in flight"):
        async with site.rows.stream() as rows:
            for _ in range(20):
                await rows.put(row(1.0))
    assert site.count("streamgauge_ingest_inflight_bytes") == 0
    assert site.count("streamgauge_refused_total", source=SOURCE, reason="overload") == 1


async def test_rows_below_a_millisecond_apart_are_counted() -> None:
    site = Site()
    async with site.rows.stream() as rows:
        await rows.put(encode_datum("m", {}, 1.0, SECOND + 1))
        await rows.put(encode_datum("m", {}, 2.0, SECOND + 2))
        await rows.finish()
    assert site.sink.samples(__name__="m") == [(1000, 2.0)]
    assert site.count("streamgauge_grpc_collisions_total") == 1
