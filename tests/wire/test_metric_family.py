"""Metric families against Google's protobuf library, and the text format against what it stands for."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.wire import metric_family_protobuf as protobuf
from streamgauge.wire import metric_family_text as text
from streamgauge.wire.metric_family import (
    Histogram,
    Metric,
    MetricFamily,
    MetricType,
    Summary,
    samples_of,
)

NOW = 1_790_000_000_000
Field = descriptor_pb2.FieldDescriptorProto

SCHEMA = {
    "LabelPair": [("name", 1, "string"), ("value", 2, "string")],
    "Number": [("value", 1, "double"), ("exemplar", 2, "LabelPair")],
    "Quantile": [("quantile", 1, "double"), ("value", 2, "double")],
    "Summary": [("sample_count", 1, "uint64"), ("sample_sum", 2, "double"), ("quantile", 3, "Quantile*")],
    "Bucket": [("cumulative_count", 1, "uint64"), ("upper_bound", 2, "double"), ("exemplar", 3, "LabelPair")],
    "Histogram": [
        ("sample_count", 1, "uint64"),
        ("sample_sum", 2, "double"),
        ("bucket", 3, "Bucket*"),
        ("schema", 5, "sint32"),
        ("positive_delta", 13, "sint64*"),
        ("exemplars", 16, "LabelPair*"),
    ],
    "Metric": [
        ("label", 1, "LabelPair*"),
        ("gauge", 2, "Number"),
        ("counter", 3, "Number"),
        ("summary", 4, "Summary"),
        ("untyped", 5, "Number"),
        ("timestamp_ms", 6, "int64"),
        ("histogram", 7, "Histogram"),
    ],
    "MetricFamily": [("name", 1, "string"), ("help", 2, "string"), ("type", 3, "int32"), ("metric", 4, "Metric*")],
}


def _schema() -> Any:
    """The messages of the schema that are read, and some that are left out."""
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="io.prometheus.client", syntax="proto2")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            label = Field.LABEL_REPEATED if kind.endswith("*") else Field.LABEL_OPTIONAL
            added = message.field.add(name=field_name, number=number, label=label)
            kind = kind.rstrip("*")
            if kind in SCHEMA:
                added.type, added.type_name = Field.TYPE_MESSAGE, f".io.prometheus.client.{kind}"
            else:
                added.type = getattr(Field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("io.prometheus.client.MetricFamily"))


FAMILY = _schema()


def delimited(messages: Iterable[Any]) -> bytes:
    out = b""
    for message in messages:
        content = message.SerializeToString()
        assert len(content) < 1 << 14
        size = len(content)
        out += (bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80, size >> 7))) + content
    return out


def message_of(family: MetricFamily) -> Any:
    """The same family, as the library has it."""
    message = FAMILY(name=family.name)
    if family.help:
        message.help = family.help
    if family.type is not None:
        message.type = family.type
    for metric in family.metrics:
        added = message.metric.add()
        for name, value in metric.labels:
            added.label.add(name=name, **({} if value is None else {"value": value}))
        if metric.timestamp is not None:
            added.timestamp_ms = metric.timestamp
        if metric.kind is not None:
            _set_value(getattr(added, metric.kind.name.lower()), metric.value)
    return message


def _set_value(field: Any, value: float | Summary | Histogram | None) -> None:
    field.SetInParent()
    if isinstance(value, Summary):
        field.sample_count, field.sample_sum = value.count, value.sum
        for quantile, number in value.quantiles:
            field.quantile.add(quantile=quantile, value=number)
    elif isinstance(value, Histogram):
        field.sample_count, field.sample_sum = value.count, value.sum
        for bound, count in value.buckets:
            field.bucket.add(upper_bound=bound, cumulative_count=count)
    elif value is not None:
        field.value = value


NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True)
LABEL_NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text('aé\\"\n{}= ☃𝄞', max_size=8)
LABELS = st.lists(st.tuples(LABEL_NAMES, st.none() | TEXTS), max_size=4).map(tuple)
NUMBERS = st.floats(allow_nan=False)
COUNTS = st.integers(0, (1 << 64) - 1)
STAMPS = st.none() | st.integers(NOW, NOW + 1000) | st.integers(-(1 << 63), (1 << 63) - 1)
SUMMARIES = st.builds(Summary, COUNTS, NUMBERS, st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3).map(tuple))
HISTOGRAMS = st.builds(Histogram, COUNTS, NUMBERS, st.lists(st.tuples(NUMBERS, COUNTS), max_size=3).map(tuple))


def metrics(kind: MetricType) -> st.SearchStrategy[Metric]:
    values: Any = {MetricType.SUMMARY: SUMMARIES, MetricType.HISTOGRAM: HISTOGRAMS}.get(kind, st.none() | NUMBERS)
    return st.builds(Metric, LABELS, st.just(kind), values, STAMPS)


KINDS = [kind for kind in MetricType if kind is not MetricType.GAUGE_HISTOGRAM]
METRICS = st.one_of(*map(metrics, KINDS), st.builds(Metric, LABELS, st.none(), st.none(), STAMPS))
TYPES = st.none() | st.integers(0, 5) | st.integers(-(1 << 31), (1 << 31) - 1)
FAMILIES = st.lists(st.builds(MetricFamily, NAMES, TYPES, st.lists(METRICS, max_size=4).map(tuple), TEXTS), max_size=4)


@given(FAMILIES)
def test_families_are_the_bytes_that_googles_library_writes(families: list[MetricFamily]) -> None:
    body = protobuf.encode(families)
    assert body == delimited(map(message_of, families))
    assert protobuf.decode_now(body) == families


@given(METRICS)
def test_the_size_of_a_metric_is_what_it_adds_to_its_family(metric: Metric) -> None:
    empty, full = (protobuf.encode([MetricFamily("m", 3, metrics)]) for metrics in ((), (metric,)))
    length = 1 + (len(full) - 1 >= 0x80)  # of what stands before the family
    assert protobuf.encoded_size(metric) == len(full) - length - (len(empty) - 1)


def test_decoding_gives_others_their_turn_and_changes_nothing() -> None:
    many = [MetricFamily("up", 3, tuple(Metric((), MetricType.UNTYPED, float(i), i) for i in range(300)))]
    decoding = protobuf.decode(protobuf.encode(many))
    turns = 0
    try:
        while True:
            next(decoding)
            turns += 1
    except StopIteration as done:
        assert done.value == many
    assert turns >= 2


@given(FAMILIES, st.data())
def test_fuzz_damaged_bodies_are_decoded_or_refused(families: list[MetricFamily], data: st.DataObject) -> None:
    body = bytearray(protobuf.encode([*families, MetricFamily("up", 3, (Metric((), MetricType.GAUGE, 1.0, NOW),))]))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(1, len(body)))]
    try:
        found = protobuf.decode_now(bytes(body))
    except BadInput:
        return
    assert protobuf.decode_now(protobuf.encode(found)) == found or "nan" in repr(found)


@given(st.binary(max_size=200))
def test_fuzz_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    for decode_now in (protobuf.decode_now, text.decode_now):
        with suppress(BadInput):
            decode_now(body)


def test_stale_markers_keep_their_bits() -> None:
    stale = struct.unpack("<d", (0x7FF0000000000002).to_bytes(8, "little"))[0]
    body = protobuf.encode([MetricFamily("up", 3, (Metric((), MetricType.UNTYPED, stale, NOW),))])
    [family] = protobuf.decode_now(body)
    assert protobuf.encode([family]) == body
    assert (0x7FF0000000000002).to_bytes(8, "little") in body


def test_exemplars_are_left_out_and_native_histograms_kept() -> None:
    message = FAMILY(name="latency", type=4)
    metric = message.metric.add(timestamp_ms=NOW)
    metric.histogram.sample_count = 3
    metric.histogram.schema = -2
    metric.histogram.positive_delta.extend([1, -1])
    metric.histogram.exemplars.add(name="trace_id", value="secret")
    metric.histogram.bucket.add(upper_bound=1.0, cumulative_count=3).exemplar.value = "secret"
    body = protobuf.encode(protobuf.decode_now(delimited([message])))
    assert b"secret" not in body
    metric.histogram.ClearField("exemplars")
    metric.histogram.bucket[0].ClearField("exemplar")
    [family] = protobuf.decode_now(body)
    histogram = family.metrics[0].value
    assert isinstance(histogram, Histogram)
    assert histogram.native
    again = FAMILY.FromString(body[1:])
    assert again.metric[0].histogram.schema == -2
    assert list(again.metric[0].histogram.positive_delta) == [1, -1]
    assert again.metric[0].histogram.bucket == metric.histogram.bucket


def test_a_metric_with_two_values_has_no_kind() -> None:
    message = FAMILY(name="up", type=0)
    metric = message.metric.add()
    metric.counter.value = metric.gauge.value = 1.0
    assert protobuf.decode_now(delimited([message]))[0].metrics == (Metric((), None, None),)


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [
        ("", (), "a name that no metric can have"),
        ("a-b", (), "a name that no metric can have"),
        ("é", (), "a name that no metric can have"),
        ("up", (("", "x"),), "a name that no label can have"),
        ("up", (("a:b", "x"),), "a name that no label can have"),
    ],
)
def test_names_are_checked(name: str, labels: tuple[tuple[str, str], ...], said: str) -> None:
    body = protobuf.encode([MetricFamily(name, 3, (Metric(labels, MetricType.UNTYPED, 1.0),))])
    with pytest.raises(BadInput, match=said):
        protobuf.decode_now(body)


def test_label_values_are_utf8() -> None:
    body = protobuf.encode([MetricFamily("up", 3, (Metric((("a", "xyz"),), MetricType.UNTYPED, 1.0),))])
    with pytest.raises(BadInput, match=r'the value at byte \d+ of label "a" is not UTF-8'):
        protobuf.decode_now(body.replace(b"xyz", b"\xff\xfe\xfd"))


def test_labels_of_one_metric_are_bounded() -> None:
    labels = tuple(("a", "") for _ in range(2049))
    with pytest.raises(BadInput, match="more than 2048 labels"):
        protobuf.decode_now(protobuf.encode([MetricFamily("up", 3, (Metric(labels, MetricType.UNTYPED, 1.0),))]))


TEXT = b"""\
# HELP requests_total All of \\\\ them.
# TYPE requests_total counter
requests_total{code="200",path="a\\"b"} 3 1790000000000
requests_total{code="500"} NaN
# TYPE latency histogram
latency_bucket{le="0.5",zone="a"} 1 1790000000000
latency_bucket{le="+Inf",zone="a"} 2 1790000000000
latency_sum{zone="a"} 1.5 1790000000000
latency_count{zone="a"} 2 1790000000000
latency_count{zone="a"} 4 1790000030000
# TYPE size summary
size{quantile="0.99"} 7
size_sum 9
size_count 3
latency_other 1
"""


def test_text_gives_families() -> None:
    requests, latency, size, other = text.decode_now(TEXT)
    assert (requests.name, requests.type, requests.help) == ("requests_total", MetricType.COUNTER, "All of \\ them.")
    first, second = requests.metrics
    assert first == Metric((("code", "200"), ("path", 'a"b')), MetricType.COUNTER, 3.0, NOW)
    assert second.timestamp is None
    assert isinstance(second.value, float)
    assert math.isnan(second.value)
    zone = (("zone", "a"),)
    assert latency.metrics == (
        Metric(zone, MetricType.HISTOGRAM, Histogram(2, 1.5, ((0.5, 1), (math.inf, 2))), NOW),
        Metric(zone, MetricType.HISTOGRAM, Histogram(4, 0.0, ()), NOW + 30_000),
    )
    assert size.metrics == (Metric((), MetricType.SUMMARY, Summary(3, 9.0, ((0.99, 7.0),))),)
    assert other == MetricFamily("latency_other", MetricType.UNTYPED, (Metric((), MetricType.UNTYPED, 1.0),))


def test_text_of_families_is_read_as_the_same() -> None:
    families = text.decode_now(TEXT.replace(b"NaN", b"-Inf"))
    whole = [
        family
        if family.name != "latency"
        else MetricFamily(family.name, family.type, family.metrics[:1], family.help)  # which has all its buckets
        for family in families
    ]
    assert text.decode_now(b"".join(text.encode(whole))) == whole


@settings(max_examples=20)
@given(FAMILIES)
def test_written_text_says_every_sample(families: list[MetricFamily]) -> None:
    named = {family.name: family for family in families if all(m.value is not None for m in family.metrics)}
    lines = b"".join(text.encode(named.values())).split(b"\n")
    samples = [line for line in lines if line and not line.startswith(b"#")]
    assert len(samples) == sum(len(list(samples_of(family))) for family in named.values())


def test_samples_of_a_histogram_end_in_a_bucket_of_all() -> None:
    metric = Metric((("a", "b"),), MetricType.HISTOGRAM, Histogram(5, 2.5, ((1.0, 3),)), NOW)
    found = [(s.name, s.labels[-1], s.value) for s in samples_of(MetricFamily("h", 4, (metric,)))]
    assert found == [
        ("h_bucket", ("le", "1.0"), 3.0),
        ("h_bucket", ("le", "+Inf"), 5.0),
        ("h_sum", ("a", "b"), 2.5),
        ("h_count", ("a", "b"), 5.0),
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"up 1\nup", "line 2: a value was expected"),
        (b"up 1\n# TYPE up gauge\n", "line 2: the type of .* is given after samples"),
        (b"# TYPE up gauge\n# TYPE up counter\n", "line 2: the type of .* again and another"),
        (b'{"a.b"} 1\n', "line 1: no metric can have the name"),
        (b'up{"a.b"="c"} 1\n', "line 1: no label can have the name"),
        (b'up{a="\xff"} 1\n', "line 1: the value of label .* is not UTF-8"),
        (b"# TYPE h histogram\nh_count -1\n", "line 2: -1 is no count"),
        (b"# TYPE h histogram\nh_bucket 1\n", "line 2: .* is no part of the histogram"),
        (b"# TYPE s summary\ns 1\n", "line 2: .* is no part of the summary"),
        (b"up 1 99999999999999999999\n", "line 1: 99999999999999999999 is no timestamp"),
    ],
)
def test_text_that_is_none_is_refused_with_its_line(body: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        text.decode_now(body)
