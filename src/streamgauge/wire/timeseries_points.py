"""Points of a series as messages of time series over gRPC, on their way from a query worker to the call.

Each is a DataPoint behind its length, which is one byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streamgauge.model.arrays import Floats, Int64s
from streamgauge.wire.timeseries import encode_point
from streamgauge.wire.timeseries_rows import MILLISECOND


@dataclass(frozen=True, slots=True)
class DataPoints:
    """Implements query.one_series.PointsFormat."""

    content_type = "application/x-protobuf"

    def encode(self, times: Int64s, values: Floats) -> bytes:
        parts: list[bytes] = []
        for time, value in zip(times.tolist(), values.tolist(), strict=True):
            point = encode_point(value, time * MILLISECOND)
            parts += (bytes([len(point)]), point)
        return b"".join(parts)


class PointReader:
    """Cuts what `DataPoints` has written, which comes in pieces of any size, into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        data = self._rest + piece
        at = 0
        while at < len(data) and (stop := at + 1 + data[at]) <= len(data):
            yield data[at + 1 : stop]
            at = stop
        self._rest = data[at:]
