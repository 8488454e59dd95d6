"""Metric families as delimited protobuf.

A body is a sequence of `io.prometheus.client.MetricFamily` messages, each behind its length as a varint. Read are:
families (name, help, type), metrics (labels, timestamp) and their values. Exemplars and times of creation are left out:
nothing here uses them, and an exemplar's labels would pass by whatever is done to those of metrics. What is particular
to native histograms is kept as bytes. Other fields are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable

from streamgauge.errors import BadInput
from streamgauge.model.text_format import PLAIN_LABEL, PLAIN_METRIC
from streamgauge.wire.metric_family import (
    MAX_METRIC_LABELS,
    Histogram,
    Labels,
    Metric,
    MetricFamily,
    MetricType,
    Summary,
    at_once,
    shown_name,
)
from streamgauge.wire.protobuf import (
    BYTES,
    FIXED64,
    VARINT,
    encoded_varint,
    expect,
    field,
    fields,
    signed,
    span,
    varint,
)

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

PAUSE_METRICS = 128
"""Metrics that are decoded before other tasks get their turn: about a millisecond."""

_SCALARS = {2: MetricType.GAUGE, 3: MetricType.COUNTER, 5: MetricType.UNTYPED}
"""Fields of a Metric whose message has a number as its field 1, and nothing else that is read."""
_SCALAR_FIELDS = {kind: number for number, kind in _SCALARS.items()}
_SUMMARY, _TIMESTAMP, _HISTOGRAM = 4, 6, 7
_NATIVE_FIELDS = frozenset({4, *range(5, 15)})
_DOUBLE = struct.Struct("<d")
_SCALAR_TAIL = 18
"""Bytes of a number as a message (11) and of a timestamp of these decades (7), which most metrics end in."""


def decode(body: bytes) -> Generator[None, None, list[MetricFamily]]:
    """The families of a body, in order; yields now and then, so that other tasks get their turn.

    Raises BadInput for what is no such body, and for a name or a text that a metric cannot have.
    """
    decoder = _Decoder(body)
    families: list[MetricFamily] = []
    at = 0
    while at < len(body):
        start, at = span(body, at, len(body))
        families.append((yield from decoder.family(start, at)))
    return families


def decode_now(body: bytes) -> list[MetricFamily]:
    """`decode` at once, where nobody else waits for a turn."""
    return at_once(decode(body))


def read_label(body: bytes, start: int, stop: int) -> tuple[str, str | None]:
    """Name and value of the label body[start:stop]. Raises BadInput."""
    name = ""
    value: str | None = None
    for number, wire, a, b in fields(body, start, stop):
        if number == 1:
            expect(wire, BYTES, "the name of a label", a)
            name = body[a:b].decode(errors="replace")
        elif number == 2:
            expect(wire, BYTES, "the value of a label", a)
            try:
                value = body[a:b].decode()
            except UnicodeDecodeError:
                raise BadInput(f"the value at byte {a} of label {shown_name(name)} is not UTF-8") from None
    if not PLAIN_LABEL.fullmatch(name):
        raise BadInput(f"the label at byte {start} has a name that no label can have: {shown_name(name)}")
    return name, value


class _Decoder:
    """labels: what was decoded of the bytes that spell labels; many metrics of a body have the same."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._labels: dict[bytes, Labels] = {}
        self._left = PAUSE_METRICS

    def family(self, start: int, stop: int) -> Generator[None, None, MetricFamily]:
        body = self._body
        name = help_text = ""
        kind: int | None = None
        metrics: list[Metric] = []
        for number, wire, a, b in fields(body, start, stop):
            if number == 4:
                expect(wire, BYTES, "a metric", a)
                metrics.append(self._metric(a, b))
                self._left -= 1
                if not self._left:
                    self._left = PAUSE_METRICS
                    yield
            elif number == 1:
                expect(wire, BYTES, "the name of a family", a)
                name = body[a:b].decode(errors="replace")
            elif number == 2:
                expect(wire, BYTES, "the help of a family", a)
                help_text = body[a:b].decode(errors="replace")
            elif number == 3:
                expect(wire, VARINT, "the type of a family", b)
                kind = signed(a)
        if not PLAIN_METRIC.fullmatch(name):
            raise BadInput(f"the family at byte {start} has a name that no metric can have: {shown_name(name)}")
        return MetricFamily(name, kind, tuple(metrics), help_text)

    def _metric(self, start: int, stop: int) -> Metric:
        """Most metrics are labels, then a number, then a timestamp, each of a known size; others are read by field."""
        body = self._body
        tail = stop - _SCALAR_TAIL
        if tail >= start and body[tail + 1] == 9 and body[tail + 2] == 9 and body[stop - 7] == 0x30:
            kind = _SCALARS.get(body[tail] >> 3)
            if kind is not None and body[tail] & 7 == BYTES and body[stop - 1] < 0x80:
                labels = self._labels.get(body[start:tail])
                if labels is None:
                    labels = self._only_labels(start, tail)
                if labels is not None:
                    stamp, end = varint(body, stop - 6, stop)
                    if end == stop:
                        return Metric(labels, kind, _DOUBLE.unpack_from(body, tail + 3)[0], stamp)
        return self._by_field(start, stop)

    def _only_labels(self, start: int, stop: int) -> Labels | None:
        """The labels that those bytes spell; None where they are anything else."""
        body, at = self._body, start
        pairs: list[tuple[str, str | None]] = []
        while at < stop:
            if body[at] != (1 << 3 | BYTES):
                return None
            try:
                _, _, a, at = field(body, at, stop)
            except BadInput:
                return None
            self._add_label(pairs, a, at)
        labels = self._labels[body[start:stop]] = tuple(pairs)
        return labels

    def _add_label(self, pairs: list[tuple[str, str | None]], start: int, stop: int) -> None:
        if len(pairs) == MAX_METRIC_LABELS:
            raise BadInput(f"the metric with a label at byte {start} has more than {MAX_METRIC_LABELS} labels")
        pairs.append(read_label(self._body, start, stop))

    def _by_field(self, start: int, stop: int) -> Metric:
        body = self._body
        pairs: list[tuple[str, str | None]] = []
        timestamp: int | None = None
        values: dict[MetricType, float | Summary | Histogram | None] = {}
        for number, wire, a, b in fields(body, start, stop):
            if number == _TIMESTAMP:
                expect(wire, VARINT, "a timestamp", b)
                timestamp = signed(a)
                continue
            if number > _HISTOGRAM:
                continue
            expect(wire, BYTES, "a label or the value of a metric", a)
            if number == 1:
                self._add_label(pairs, a, b)
            elif number == _SUMMARY:
                values[MetricType.SUMMARY] = self._summary(a, b)
            elif number == _HISTOGRAM:
                values[MetricType.HISTOGRAM] = self._histogram(a, b)
            else:
                values[_SCALARS[number]] = self._number(a, b)
        kind, value = values.popitem() if len(values) == 1 else (None, None)
        return Metric(tuple(pairs), kind, value, timestamp)

    def _number(self, start: int, stop: int) -> float | None:
        value: float | None = None
        for number, wire, a, _ in fields(self._body, start, stop):
            if number == 1:
                value = self._double(wire, a)
        return value

    def _summary(self, start: int, stop: int) -> Summary:
        count, total = 0, 0.0
        quantiles: list[tuple[float, float]] = []
        for number, wire, a, b in fields(self._body, start, stop):
            if number == 1:
                expect(wire, VARINT, "the count of a summary", b)
                count = a
            elif number == 2:
                total = self._double(wire, a)
            elif number == 3:
                expect(wire, BYTES, "a quantile", a)
                pair = [0.0, 0.0]
                for which, inner, at, _ in fields(self._body, a, b):
                    if which in (1, 2):
                        pair[which - 1] = self._double(inner, at)
                quantiles.append((pair[0], pair[1]))
        return Summary(count, total, tuple(quantiles))

    def _histogram(self, start: int, stop: int) -> Histogram:
        body = self._body
        count, total = 0, 0.0
        buckets: list[tuple[float, int]] = []
        native = bytearray()
        before = start
        for number, wire, a, b in fields(body, start, stop):
            if number == 1:
                expect(wire, VARINT, "the count of a histogram", b)
                count = a
            elif number == 2:
                total = self._double(wire, a)
            elif number == 3:
                expect(wire, BYTES, "a bucket", a)
                buckets.append(self._bucket(a, b))
            elif number in _NATIVE_FIELDS:
                native += body[before:b]
            before = b
        return Histogram(count, total, tuple(buckets), bytes(native))

    def _bucket(self, start: int, stop: int) -> tuple[float, int]:
        count, bound = 0, 0.0
        for number, wire, a, b in fields(self._body, start, stop):
            if number == 1:
                expect(wire, VARINT, "the count of a bucket", b)
                count = a
            elif number == 2:
                bound = self._double(wire, a)
        return bound, count

    def _double(self, wire: int, at: int) -> float:
        expect(wire, FIXED64, "a number", at)
        value: float = _DOUBLE.unpack_from(self._body, at)[0]
        return value


