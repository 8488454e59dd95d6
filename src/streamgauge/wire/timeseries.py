"""The messages of time series over gRPC, as proto/timeseries.proto defines them, to and from bytes.

    TelemetryDatum, TimeSeriesDatum   1 metric   2 labels*   3 value double   4 timestamp
    Filter                            1 metric   2 labels*   3 start          4 end
    DataPoint                                                3 value double   4 timestamp
    labels: 1 name   2 value          timestamps: 1 seconds int64   2 nanos int32

The two kinds of datum are the same on the wire. Times are ns since the Unix epoch here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from streamgauge.errors import BadInput
from streamgauge.wire.protobuf import BYTES, FIXED64, VARINT, encoded_varint, expect, fields, signed, span

TELEMETRY = "proto.Telemetry"
GET_DATA = f"/{TELEMETRY}/GetTimeSeriesData"
TSTORAGE = "proto.TStorage"
INSERT_ROW = f"/{TSTORAGE}/InsertRow"
INSERT_ROWS = f"/{TSTORAGE}/InsertRows"
SELECT = f"/{TSTORAGE}/Select"
EMPTY = b""
"""A google.protobuf.Empty."""

SECOND = 1_000_000_000
MAX_FIELDS = 300
"""Of one message, blank labels included: each costs a microsecond or two, and a series may have 256 labels."""
TURN_BYTES = 8 << 10
"""Of messages read before other tasks get their turn: some milliseconds, and ten where all are the worst there are."""
TURN_ROW_BYTES = 32
"""That a message counts for beside its own."""
_MAX_INNER_FIELDS = 16
"""Of a label or a timestamp, which have two."""

_METRIC, _LABELS, _VALUE, _TIME = 0x0A, 0x12, 0x19, 0x22
VALUE_TAG, TIME_TAG = bytes((_VALUE,)), bytes((_TIME,))
DOUBLE = struct.Struct("<d")
_LONG = 0x80
_NAME = b"__name__"

Pairs = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Row:
    """One datum. spelling: its fields 1 and 2 as they stand on the wire, in order: the same bytes always mean the same
    series. time: None where the message has none."""

    spelling: bytes
    value: float
    time: int | None


@dataclass(frozen=True, slots=True)
class Filter:
    """start: inclusive; end: exclusive; None where the message has none. labels: without blank ones."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Point:
    value: float
    time: int


# ---- to bytes -------------------------------------------------------------------------------------------------------


def encode_datum(metric: str, labels: Mapping[str, str], value: float, time: int | None) -> bytes:
    """A TelemetryDatum or TimeSeriesDatum."""
    stamp = b"" if time is None else _field(_TIME, encode_time(time))
    return _series(metric, labels) + _value(value) + stamp


def encode_filter(metric: str, labels: Mapping[str, str], start: int, end: int) -> bytes:
    times = _field(0x1A, encode_time(start)) + _field(0x22, encode_time(end))
    return _series(metric, labels) + times


def encode_point(value: float, time: int) -> bytes:
    """A DataPoint: 32 bytes at most."""
    return _value(value) + _field(_TIME, encode_time(time))


def encode_time(time: int) -> bytes:
    """A Timestamp."""
    seconds, nanos = divmod(time, SECOND)
    return (b"\x08" + encoded_varint(seconds) if seconds else b"") + (b"\x10" + encoded_varint(nanos) if nanos else b"")


def _series(metric: str, labels: Mapping[str, str]) -> bytes:
    pairs = [
        _field(_LABELS, _field(0x0A, name.encode()) + _field(0x12, value.encode())) for name, value in labels.items()
    ]
    return _field(_METRIC, metric.encode()) + b"".join(pairs)


def _value(value: float) -> bytes:
    packed = DOUBLE.pack(value)
    return b"" if packed == bytes(8) else VALUE_TAG + packed


def _field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + encoded_varint(len(content)) + content


# ---- from bytes -----------------------------------------------------------------------------------------------------


