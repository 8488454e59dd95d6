"""Payloads of the log records of events, as docs/format/log.md lays them down: pure functions.

Whatever the bytes, decoding gives events or raises Corrupt, and allocates no more than the bytes that are there.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa

from streamgauge.errors import Corrupt
from streamgauge.model.events import EventBatch, Stream

Payload = bytes | memoryview

_EVENTS = struct.Struct("<II")  # batches, events
_BATCH = np.dtype([("stream", "<i8"), ("first", "<i8"), ("time", "<i8"), ("events", "<u4"), ("zero", "<u4")])


def encode_events(batches: Sequence[EventBatch]) -> bytes:
    """Batches, then the length of each payload, then all payloads."""
    table = np.array([(batch.stream.id, batch.first, batch.time, len(batch), 0) for batch in batches], _BATCH)
    texts = [payload_bytes(batch.payloads) for batch in batches]
    lengths = [np.diff(ends, prepend=0).astype("<u4") for ends, _ in texts]
    head = _EVENTS.pack(len(batches), sum(map(len, lengths)))
    return b"".join((head, table.tobytes(), *(column.data for column in lengths), *(data for _, data in texts)))


def payload_bytes(payloads: pa.BinaryArray) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], memoryview]:
    """Where each payload ends in the bytes of all, and these."""
    assert payloads.type == pa.binary(), f"{payloads.type} is spelt otherwise in memory"
    _, offsets_buffer, texts = payloads.buffers()
    if not len(payloads) or offsets_buffer is None or texts is None:
        return np.zeros(len(payloads), np.int64), memoryview(b"")
    offsets = np.frombuffer(memoryview(offsets_buffer), np.int32)[payloads.offset : payloads.offset + len(payloads) + 1]
    return offsets[1:].astype(np.int64) - int(offsets[0]), memoryview(texts)[offsets[0] : offsets[-1]]


@dataclass(frozen=True, slots=True)
class LoggedBatch:
    """A batch as the log has it: of a stream that a record of its own defines."""

    stream: int
    first: int
    time: int
    payloads: pa.BinaryArray


def decode_events(payload: Payload) -> Iterator[LoggedBatch]:
    """The batches of `encode_events`; what they hold are views of the payload. Raises Corrupt."""
    if len(payload) < _EVENTS.size:
        raise Corrupt(f"a record of {len(payload)} bytes is shorter than its own head")
    batches, events = _EVENTS.unpack_from(payload)
    lengths_at = _EVENTS.size + batches * _BATCH.itemsize
    texts_at = lengths_at + 4 * events
    if texts_at > len(payload):
        raise Corrupt(f"a record of {len(payload)} bytes claims {batches} batches of {events} events")
    table = np.frombuffer(payload, _BATCH, batches, _EVENTS.size)
    lengths = np.frombuffer(payload, "<u4", events, lengths_at).astype(np.int64)
    if int(lengths.sum()) != len(payload) - texts_at or int(table["events"].sum(dtype=np.int64)) != events:
        raise Corrupt("the lengths in a record of events do not add up")
    if len(payload) - texts_at >= 1 << 31:
        raise Corrupt(f"a record of events holds {len(payload) - texts_at} bytes of them")
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    data = pa.py_buffer(payload[texts_at:])
    row = 0
    for stream, first, time, count, _ in table.tolist():
        buffers = [None, pa.py_buffer(offsets[row : row + count + 1].tobytes()), data]
        payloads = cast(pa.BinaryArray, pa.Array.from_buffers(pa.binary(), count, buffers))
        yield LoggedBatch(stream, first, time, payloads)
        row += count


def encode_streams(streams: Sequence[Stream]) -> bytes:
    """A line of JSON for each."""
    return b"\n".join(map(stream_text, streams))


def stream_text(stream: Stream) -> bytes:
    """All that is known of a stream, as JSON."""
    fields = (stream.id, stream.started, stream.transport, stream.headers, stream.name)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def stream_of_text(text: bytes | pa.Buffer) -> Stream:
    """The stream of `stream_text`. Raises Corrupt."""
    try:
        number, started, transport, headers, name = json.loads(bytes(text))
    except ValueError as error:
        raise Corrupt(f"the definition of a stream cannot be read: {error}") from None
    texts = isinstance(transport, str) and isinstance(headers, str) and isinstance(name, str)
    if not texts or type(number) is not int or type(started) is not int or not 0 < number < 1 << 63:
        raise Corrupt("the definition of a stream makes no sense")
    return Stream(number, started, transport, headers, name)


def decode_streams(payload: Payload) -> list[Stream]:
    """The streams of `encode_streams`. Raises Corrupt."""
    return [stream_of_text(line) for line in bytes(payload).split(b"\n")] if len(payload) else []


def with_streams(batches: Iterator[LoggedBatch], streams: Mapping[int, Stream]) -> Iterator[EventBatch]:
    """Batches with their streams. One whose definition is lost is served all the same, under its number."""
    for batch in batches:
        stream = streams.get(batch.stream) or Stream(batch.stream, batch.time, "unknown", "{}")
        yield EventBatch(stream, batch.first, batch.time, batch.payloads)
