"""Made-up load: series of nine labels, as remote write 1.0 requests built beforehand."""

from __future__ import annotations

import http.client
import struct
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.peers import SNAPPY, Server

CODES = ("200", "201", "204", "301", "304", "400", "401", "403", "404", "500")
_CODEC = pa.Codec("snappy")


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(tag: int, body: bytes) -> bytes:
    return bytes([tag << 3 | 2]) + varint(len(body)) + body


def label_section(labels: dict[str, str]) -> bytes:
    """The labels of one series in protobuf, as a TimeSeries begins with them."""
    return b"".join(_field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in sorted(labels.items()))


def frame_series(section: bytes, value: bytes, time: bytes) -> bytes:
    """A TimeSeries of one sample: 8 bytes of value, a varint of ms."""
    sample = b"\x09" + value + b"\x10" + time
    series = section + b"\x12" + bytes([len(sample)]) + sample
    return b"\x0a" + varint(len(series)) + series


def snappy(raw: bytes) -> bytes:
    """A snappy block."""
    packed: bytes = _CODEC.compress(raw, asbytes=True)
    return packed


def nine_labels(number: int, metric: str = "m") -> dict[str, str]:
    """Labels of series `number`; ten codes, a thousand instances, and what else a web service has."""
    return {
        "__name__": metric,
        "cluster": "eu-west-1",
        "code": CODES[number % 10],
        "handler": f"/api/v1/resource/{number // 10 % 20}",
        "instance": f"10.{number // 25600 % 256}.{number // 100 % 256}.17:9100",
        "job": f"service-{number % 7}",
        "method": ("GET", "POST")[number // 10 % 2],
        "pod": f"service-{number % 7}-{number:08x}",
        "zone": "abc"[number % 3],
    }


class Series:
    """`count` counters that grow at random, with the label section of each made once."""

    def __init__(self, count: int, seed: int = 1) -> None:
        self.count = count
        self._random = np.random.default_rng(seed)
        self._sections = [label_section(nine_labels(number)) for number in range(count)]
        self._values = self._random.integers(0, 1_000_000, count).astype(np.float64)

    def step(self, times: npt.NDArray[np.int64], per_request: int = 2000) -> list[bytes]:
        """The requests for one sample of each series at `times` (ms, one a series), compressed."""
        self._values += self._random.integers(0, 200, self.count)
        values = self._values.tolist()
        moments = times.tolist()
        bodies = []
        for start in range(0, self.count, per_request):
            parts = []
            for number in range(start, min(start + per_request, self.count)):
                packed = struct.pack("<d", values[number])
                parts.append(frame_series(self._sections[number], packed, varint(moments[number])))
            bodies.append(snappy(b"".join(parts)))
        return bodies


def send(server: Server, bodies: Sequence[bytes], connections: int = 5, path: str = "/api/v1/write") -> None:
    """Post all bodies, in order on each of a few connections; raises at the first answer that is no success.

    Where the requests of a step are a multiple of `connections`, a series always takes the same one, so that its
    samples arrive in order.
    """
    failures: list[str] = []

    def work(own: Sequence[bytes]) -> None:
        connection = server.connect()
        for body in own:
            try:
                connection.request("POST", path, body, SNAPPY)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
                return
            if response.status >= 300:
                failures.append(f"{server.name} answered {response.status}: {text[:200]!r}")
                return
        connection.close()

    threads = [threading.Thread(target=work, args=(bodies[i::connections],)) for i in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