def decode_row(data: bytes) -> Row:
    """Raises BadInput for what is no such message; of its labels nothing is looked at yet."""
    at = _series_end(data)
    spelling = [data[:at]]
    value, seconds, nanos, stamped = 0.0, 0, 0, False
    for number, kind, a, b in _fields(data, at, len(data), MAX_FIELDS):
        if number == 3:
            expect(kind, FIXED64, "a value", a)
            (value,) = DOUBLE.unpack_from(data, a)
        elif number == 4:
            expect(kind, BYTES, "a timestamp", a)
            seconds, nanos = _time_fields(data, a, b, seconds, nanos)
            stamped = True
        elif number in (1, 2):
            expect(kind, BYTES, "a metric or label", a)
            spelling.append(data[at:b])
        at = b
    return Row(b"".join(spelling), value, _nanoseconds(seconds, nanos) if stamped else None)


def pairs_of(spelling: bytes) -> Pairs:
    """The labels that `Row.spelling` spells, the metric's name among them, blank ones left out. Raises BadInput."""
    metric = b""
    pairs: Pairs = []
    for number, _, a, b in _fields(spelling, 0, len(spelling), 2 * MAX_FIELDS):
        if number == 1:
            metric = spelling[a:b]
        elif (pair := _label(spelling, a, b)) is not None:
            pairs.append(pair)
    if not metric:
        raise BadInput("metric must be set")
    pairs.append((_NAME, metric))
    return pairs


def decode_filter(data: bytes) -> Filter:
    """Raises BadInput."""
    metric = b""
    pairs: Pairs = []
    times: dict[int, tuple[int, int]] = {}
    for number, kind, a, b in _fields(data, 0, len(data), MAX_FIELDS):
        if number > 4:
            continue
        expect(kind, BYTES, "a field of a filter", a)
        if number == 1:
            metric = data[a:b]
        elif number == 2:
            if (pair := _label(data, a, b)) is not None:
                pairs.append(pair)
        else:
            times[number] = _time_fields(data, a, b, *times.get(number, (0, 0)))
    try:
        labels = tuple((name.decode(), value.decode()) for name, value in pairs)
        named = metric.decode()
    except UnicodeDecodeError:
        raise BadInput("the filter's metric or labels are not UTF-8") from None
    start, end = (_nanoseconds(*times[number]) if number in times else None for number in (3, 4))
    return Filter(named, labels, start, end)


def decode_point(data: bytes) -> Point:
    """Raises BadInput."""
    row = decode_row(data)
    return Point(row.value, row.time or 0)


def _series_end(data: bytes) -> int:
    """Where the metric and the labels end that stand first, as every encoder writes them."""
    at, end = 0, len(data)
    for _ in range(MAX_FIELDS):
        if at + 1 >= end or (data[at] != _METRIC and data[at] != _LABELS):
            break
        size = data[at + 1]
        if size < _LONG:
            at += 2 + size
        else:
            _, at = span(data, at + 1, end)
    if at > end:
        raise BadInput(f"protobuf: a field is cut off at byte {end}")
    return at


def _fields(data: bytes, start: int, stop: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """As `protobuf.fields`. Raises BadInput where there are more than `most`."""
    for count, found in enumerate(fields(data, start, stop)):
        if count >= most:
            raise BadInput(f"the message has more than {most} fields, which is the limit")
        yield found


def _label(data: bytes, start: int, stop: int) -> tuple[bytes, bytes] | None:
    """Name and value; None where either is empty."""
    name = value = b""
    for number, kind, a, b in _fields(data, start, stop, _MAX_INNER_FIELDS):
        if number in (1, 2):
            expect(kind, BYTES, "a field of a label", a)
            name, value = (data[a:b], value) if number == 1 else (name, data[a:b])
    return (name, value) if name and value else None


def _time_fields(data: bytes, start: int, stop: int, seconds: int, nanos: int) -> tuple[int, int]:
    for number, kind, a, b in _fields(data, start, stop, _MAX_INNER_FIELDS):
        if number in (1, 2):
            expect(kind, VARINT, "a field of a timestamp", b)
            seconds, nanos = (signed(a), nanos) if number == 1 else (seconds, signed(a))
    return seconds, nanos


def _nanoseconds(seconds: int, nanos: int) -> int:
    if not 0 <= nanos < SECOND:
        raise BadInput(f"a timestamp has {nanos} nanoseconds; they are 0 to {SECOND - 1}")
    return seconds * SECOND + nanos
