"""Prometheus remote read: what is asked, and which form of answer was agreed.

    ReadRequest   1: Query, repeated   2: ResponseType, repeated
    Query         1: start, ms   2: end, ms   3: LabelMatcher, repeated   4: ReadHints
    LabelMatcher  1: type   2: name   3: value
    ReadHints     3: start, ms   4: end, ms   (the others do not change what is answered)

Specification: https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/ and the messages of Prometheus'
prompb/remote.proto and prompb/types.proto.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from streamgauge.errors import BadInput
from streamgauge.model.source import Matcher, MatchOp, Selector
from streamgauge.wire.protobuf import BYTES, VARINT, expect, field, signed, varint

MAX_FIELDS = 2_000
"""Fields of one request, those of its parts included: a hundred queries of three matchers, and some 5 ms of work on the
event loop."""

_OPS = (MatchOp.EQUAL, MatchOp.NOT_EQUAL, MatchOp.MATCH, MatchOp.NOT_MATCH)


class ResponseType(enum.IntEnum):
    """The forms of answer, by the numbers that a request names them with."""

    SAMPLES = 0
    STREAMED_XOR_CHUNKS = 1


@dataclass(frozen=True, slots=True)
class ReadRequest:
    queries: tuple[Selector, ...]
    response_type: ResponseType


def decode(data: bytes) -> ReadRequest:
    """Read a request. Raises BadInput, naming the place or the thing."""
    return _Decoder(data).request()


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields = 0

    def request(self) -> ReadRequest:
        queries: list[Selector] = []
        accepted: list[int] = []
        for number, kind, a, b in self._of(0, len(self._data)):
            if number == 1:
                expect(kind, BYTES, "a query", b)
                queries.append(self._query(a, b))
            elif number == 2 and kind == BYTES:
                accepted += self._packed(a, b)
            elif number == 2:
                expect(kind, VARINT, "a response type", b)
                accepted.append(a)
        return ReadRequest(tuple(queries), _agreed(accepted))

    def _query(self, start: int, stop: int) -> Selector:
        matchers: list[Matcher] = []
        times = {1: 0, 2: 0}
        hints: dict[int, int] = {}
        for number, kind, a, b in self._of(start, stop):
            if number in times:
                expect(kind, VARINT, "a time of a query", b)
                times[number] = signed(a)
            elif number == 3:
                expect(kind, BYTES, "a matcher", b)
                matchers.append(self._matcher(a, b))
            elif number == 4:
                expect(kind, BYTES, "the hints of a query", b)
                hints |= self._hints(a, b)
        return Selector(tuple(matchers), *_narrowed(times[1], times[2], hints.get(3, 0), hints.get(4, 0)))

    def _matcher(self, start: int, stop: int) -> Matcher:
        op, texts = 0, {2: "", 3: ""}
        for number, kind, a, b in self._of(start, stop):
            if number == 1:
                expect(kind, VARINT, "the type of a matcher", b)
                op = a
            elif number in texts:
                what = "name" if number == 2 else "value"
                expect(kind, BYTES, f"the {what} of a matcher", b)
                try:
                    texts[number] = self._data[a:b].decode()
                except UnicodeDecodeError:
                    raise BadInput(f"protobuf: the {what} of a matcher at byte {a} is not UTF-8") from None
        if op >= len(_OPS):
            raise BadInput(f"the matcher of label {texts[2][:100]!r} has the unknown type {op}")
        return Matcher(texts[2], _OPS[op], texts[3])

    def _hints(self, start: int, stop: int) -> dict[int, int]:
        found: dict[int, int] = {}
        for number, kind, a, b in self._of(start, stop):
            if number in (3, 4):
                expect(kind, VARINT, "a time of hints", b)
                found[number] = signed(a)
        return found

    def _of(self, start: int, stop: int) -> list[tuple[int, int, int, int]]:
        """Every field of the message data[start:stop], as `protobuf.field` gives it."""
        found = []
        at = start
        while at < stop:
            self._count()
            found.append(field(self._data, at, stop))
            at = found[-1][3]
        return found

    def _packed(self, at: int, stop: int) -> list[int]:
        numbers = []
        while at < stop:
            self._count()
            number, at = varint(self._data, at, stop)
            numbers.append(number)
        return numbers

    def _count(self) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise BadInput(f"the request has more than {MAX_FIELDS} fields, which is the limit; ask for less at once")


def _agreed(accepted: list[int]) -> ResponseType:
    """The first of the accepted types that there is; SAMPLES where none is named, as in the first clients."""
    known = [ResponseType(number) for number in accepted if number in list(ResponseType)]
    if known or not accepted:
        return known[0] if known else ResponseType.SAMPLES
    spoken = " or ".join(f"{known.name} ({known})" for known in ResponseType)
    raise BadInput(f"no accepted response type is known here ({str(accepted)[1:-1][:100]}); accept {spoken}")


def _narrowed(start: int, end: int, hinted_start: int, hinted_end: int) -> tuple[int, int]:
    """A query's range within that of its hints, which is what the client will look at: its query's is that of the
    whole expression. Hints without a range have two zeros."""
    if hinted_start == hinted_end == 0:
        return start, end
    return max(start, hinted_start), min(end, hinted_end)
