"""Delimited metric families read in columns, where each metric has the form that clients of Prometheus write:

    22 size  labels…  KK 09 09 vv vv vv vv vv vv vv vv  30 tt tt tt tt tt tt     hexadecimal

KK tells the kind of number: 12 gauge, 1A counter, 2A untyped. The timestamp of any day from 1971 to 2109 has six bytes.
Of a sender whose series stay the same only vv and tt differ from one push to the next. So what is kept of a push, its
layout, is where the metrics end and a digest of all other bytes: when those are the same again, so are the series, and
all values are read at once. Where metrics came, went or changed places, each is found by a hash of its bytes.

Whatever has another form, histograms and summaries above all, is for `metric_family_protobuf.py`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Floats, Int64s, UInt8s, UInt32s
from streamgauge.wire.protobuf import encoded_varint, field, varint
from streamgauge.wire.samples import CONTINUED, SIX_BYTES, six_byte_varints

TAIL_BYTES = 18
"""The number of a metric and its timestamp."""

_VARIABLE_BYTES = 15  # of them
_KINDS = (0x12, 0x1A, 0x2A)
_METRIC_TAG = 0x22
_HEAD_TAGS = (0x0A, 0x12, 0x18, 0x2A)
"""Name, help, type and unit of a family, which stand before its metrics."""
_PAUSE_METRICS = 1000
_LABEL_TAG = 0x0A
_TIME_TAG = 0x30
_TAIL = np.dtype(
    {
        "names": ["kind", "size", "value_tag", "value", "time"],
        "formats": ["u1", "u1", "u1", "<f8", "<u8"],
        "offsets": [0, 1, 2, 3, 10],
        "itemsize": TAIL_BYTES,
    }
)
_BEFORE_TIME = np.uint64(16)  # bits: the last byte of the value, and the tag
_TIME_MASK = (CONTINUED << _BEFORE_TIME) | np.uint64(0xFF00)
_USUAL_TIME = (SIX_BYTES << _BEFORE_TIME) | np.uint64(_TIME_TAG << 8)
_WINDOW = np.dtype((np.void, TAIL_BYTES))
_ZEROS = np.zeros(1, np.dtype((np.void, _VARIABLE_BYTES)))

Tails = np.ndarray[tuple[int], np.dtype[np.void]]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Times in ms and values of metrics, in their order."""

    times: Int64s
    values: Floats


@dataclass(frozen=True, slots=True)
class Records:
    """Metrics of a push. One element each:

    hashes: of all that says which series it is, its family's name and type included; int64. Python's hash of bytes has
        a key that no sender knows, and is only ever compared within the pushes of one.
    heads: where its family begins, starts: where the metric itself does, behind its size; ends: where it ends.
    first: whether it is the first of its family.
    """

    hashes: Int64s
    heads: list[int]
    starts: list[int]
    ends: Int64s
    first: Bools

    def __len__(self) -> int:
        return len(self.ends)


def survey(body: bytes) -> Generator[None, None, Records | None]:
    """The metrics of a push, in order; None where it does not consist of metrics in the usual form. Whether their ends
    have it, `read_numbers` finds out. Yields now and then, so that other tasks get their turn."""
    hashes: list[int] = []
    heads: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    firsts: list[int] = []
    at = paused = 0
    try:
        while at < len(body):
            size, begin = varint(body, at, len(body))
            stop = begin + size
            if stop > len(body):
                return None
            at = begin
            while at < stop and body[at] != _METRIC_TAG:
                if body[at] not in _HEAD_TAGS:
                    return None
                at = field(body, at, stop)[3]
            firsts.append(len(ends))
            family = hash(body[begin:at])
            while at < stop:
                start = at + 2
                length = body[at + 1]
                if length >= 0x80:
                    start += 1
                    length = length & 0x7F | body[at + 2] << 7
                end = start + length
                if body[at] != _METRIC_TAG or end > stop or length < TAIL_BYTES or length >= 0x4000:
                    return None
                hashes.append(hash((family, body[start : end - _VARIABLE_BYTES])))
                heads.append(begin)
                starts.append(start)
                ends.append(end)
                at = end
                if len(ends) - paused >= _PAUSE_METRICS:
                    paused = len(ends)
                    yield
    except (BadInput, IndexError):
        return None
    first = np.zeros(len(ends) + 1, np.bool_)
    first[firsts] = True
    return Records(np.array(hashes, np.int64), heads, starts, np.array(ends, np.int64), first[:-1])


