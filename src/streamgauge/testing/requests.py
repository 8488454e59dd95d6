"""Remote-write requests, well formed or not: an encoder that writes whatever it is told.

It shares nothing with the decoders, so that an error in one of them cannot hide in the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from streamgauge.model.arrays import STALE_BITS

V1 = "prometheus.WriteRequest"
V2 = "io.prometheus.write.v2.Request"
STALE = struct.pack("<Q", STALE_BITS)
"""The stale marker's bytes: as a Python float it could lose them."""

Pair = tuple[str | bytes, str | bytes]
Sample = tuple[int, float | bytes]
"""Time in ms, and a value or its eight bytes."""

_CODEC = pa.Codec("snappy")
_TYPES = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")


@dataclass(frozen=True, slots=True)
class Series:
    """A time series of a request. `labels` as pairs stay in their order, repetitions included."""

    labels: Mapping[str, str] | Sequence[Pair]
    samples: Sequence[Sample] = ()
    histograms: int = 0  # empty ones
    exemplars: int = 0  # empty ones
    metadata: tuple[str, str, str] | None = None  # 2.0 only: type, help, unit

    def pairs(self) -> list[Pair]:
        return sorted(self.labels.items()) if isinstance(self.labels, Mapping) else list(self.labels)


def headers(message: str = V1) -> dict[str, str]:
    """The headers that Prometheus sends with a message."""
    version = "0.1.0" if message == V1 else "2.0.0"
    kind = "application/x-protobuf" if message == V1 else f"application/x-protobuf;proto={message}"
    return {"content-type": kind, "content-encoding": "snappy", "x-prometheus-remote-write-version": version}


def v1(series: Iterable[Series], metadata: Mapping[str, tuple[str, str, str]] | None = None) -> bytes:
    """A WriteRequest in protobuf. metadata: type, help and unit by metric."""
    parts = []
    for one in series:
        body = b"".join(_label(name, value) for name, value in one.pairs())
        body += b"".join(nested(2, sample(*point)) for point in one.samples)
        body += nested(3, b"") * one.exemplars + nested(4, b"") * one.histograms
        parts.append(nested(1, body))
    for metric, (kind, text, unit) in (metadata or {}).items():
        fields = b"\x08" + varint(_TYPES.index(kind)) + _text(2, metric) + _text(4, text) + _text(5, unit)
        parts.append(nested(3, fields))
    return b"".join(parts)


def v2(series: Iterable[Series]) -> bytes:
    """A Request of remote write 2.0 in protobuf."""
    symbols: dict[str | bytes, int] = {"": 0}

    def ref(text: str | bytes) -> bytes:
        return varint(symbols.setdefault(text, len(symbols)))

    parts = []
    for one in series:
        body = nested(1, b"".join(ref(name) + ref(value) for name, value in one.pairs()))
        body += b"".join(nested(2, sample(*point)) for point in one.samples)
        body += nested(3, b"") * one.histograms + nested(4, b"") * one.exemplars
        if one.metadata is not None:
            kind, text, unit = one.metadata
            body += nested(5, b"\x08" + varint(_TYPES.index(kind)) + b"\x18" + ref(text) + b"\x20" + ref(unit))
        parts.append(nested(5, body))
    table = (symbol.encode() if isinstance(symbol, str) else symbol for symbol in symbols)
    return b"".join(nested(4, symbol) for symbol in table) + b"".join(parts)


def snappy(content: bytes) -> bytes:
    """Content as one snappy block."""
    block: bytes = _CODEC.compress(content, asbytes=True)
    return block


def sample(time: int, value: float | bytes) -> bytes:
    """A Sample message: all but default values are written, as encoders do."""
    packed = value if isinstance(value, bytes) else struct.pack("<d", value)
    body = b"" if packed == bytes(8) else b"\x09" + packed
    return body + (b"\x10" + varint(time) if time else b"")


def nested(field: int, body: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    return varint(field << 3 | 2) + varint(len(body)) + body


@lru_cache(1 << 12)
def varint(number: int) -> bytes:
    """A number of protobuf; negative ones in ten bytes."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


@lru_cache(1 << 16)
def _label(name: str | bytes, value: str | bytes) -> bytes:
    """A Label message. Kept, as tests that write much repeat theirs in each request."""
    return nested(1, _text(1, name) + _text(2, value))


def _text(field: int, text: str | bytes) -> bytes:
    return nested(field, text.encode() if isinstance(text, str) else text) if text else b""
