"""Records of events and streams read back as they were written; from any other bytes come events or Corrupt."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import Corrupt
from streamgauge.model.events import EventBatch, Stream
from streamgauge.store.events.records import (
    decode_events,
    decode_streams,
    encode_events,
    encode_streams,
    with_streams,
)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
NUMBERS = st.integers(1, (1 << 63) - 1)
TEXTS = st.text(max_size=20)
STREAMS = st.builds(Stream, NUMBERS, INT64, TEXTS, TEXTS, TEXTS)
BATCHES = st.builds(
    lambda stream, first, time, payloads: EventBatch(stream, first, time, pa.array(payloads, pa.binary())),
    STREAMS,
    INT64,
    INT64,
    st.lists(st.binary(max_size=30), max_size=5),
)


@given(st.lists(BATCHES, max_size=5))
def test_events_come_back(batches: list[EventBatch]) -> None:
    streams = {batch.stream.id: batch.stream for batch in batches}
    found = list(with_streams(decode_events(encode_events(batches)), streams))
    assert [(b.stream.id, b.first, b.time, b.payloads.to_pylist()) for b in found] == [
        (b.stream.id, b.first, b.time, b.payloads.to_pylist()) for b in batches
    ]


def test_a_slice_is_written_alone() -> None:
    payloads = pa.array([b"one", b"", b"three", b"four"], pa.binary())
    batch = EventBatch(Stream(1, 0, "http", "{}"), 5, 6, payloads.slice(1, 2))
    (found,) = decode_events(encode_events([batch]))
    assert found.payloads.to_pylist() == [b"", b"three"]


@given(st.lists(STREAMS, max_size=5))
def test_streams_come_back(streams: list[Stream]) -> None:
    assert decode_streams(encode_streams(streams)) == streams


def test_an_event_of_a_stream_that_nothing_defines_is_served() -> None:
    batch = EventBatch(Stream(7, 1, "http", "{}"), 1, 9, pa.array([b"1"], pa.binary()))
    (found,) = with_streams(decode_events(encode_events([batch])), {})
    assert found.stream == Stream(7, 9, "unknown", "{}")


@given(st.lists(BATCHES, min_size=1, max_size=3), st.data())
def test_fuzz_a_damaged_record_of_events_is_corrupt_or_something_else(
    batches: list[EventBatch], data: st.DataObject
) -> None:
    record = bytearray(encode_events(batches))
    place = data.draw(st.integers(0, len(record) - 1))
    record[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(record)))
    try:
        for batch in decode_events(bytes(record[:cut])):
            batch.payloads.validate(full=True)
    except Corrupt:
        pass


@pytest.mark.parametrize("text", [b"[", b"[]", b"[1,2,3,4,5]", b'["1",2,"a","{}",""]', b'[0,2,"a","{}",""]', b"\xff"])
def test_a_damaged_definition_is_corrupt(text: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_streams(text)
