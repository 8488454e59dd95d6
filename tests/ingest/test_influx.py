"""The receiver of the line protocol, transport aside: what is on disk when it returns, and what it says of the rest."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import BadInput, Overloaded, ReadOnly, StreamgaugeError, TooLarge, UnsupportedMedia
from streamgauge.ingest.admission import InFlight, Limits
from streamgauge.ingest.bound import Bound
from streamgauge.ingest.influx import APPEND_ROWS, InfluxWrite, Written
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import SampleBatch
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.wire.influx_lines import Precision

GZIP = {"content-encoding": "gzip"}


class Receiver:
    """A receiver on a sink, and everything that it counts."""

    def __init__(self, sink: MemorySink | None = None, limits: Limits | None = None) -> None:
        self.sink = sink or MemorySink()
        self.clock = ManualClock()
        self.stats = Stats()
        self.inflight = InFlight((limits or Limits()).inflight, self.stats)
        self.influx = InfluxWrite(self.sink, self.stats, self.clock, self.inflight, Turns(), limits)

    def receive(self, body: bytes, headers: Mapping[str, str] | None = None, bound: Bound = ()) -> Written:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 1 << 14):
                yield body[start : start + (1 << 14)]

        return asyncio.run(self.influx.receive(headers or {}, chunks(), Precision.MILLISECONDS, bound))

    def count(self, name: str) -> float:
        lines = self.stats.exposition().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_what_is_good_is_stored_and_the_rest_is_told_as_influxdb_tells_it() -> None:
    receiver = Receiver()
    assert receiver.receive(b"a v=1,w=2i 5\nb v=t\n").complaint == ""
    assert receiver.sink.samples(__name__="a_w") == [(5, 2.0)]
    assert receiver.sink.samples(__name__="b_v") == [(receiver.clock.now_ms(), 1.0)]
    written = receiver.receive(b'a v=3 6\nb foo\nc s="x"\n')
    assert written.stored == 1
    assert written.complaint == (
        "partial write: unable to parse 'b foo': invalid field format\n"
        'field type conflict: input field "s" on measurement "c" is type string, already exists as type float dropped=1'
    )
    assert receiver.receive(b"foo\n").complaint == "unable to parse 'foo': missing fields"
    many = receiver.receive(b"foo\n" * 8).complaint
    assert many.count("unable to parse") == 5
    assert many.endswith("\nand 3 more")
    assert receiver.count('streamgauge_ingested_samples_total{source="influx"}') == 4
    assert receiver.count('streamgauge_refused_total{reason="string_field",source="influx"}') == 1
    assert receiver.count('streamgauge_refused_total{reason="invalid_line",source="influx"}') == 10
    assert receiver.count('streamgauge_ingest_requests_total{code="204",source="influx"}') == 1
    assert receiver.count("streamgauge_ingest_inflight_bytes") == 0


def test_what_is_too_old_is_told_in_words_that_clients_know() -> None:
    receiver = Receiver(MemorySink((10, 20)))
    complaint = receiver.receive(b"a v=1 5\na v=1 15\n").complaint
    assert complaint.startswith("partial write: points beyond retention policy: line 1: time 5 ms")
    assert complaint.endswith("dropped=1")


def test_bodies_are_inflated_within_bounds() -> None:
    limits = Limits(body=50_000, content=200_000)
    receiver = Receiver(limits=limits)
    lines = b"".join(b"a v=%d %d\n" % (number, number) for number in range(10_000))
    assert receiver.receive(gzip.compress(lines), GZIP).stored == 10_000
    for body, headers, error in (
        (gzip.compress(bytes(10_000_000)), GZIP, TooLarge),
        (lines, {}, TooLarge),
        (b"", {"content-length": "50001"}, TooLarge),
        (gzip.compress(lines)[:-9], GZIP, BadInput),
        (b"a v=1", GZIP, BadInput),
        (b"a v=1", {"content-encoding": "br"}, UnsupportedMedia),
    ):
        with pytest.raises(error):
            receiver.receive(body, headers)
    assert receiver.inflight._held == 0
    assert receiver.count('streamgauge_ingest_requests_total{code="413",source="influx"}') == 3


def test_somebody_bound_to_labels_writes_with_these_and_no_others() -> None:
    receiver = Receiver()
    bound = (("team", "a"),)
    receiver.receive(b"m v=1 5\n")
    written = receiver.receive(b"m v=2 6\nm,team=b v=3 7\nm,team=a v=4 8\n", bound=bound)
    assert receiver.sink.samples(__name__="m_v") == [(5, 1.0)]
    assert receiver.sink.samples(__name__="m_v", team="a") == [(6, 2.0), (8, 4.0)]
    assert written.stored == 2
    assert "may only write" in written.complaint
    assert receiver.count('streamgauge_refused_total{reason="foreign_label",source="influx"}') == 1


def test_much_is_stored_in_pieces() -> None:
    receiver = Receiver()
    body = b"".join(b"a v=1,w=2,x=3,y=4 %d\n" % number for number in range(APPEND_ROWS // 3))
    assert receiver.receive(body).stored == APPEND_ROWS // 3 * 4
    assert receiver.sink.appends == 2


@pytest.mark.parametrize("error", [ReadOnly("the disk is full"), Overloaded("busy")])
def test_what_the_store_raises_is_the_answer(error: StreamgaugeError) -> None:
    receiver = Receiver()
    receiver.sink.failure = error
    with pytest.raises(type(error)):
        receiver.receive(b"a v=1\n")
    assert receiver.count('streamgauge_ingest_requests_total{code="503",source="influx"}') == 1


class Pruning(MemorySink):
    """Prunes its series once while an append waits."""

    pruned = False

    async def append(self, batch: SampleBatch, metadata: object = ()) -> None:
        if not self.pruned:
            self.pruned = True
            self.prune()
            raise Overloaded("series were pruned")
        await super().append(batch)


def test_a_request_begins_anew_when_its_series_were_pruned() -> None:
    receiver = Receiver(Pruning())
    assert receiver.receive(b"a v=1 5\nfoo\n").stored == 1
    assert receiver.sink.samples(__name__="a_v") == [(5, 1.0)]
    assert receiver.count('streamgauge_refused_total{reason="invalid_line",source="influx"}') == 1


class Gone(Exception):
    """As a listener raises it when a client goes away before the end of its request."""


async def cut_off() -> AsyncIterator[bytes]:
    yield b"\x0a"
    raise Gone


def test_who_goes_away_is_counted_as_no_request() -> None:
    receiver = Receiver()
    with pytest.raises(Gone):
        asyncio.run(receiver.influx.receive({}, cut_off(), Precision.MILLISECONDS))
    assert 'streamgauge_ingest_requests_total{code="204"' not in receiver.stats.exposition().decode()