def read_numbers(body: bytes, ends: Int64s) -> Numbers | None:
    """What the metrics that end there say; None where one of them does not end in the usual form."""
    if not len(ends):
        return Numbers(np.empty(0, np.int64), np.empty(0, np.float64))
    tails = _tails(body, ends)
    kind = tails["kind"]
    usual = (tails["size"] == 9) & (tails["value_tag"] == 9)
    usual &= (kind == _KINDS[0]) | (kind == _KINDS[1]) | (kind == _KINDS[2])
    return _numbers(tails) if np.count_nonzero(usual) == len(ends) else None


def read_again(body: bytes, ends: Int64s) -> Numbers | None:
    """The same of a push with the digest of one that `read_numbers` has read."""
    return _numbers(_tails(body, ends))


def _numbers(tails: Tails) -> Numbers | None:
    """Of metrics of which all that is in their digest has the usual form."""
    times = tails["time"].astype(np.uint64)
    if np.count_nonzero(times & _TIME_MASK == _USUAL_TIME) < len(tails):
        return None
    times >>= _BEFORE_TIME
    return Numbers(six_byte_varints(times), tails["value"].astype(np.float64))


def labels_of(body: bytes, start: int, end: int) -> list[bytes] | None:
    """The messages of the labels of a metric; None where anything else, or one that is very long, stands before its
    number, so that its end may not be what it seems to be."""
    found = []
    at, stop = start, end - TAIL_BYTES
    while at < stop:
        begin = at + 2
        size = body[at + 1]
        if size >= 0x80:
            begin += 1
            size = size & 0x7F | body[at + 2] << 7
        if body[at] != _LABEL_TAG or size >= 0x4000:
            return None
        at = begin + size
        found.append(body[begin:at])
    return found if at == stop else None


def family_of(body: bytes, head: int) -> bytes:
    """The family that begins at `head`, without its metrics, as a body of its own."""
    at = head
    while body[at] != _METRIC_TAG:
        at = field(body, at, len(body))[3]
    return encoded_varint(at - head) + body[head:at]


def kinds_of(body: bytes, ends: Int64s) -> UInt8s:
    """The tag of the number of each metric that ends there."""
    return np.frombuffer(body, np.uint8)[ends - TAIL_BYTES]


def digest(body: bytes, ends: Int64s) -> int:
    """Of all bytes but those of values and timestamps of the metrics that end there. Like `Records.hashes` it has a key
    that no sender knows, and is compared within the pushes of one."""
    rest = bytearray(body)
    if len(ends):
        variable = np.ndarray((len(rest) - _VARIABLE_BYTES + 1,), _ZEROS.dtype, rest, 0, (1,))
        variable[ends - _VARIABLE_BYTES] = _ZEROS
    return hash(bytes(rest))


def matching(known: Int64s, rows: UInt32s, hashes: Int64s) -> Int64s:
    """For each hash rows[i] where known[i], ascending, is the same; -1 where none is."""
    found = np.full(len(hashes), -1, np.int64)
    if len(known):
        at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        same = known[at] == hashes
        found[same] = rows[at[same]]
    return found


def _tails(body: bytes, ends: Int64s) -> Tails:
    """The last bytes of the metrics that end there."""
    windows = np.ndarray((max(len(body) - TAIL_BYTES + 1, 0),), _WINDOW, body, 0, (1,))
    return windows[ends - TAIL_BYTES].view(_TAIL)
