"""A remote-write receiver whose every answer a test writes, and what it was sent."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from streamgauge.model.batch import Metadata
from streamgauge.model.labels import series_key
from streamgauge.testing.requests import V2
from streamgauge.testing.target import Request, answer
from streamgauge.wire.findings import TYPES
from streamgauge.wire.protobuf import fields, signed
from streamgauge.wire.snappy import decompress

Row = tuple[bytes, int, int]
"""Key, time in ms, and the bits of the value."""
_MOST = 64 << 20


@dataclass(slots=True)
class Receiver:
    """The `reply` of an HttpTarget. What it answers with 204 it keeps. respond: status line and headers of the answer
    to a request, in place of 204; None keeps the sender waiting."""

    respond: Callable[[Request], tuple[str, Mapping[str, str]] | None] = lambda request: ("204 No Content", {})
    rows: list[Row] = field(default_factory=list)
    metadata: dict[str, Metadata] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # samples of each request that was taken

    def __call__(self, request: Request) -> bytes | None:
        self.requests.append(request)
        responded = self.respond(request)
        if responded is None:
            return None
        status, headers = responded
        if status.startswith("204"):
            body = decompress(request.body, _MOST)
            read = self._read_v2 if V2 in request.headers["content-type"] else self._read_v1
            before = len(self.rows)
            read(body)
            self.sizes.append(len(self.rows) - before)
            headers = {"x-prometheus-remote-write-samples-written": str(self.sizes[-1]), **headers}
        return answer(b"", "", status, headers)

    @property
    def distinct(self) -> set[Row]:
        return set(self.rows)

    def has(self, rows: Iterable[Row]) -> bool:
        """Whether all of these have come."""
        return self.distinct >= set(rows)

    @property
    def repeated(self) -> int:
        """Rows that came again."""
        return sum(Counter(self.rows).values()) - len(self.distinct)

    def ascends(self) -> bool:
        """Whether the samples of each series came in order of time."""
        last: dict[bytes, int] = {}
        for key, time, _ in self.rows:
            if time < last.get(key, time):
                return False
            last[key] = time
        return True

    def _read_v1(self, body: bytes) -> None:
        for number, _, a, b in fields(body, 0, len(body)):
            inner = list(fields(body, a, b))
            if number == 1:
                pairs = [tuple(_texts(body, x, y)) for n, _, x, y in inner if n == 1]
                self._add([(name, value) for name, value in pairs], body, inner)
            elif number == 3:
                found = {n: body[x:y].decode() for n, _, x, y in inner if n != 1}
                kind = next((x for n, _, x, _ in inner if n == 1), 0)
                self._describe(found[2], kind, found.get(4, ""), found.get(5, ""))

    def _read_v2(self, body: bytes) -> None:
        symbols = [body[a:b] for number, _, a, b in fields(body, 0, len(body)) if number == 4]
        assert symbols[0] == b""
        for number, _, a, b in fields(body, 0, len(body)):
            if number != 5:
                continue
            inner = list(fields(body, a, b))
            references = [symbols[at] for n, _, x, y in inner if n == 1 for at in _varints(body[x:y])]
            pairs = list(zip(references[::2], references[1::2], strict=True))
            self._add(pairs, body, inner)
            for n, _, x, y in inner:
                if n == 5:
                    said = {m: p for m, _, p, _ in fields(body, x, y)}
                    metric = dict(pairs)[b"__name__"].decode()
                    self._describe(metric, said[1], symbols[said[3]].decode(), symbols[said[4]].decode())

    def _add(self, pairs: list[tuple[bytes, bytes]], body: bytes, inner: list[tuple[int, int, int, int]]) -> None:
        assert pairs == sorted(pairs), "labels are in order"
        key = series_key(pairs)
        for number, _, a, b in inner:
            if number == 2:
                said = {n: (x, y) for n, _, x, y in fields(body, a, b)}
                value = slice(*said[1]) if 1 in said else slice(0)
                (bits,) = struct.unpack("<q", body[value] or bytes(8))
                self.rows.append((key, signed(said.get(2, (0, 0))[0]), bits))

    def _describe(self, metric: str, kind: int, text: str, unit: str) -> None:
        self.metadata[metric] = Metadata(metric, TYPES[kind], text, unit)


def _texts(body: bytes, start: int, stop: int) -> list[bytes]:
    found = {number: body[a:b] for number, _, a, b in fields(body, start, stop)}
    return [found.get(1, b""), found.get(2, b"")]


def _varints(data: bytes) -> list[int]:
    numbers, number, shift = [], 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    return numbers
