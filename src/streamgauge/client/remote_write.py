"""A remote-write 1.0 request, with the standard library alone.

Message: prometheus.WriteRequest, of which the fields here are `timeseries` (1), its `labels` (1: name 1, value 2) and
`samples` (2: value 1 as a double, timestamp 2 in ms). The body is in snappy's block format, as one literal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from streamgauge.wire.protobuf import encoded_varint

STALE = struct.pack("<Q", 0x7FF0000000000002)
"""The bits of the stale marker: a series has ended."""
HEADERS: Mapping[str, str] = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


def encode_labels(labels: Mapping[str, str]) -> bytes:
    """The labels of a series, `__name__` among them, as they stand in it."""
    pairs = sorted(labels.items())
    return b"".join(_nested(1, _nested(1, name.encode()) + _nested(2, value.encode())) for name, value in pairs)


def encode_request(series: Iterable[tuple[bytes, bytes]], time: int) -> bytes:
    """The body of a request. series: encoded labels, and the eight bytes of a value. time: ms, of all of them."""
    stamp = b"\x10" + encoded_varint(time)
    return _snappy(
        b"".join(_nested(1, labels + _nested(2, b"\x09" + value + stamp)) for labels, value in series),
    )


def _nested(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + encoded_varint(len(content)) + content


def _snappy(content: bytes) -> bytes:
    if not content:
        return b"\x00"
    return encoded_varint(len(content)) + b"\xfc" + struct.pack("<I", len(content) - 1) + content