def encode(families: Iterable[MetricFamily]) -> bytes:
    """A body of these families. Fields stand in order of their numbers, so that the same values are the same bytes."""
    out = bytearray()
    known: dict[Labels, bytes] = {}
    for family in families:
        message = _encoded_family(family, known)
        out += encoded_varint(len(message)) + message
    return bytes(out)


def encoded_size(metric: Metric) -> int:
    """Bytes of a metric within its family's message."""
    message = _encoded_metric(metric, {})
    return 1 + len(encoded_varint(len(message))) + len(message)


def _encoded_family(family: MetricFamily, known: dict[Labels, bytes]) -> bytes:
    out = bytearray(_text(1, family.name))
    if family.help:
        out += _text(2, family.help)
    if family.type is not None:
        out += b"\x18" + encoded_varint(family.type)
    for metric in family.metrics:
        out += _message(4, _encoded_metric(metric, known))
    return bytes(out)


def _encoded_metric(metric: Metric, known: dict[Labels, bytes]) -> bytes:
    labels = known.get(metric.labels)
    if labels is None:
        pairs = ((name, b"" if value is None else _text(2, value)) for name, value in metric.labels)
        labels = known[metric.labels] = b"".join(_message(1, _text(1, name) + value) for name, value in pairs)
    value = b"" if metric.kind is None else _encoded_value(metric.kind, metric.value)
    stamp = b"" if metric.timestamp is None else b"\x30" + encoded_varint(metric.timestamp)
    return labels + (stamp + value if metric.kind is MetricType.HISTOGRAM else value + stamp)


def _encoded_value(kind: MetricType, value: float | Summary | Histogram | None) -> bytes:
    if isinstance(value, Summary):
        pairs = (b"\x09" + _DOUBLE.pack(q) + b"\x11" + _DOUBLE.pack(v) for q, v in value.quantiles)
        quantiles = b"".join(_message(3, pair) for pair in pairs)
        return _message(_SUMMARY, b"\x08" + encoded_varint(value.count) + b"\x11" + _DOUBLE.pack(value.sum) + quantiles)
    if isinstance(value, Histogram):
        bounds = (b"\x08" + encoded_varint(count) + b"\x11" + _DOUBLE.pack(bound) for bound, count in value.buckets)
        buckets = b"".join(_message(3, each) for each in bounds)
        head = b"\x08" + encoded_varint(value.count) + b"\x11" + _DOUBLE.pack(value.sum)
        return _message(_HISTOGRAM, head + buckets + value.native)
    return _message(_SCALAR_FIELDS[kind], b"" if value is None else b"\x09" + _DOUBLE.pack(value))


def _message(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | BYTES,)) + encoded_varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())
