"""Both remote-write decoders against the official protobuf library, and against everything that goes wrong."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgauge.errors import BadInput, IndexFull
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.labels import MAX_LABEL_VALUE_BYTES, MAX_LABELS, key_of, series_key
from streamgauge.testing.thorough import examples, some_of
from streamgauge.wire import remote_write_v1, remote_write_v2
from streamgauge.wire.findings import TYPES, Findings, Reason
from streamgauge.wire.samples import BATCH_ROWS, NEW_AT_ONCE
from streamgauge.wire.series_cache import SeriesCache

NOW = 1_790_000_000_000
EVER = (-(1 << 63), (1 << 63) - 1)
Row = tuple[bytes, int, int]  # key, time, bits of the value

# ---- requests, and the official library to build them ---------------------------------------------------------------

Field = descriptor_pb2.FieldDescriptorProto


def _official(package: str, messages: dict[str, list[tuple[int, str, Any, bool]]]) -> dict[str, type[Any]]:
    """Message classes of the protobuf library from (number, name, type or message name, repeated)."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, field_name, kind, repeated in fields:
            one = message.field.add(name=field_name, number=number)
            one.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                one.type, one.type_name = Field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                one.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"{package}.{name}") for name in messages}
    return {name: message_factory.GetMessageClass(one) for name, one in found.items()}


STRING, BYTES, DOUBLE = Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_DOUBLE
INT64, UINT32, ENUM = Field.TYPE_INT64, Field.TYPE_UINT32, Field.TYPE_INT32

V1 = _official(
    "prometheus",
    {
        "Label": [(1, "name", BYTES, False), (2, "value", BYTES, False)],
        "Sample": [(1, "value", DOUBLE, False), (2, "timestamp", INT64, False)],
        "Exemplar": [(1, "labels", "Label", True), (2, "value", DOUBLE, False), (3, "timestamp", INT64, False)],
        "Histogram": [(3, "sum", DOUBLE, False), (15, "timestamp", INT64, False)],
        "TimeSeries": [
            (1, "labels", "Label", True),
            (2, "samples", "Sample", True),
            (3, "exemplars", "Exemplar", True),
            (4, "histograms", "Histogram", True),
        ],
        "MetricMetadata": [
            (1, "type", ENUM, False),
            (2, "metric_family_name", STRING, False),
            (4, "help", STRING, False),
            (5, "unit", STRING, False),
        ],
        "WriteRequest": [(1, "timeseries", "TimeSeries", True), (3, "metadata", "MetricMetadata", True)],
    },
)
V2 = _official(
    "io.prometheus.write.v2",
    {
        "Sample": [(1, "value", DOUBLE, False), (2, "timestamp", INT64, False), (3, "start_timestamp", INT64, False)],
        "Exemplar": [(1, "labels_refs", UINT32, True), (2, "value", DOUBLE, False), (3, "timestamp", INT64, False)],
        "Histogram": [(3, "sum", DOUBLE, False), (15, "timestamp", INT64, False)],
        "Metadata": [(1, "type", ENUM, False), (3, "help_ref", UINT32, False), (4, "unit_ref", UINT32, False)],
        "TimeSeries": [
            (1, "labels_refs", UINT32, True),
            (2, "samples", "Sample", True),
            (3, "histograms", "Histogram", True),
            (4, "exemplars", "Exemplar", True),
            (5, "metadata", "Metadata", False),
        ],
        "Request": [(4, "symbols", BYTES, True), (5, "timeseries", "TimeSeries", True)],
    },
)


@dataclass
class Series:
    labels: list[tuple[bytes, bytes]]
    samples: list[tuple[int, float]] = field(default_factory=list)  # time, value
    histograms: int = 0
    exemplars: int = 0
    start: int = 0  # start timestamp of the samples
    metadata: tuple[int, bytes, bytes] | None = None  # type, help, unit


def series(number: int = 0, *samples: tuple[int, float], **more: Any) -> Series:
    labels = [(b"__name__", b"requests_total"), (b"path", b"/%d" % number), (b"zone", b"eu")]
    return Series(labels, list(samples), **more)


def encode_v1(all_series: list[Series]) -> bytes:
    request = V1["WriteRequest"]()
    for one in all_series:
        out = request.timeseries.add()
        for name, value in one.labels:
            out.labels.add(name=name, value=value)
        for time, value in one.samples:
            out.samples.add(timestamp=time, value=value)
        for _ in range(one.histograms):
            out.histograms.add(sum=1.5, timestamp=NOW)
        for _ in range(one.exemplars):
            out.exemplars.add(value=1.5, timestamp=NOW).labels.add(name=b"trace", value=b"abc")
    return bytes(request.SerializeToString())


def encode_v2(all_series: list[Series]) -> bytes:
    request = V2["Request"]()
    symbols = {b"": 0}

    def ref(symbol: bytes) -> int:
        return symbols.setdefault(symbol, len(symbols))

    for one in all_series:
        out = request.timeseries.add()
        out.labels_refs.extend(ref(text) for pair in one.labels for text in pair)
        for time, value in one.samples:
            out.samples.add(timestamp=time, value=value, start_timestamp=one.start)
        for _ in range(one.histograms):
            out.histograms.add(sum=1.5, timestamp=NOW)
        for _ in range(one.exemplars):
            out.exemplars.add(value=1.5, timestamp=NOW, labels_refs=[ref(b"trace"), ref(b"abc")])
        if one.metadata:
            kind, text, unit = one.metadata
            out.metadata.type, out.metadata.help_ref, out.metadata.unit_ref = kind, ref(text), ref(unit)
    request.symbols.extend(symbols)
    return bytes(request.SerializeToString())


# ---- the decoders under test ----------------------------------------------------------------------------------------


class Receiver:
    """A decoder with its cache, and a table of ids such as a sink has."""

    def __init__(self, decode: Callable[..., Iterator[SampleBatch]]) -> None:
        self._decode = decode
        self.cache = SeriesCache()
        self.cache = self.cache.for_generation(0)
        self.keys: list[bytes] = []
        self.ids: dict[bytes, int] = {}
        self.findings = Findings()
        self.resolved = 0

    def resolve(self, key: bytes) -> int:
        self.resolved += 1
        if key not in self.ids:
            self.ids[key] = len(self.keys)
            self.keys.append(key)
        return self.ids[key]

    def rows(self, data: bytes, window: tuple[int, int] = EVER) -> list[Row]:
        """The rows of one request in order; raises what the decoder raises."""
        return list(self.each_row(data, window))

    def rows_and_error(self, data: bytes) -> tuple[list[Row], BadInput | None]:
        """The rows before the error, and the error. Anything but BadInput goes through."""
        rows: list[Row] = []
        try:
            for row in self.each_row(data):
                rows.append(row)  # noqa: PERF402 - the rows before the error count
        except BadInput as error:
            return rows, error
        return rows, None

    def each_row(self, data: bytes, window: tuple[int, int] = EVER) -> Iterator[Row]:
        self.findings = Findings()
        for batch in self._decode(data, self.cache, self.resolve, window, self.findings):
            assert len(batch) <= BATCH_ROWS
            assert (batch.series.dtype, batch.times.dtype, batch.values.dtype) == (np.uint32, np.int64, np.float64)
            columns = (batch.series.tolist(), batch.times.tolist(), batch.values.view(np.int64).tolist())
            yield from ((self.keys[one], time, bits) for one, time, bits in zip(*columns, strict=True))


@dataclass
class Version:
    encode: Callable[[list[Series]], bytes]
    decode: Callable[..., Iterator[SampleBatch]]

    def receiver(self) -> Receiver:
        return Receiver(self.decode)


VERSIONS = {
    "v1": Version(encode_v1, remote_write_v1.decode),
    "v2": Version(encode_v2, remote_write_v2.decode),
}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Version:
    return VERSIONS[request.param]


def bits_of(value: float) -> int:
    return int(np.array([value]).view(np.int64)[0])


def expected_rows(all_series: list[Series], window: tuple[int, int] = EVER) -> list[Row]:
    rows = []
    for one in all_series:
        try:
            key = series_key(one.labels)
        except BadInput:
            continue
        rows += [(key, time, bits_of(value)) for time, value in one.samples if window[0] <= time <= window[1]]
    return rows


# ---- the same result as the official library ------------------------------------------------------------------------

TEXTS = st.sampled_from([b"", b"a", b"__name__", b"\xff", b"job", "naïve".encode(), b"x" * 200, b"\x12\x10\x09", b"\n"])
TIMES = st.one_of(
    st.integers(NOW - 10, NOW + 10),
    st.sampled_from([0, 1, -1, (1 << 35) - 1, 1 << 35, (1 << 42) - 1, 1 << 42, EVER[0], EVER[1]]),
)
VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, float("inf"), float("-inf"), float("nan"), 5e-324, 1.7976931348623157e308]),
    st.floats(),
)
SERIES = st.builds(
    Series,
    labels=st.lists(st.tuples(TEXTS, TEXTS), max_size=4),
    samples=st.one_of(
        st.lists(st.tuples(st.just(NOW), VALUES), max_size=12), st.lists(st.tuples(TIMES, VALUES), max_size=12)
    ),
    histograms=st.sampled_from([0, 0, 0, 2]),
    exemplars=st.sampled_from([0, 0, 0, 1]),
    start=st.sampled_from([0, 0, NOW - 5, -3]),
    metadata=st.one_of(st.none(), st.tuples(st.integers(0, 9), st.sampled_from([b"", b"Help."]), st.just(b"s"))),
)
QUICK = settings(max_examples=examples(30), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", VERSIONS)
@QUICK
@given(requests=st.lists(st.lists(SERIES, max_size=8), min_size=1, max_size=3))
def test_any_request_decodes_to_what_was_put_in_however_often_it_comes(name: str, requests: list[list[Series]]) -> None:
    version = VERSIONS[name]
    receiver = version.receiver()
    for request in (*requests, *requests, *requests):
        assert receiver.rows(version.encode(request)) == expected_rows(request)


@pytest.mark.parametrize("name", VERSIONS)
@QUICK
@given(request=st.lists(SERIES, max_size=8))
def test_samples_outside_the_window_are_refused_and_counted(name: str, request: list[Series]) -> None:
    version = VERSIONS[name]
    receiver = version.receiver()
    window = (NOW - 5, NOW + 5)
    for _ in range(3):
        assert receiver.rows(version.encode(request), window) == expected_rows(request, window)
        refused = receiver.findings.refused
        outside = len(expected_rows(request)) - len(expected_rows(request, window))
        assert refused[Reason.TOO_OLD] + refused[Reason.TOO_NEW] == outside
        assert refused[Reason.HISTOGRAM] == sum(one.histograms for one in request)
        assert refused[Reason.EXEMPLAR] == sum(one.exemplars for one in request)
        assert bool(receiver.findings.examples) == bool(refused)


def test_a_request_of_many_series_is_decoded_without_resolving_them_again(version: Version) -> None:
    receiver = version.receiver()
    for round_number in range(4):
        request = [series(i, (NOW + round_number, i + 0.5)) for i in range(5000)]
        assert receiver.rows(version.encode(request)) == expected_rows(request)
    assert receiver.resolved == 5000


@pytest.mark.parametrize("count", [2, 7, 8, 499, 501, 2001, 5000])
def test_a_series_may_bring_many_samples(version: Version, count: int) -> None:
    receiver = version.receiver()
    request = [series(i, *((NOW + j, j + 0.25) for j in range(count))) for i in range(3)]
    for _ in range(3):
        assert receiver.rows(version.encode(request)) == expected_rows(request)


def test_the_order_of_series_may_change_from_request_to_request(version: Version) -> None:
    receiver = version.receiver()
    everything = [series(i, (NOW, 0.0 if i % 3 == 0 else 1.5)) for i in range(600)]
    generator = np.random.default_rng(7)
    for _ in range(6):
        request = [everything[i] for i in generator.permutation(600)]
        assert receiver.rows(version.encode(request)) == expected_rows(request)


def test_the_boundaries_between_requests_may_move(version: Version) -> None:
    """The same series come in other groups each time: with other symbols, references and neighbours."""
    receiver = version.receiver()
    kinds = [(1, b"requests", b""), (2, b"bytes", b"B"), None]
    everything = [
        series(
            i,
            *((NOW + j, 0.0 if i % 5 == 0 else i + 0.5) for j in range(1 + (i % 11 == 0))),
            histograms=int(i % 97 == 0),
            metadata=kinds[i % 3] if version is VERSIONS["v2"] else None,
        )
        for i in range(4000)
    ]
    for one in everything[::7]:
        one.labels.append((b"zz", b'"%d"' % (len(one.samples) * 3)))
    generator = np.random.default_rng(3)
    for turn in range(6):
        cuts = np.sort(generator.choice(4000, 5, replace=False)).tolist()
        received = []
        for first, last in itertools.pairwise([0, *cuts, 4000]):
            received += receiver.rows(version.encode(everything[first:last]))
        assert received == expected_rows(everything)
        if turn == 0:
            resolved = receiver.resolved
    # Those with histograms, or several zeros, and what stands alone between such are read by themselves.
    assert receiver.resolved - resolved < 5 * 200


def test_counters_that_leave_zero_and_return_to_it_stay_the_same_series(version: Version) -> None:
    receiver = version.receiver()
    for value in (0.0, 1.0, 0.0, 2.0, 0.0):
        request = [series(i, (NOW, value if i % 2 else 3.0)) for i in range(50)]
        assert receiver.rows(version.encode(request)) == expected_rows(request)


def test_the_same_symbols_with_other_references_are_other_series() -> None:
    receiver = VERSIONS["v2"].receiver()
    names = [b"__name__", b"m", b"a" * 300, b"x" * 300]
    first = Series([(names[0], names[1]), (names[2], names[3])], [(NOW, 1.0)])
    second = Series([(names[2], names[1]), (names[0], names[3])], [(NOW, 1.0)])
    both = encode_v2([first, second])
    swapped = encode_v2([Series([(names[0], names[1]), (names[2], names[3])]), second, first])
    for data, request in ((both, [first, second]), (swapped, [second, first])) * 3:
        assert receiver.rows(data) == expected_rows(request)


def test_labels_in_another_order_are_the_same_series(version: Version) -> None:
    receiver = version.receiver()
    one = series(1, (NOW, 1.0))
    turned = Series(one.labels[::-1], one.samples)
    assert len({row[0] for row in receiver.rows(version.encode([one, turned]))}) == 1


def test_ids_of_another_generation_are_forgotten(version: Version) -> None:
    receiver = version.receiver()
    data = version.encode([series(i, (NOW, 1.0)) for i in range(40)])
    for generation in range(3):
        receiver.cache = receiver.cache.for_generation(generation)
        receiver.rows(data)
        receiver.rows(data)
    assert receiver.resolved == 3 * 40


def test_symbols_without_series_do_not_outgrow_the_cache() -> None:
    receiver = VERSIONS["v2"].receiver()
    receiver.cache = SeriesCache(limit=100_000)
    for request in range(20):
        symbols = V2["Request"](symbols=[b"", *(b"%d-%d" % (request, number) for number in range(5000))])
        assert receiver.rows(symbols.SerializeToString()) == []
        assert receiver.cache.size < 1_000_000


def test_a_wrong_reference_is_refused_beside_a_sample_outside_the_window() -> None:
    """The symbols of a request that is known are read when something in it has to be named, and then once more."""
    receiver = VERSIONS["v2"].receiver()
    known = [series(i, (NOW, 1.0)) for i in range(400)]
    for _ in range(3):
        receiver.rows(encode_v2(known))
    request = V2["Request"]()
    request.ParseFromString(encode_v2([series(0, (NOW - 100, 1.0)), *known[1:]]))
    beyond = len(request.symbols)
    wrong = request.timeseries.add(labels_refs=[beyond + 1, beyond + 2])
    wrong.samples.add(timestamp=NOW, value=5.0)
    rows = receiver.rows(request.SerializeToString(), (NOW - 50, NOW + 50))
    assert [key for key, _, _ in rows] == [row[0] for row in receiver.rows(encode_v2(known[1:]))]
    assert receiver.findings.refused == {}
    receiver.rows(request.SerializeToString(), (NOW - 50, NOW + 50))
    assert receiver.findings.refused[Reason.LABELS] == 1


@pytest.mark.parametrize("seed", some_of(range(3), 3))
def test_requests_that_are_decoded_at_the_same_time_share_a_cache(version: Version, seed: int) -> None:
    """Each pauses wherever it likes, while others make the cache drop what it holds."""
    random = Random(seed)
    receiver = version.receiver()
    receiver.cache = SeriesCache(limit=60_000)
    requests = [[series(i, (NOW + n, 1.0)) for i in random.sample(range(9000), 4000)] for n in range(5)]
    running = [
        (n, [], receiver._decode(version.encode(one), receiver.cache, receiver.resolve, EVER, Findings()))
        for n, one in enumerate(requests)
    ]
    rows: dict[int, list[Row]] = {}
    while running:
        n, found, batches = random.choice(running)
        batch = next(batches, None)
        if batch is None:
            rows[n] = found
            running.remove((n, found, batches))
        else:
            columns = (batch.series.tolist(), batch.times.tolist(), batch.values.view(np.int64).tolist())
            found += [(receiver.keys[one], time, bits) for one, time, bits in zip(*columns, strict=True)]
    for n, one in enumerate(requests):
        assert rows[n] == version.receiver().rows(version.encode(one))


# ---- bits -----------------------------------------------------------------------------------------------------------


def raw_field(tag: int, content: bytes) -> bytes:
    return raw_varint(tag) + raw_varint(len(content)) + content


def raw_varint(number: int, width: int = 0) -> bytes:
    """Little-endian base 128; padded to `width` bytes as no ordinary encoder would."""
    out = []
    number &= (1 << 64) - 1
    while number >= 0x80 or len(out) + 1 < width:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def raw_sample(bits: int, time: int) -> bytes:
    return b"\x09" + struct.pack("<Q", bits) + b"\x10" + raw_varint(time)


def raw_label(name: bytes, value: bytes) -> bytes:
    return raw_field(0x0A, name) + raw_field(0x12, value)


def raw_request(version: Version, *samples: bytes) -> bytes:
    """A request of one series, its samples given as bytes."""
    body = b"".join(raw_field(0x12, sample) for sample in samples)
    if version is VERSIONS["v1"]:
        return raw_field(0x0A, raw_field(0x0A, raw_label(b"__name__", b"m")) + body)
    symbols = b"".join(raw_field(0x22, symbol) for symbol in (b"", b"__name__", b"m", b"x" * 600))
    return symbols + raw_field(0x2A, raw_field(0x0A, b"\x01\x02") + body)


BIT_PATTERNS = [
    STALE_BITS,
    0x7FF8000000000001,  # the ordinary NaN of Prometheus
    0xFFF0000000000001,  # a negative signalling NaN
    0x7FF0000000000000,
    0xFFF0000000000000,
    0x8000000000000000,
    0x0000000000000001,
    0x800FFFFFFFFFFFFF,
]


@pytest.mark.parametrize("time", [NOW, 0, EVER[0], EVER[1]])
def test_values_keep_every_bit(version: Version, time: int) -> None:
    receiver = version.receiver()
    for bits in BIT_PATTERNS:
        signed = bits - (1 << 64) if bits >> 63 else bits
        for count in (1, 2, 20):
            for _ in range(3):
                rows = receiver.rows(raw_request(version, *([raw_sample(bits, time)] * count)))
                assert rows == [(key_of({"__name__": "m"}), time, signed)] * count


@pytest.mark.parametrize("time", [0, 1, -1, NOW, EVER[0], EVER[1]])
def test_times_reach_both_ends_of_int64(version: Version, time: int) -> None:
    request = [series(1, (time, 1.0)), series(2, (time, 0.0))]
    assert version.receiver().rows(version.encode(request)) == expected_rows(request)


# ---- encodings that are valid, but that nobody writes ---------------------------------------------------------------


def test_fields_may_come_in_any_order_and_with_unknown_ones_between(version: Version) -> None:
    sample = b"\x10" + raw_varint(NOW, 9) + raw_field(0x7A, b"later") + b"\x09" + struct.pack("<d", 2.5)
    unknown = raw_field(0x1F42, b"later") + b"\xf0\x07\x05" + b"\xfd\x01abcd"
    if version is VERSIONS["v1"]:
        label = raw_field(0x12, b"m") + unknown + raw_field(0x0A, b"__name__")
        data = unknown + raw_field(0x0A, raw_field(0x12, sample) + unknown + raw_field(0x0A, label))
    else:
        symbols = raw_field(0x22, b"") + raw_field(0x22, b"__name__") + raw_field(0x22, b"m")
        data = symbols + unknown + raw_field(0x2A, raw_field(0x12, sample) + b"\x08\x01\x08\x02" + unknown)
    assert version.receiver().rows(data) == [(key_of({"__name__": "m"}), NOW, bits_of(2.5))]


def test_a_later_value_of_a_single_field_wins(version: Version) -> None:
    data = raw_request(version, raw_sample(0, 5) + raw_sample(bits_of(2.0), NOW))
    assert version.receiver().rows(data) == [(key_of({"__name__": "m"}), NOW, bits_of(2.0))]


def test_what_looks_like_a_sample_inside_a_label_is_not_taken_for_one(version: Version) -> None:
    receiver = version.receiver()
    disguise = b"\x12\x10\x09" + bytes(8) + b"\x10" + raw_varint(NOW)
    decoy = disguise.decode("latin-1").encode()
    for tail in (b"", b"\x12\x07", decoy, b"\x12\x10\t" + b"\x01" * 6):
        request = [Series([(b"__name__", b"m"), (b"x", b"a" + tail)], [(NOW, value)]) for value in (0.0, 1.0)]
        for _ in range(3):
            assert receiver.rows(version.encode(request)) == expected_rows(request)


# ---- series that are refused ----------------------------------------------------------------------------------------

BAD_LABELS = {
    "no labels": [],
    "only empty values": [(b"a", b"")],
    "empty name": [(b"__name__", b"m"), (b"", b"x")],
    "repeated name": [(b"__name__", b"m"), (b"a", b"1"), (b"a", b"2")],
    "name not UTF-8": [(b"__name__", b"m"), (b"\xff", b"x")],
    "value not UTF-8": [(b"__name__", b"m"), (b"a", b"\xc3\x28")],
    "value of 10 MB": [(b"__name__", b"m"), (b"a", b"x" * 10_000_000)],
    "value over the limit": [(b"__name__", b"m"), (b"a", b"x" * (MAX_LABEL_VALUE_BYTES + 1))],
    "name of 2 kB": [(b"__name__", b"m"), (b"n" * 2000, b"x")],
    "too many labels": [(b"l%d" % i, b"x") for i in range(MAX_LABELS + 1)],
    "far too many labels": [(b"l%d" % i, b"") for i in range(5000)],
}


@pytest.mark.parametrize("labels", BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_a_bad_series_is_named_and_the_others_are_decoded(version: Version, labels: list[tuple[bytes, bytes]]) -> None:
    receiver = version.receiver()
    for values in ([1.0], [0.0], [1.0, 2.0], [1.0] * 20):
        bad = Series(labels, [(NOW, value) for value in values])
        request = [series(1, (NOW, 1.0)), bad, series(2, (NOW, 2.0))]
        for _ in range(3):
            assert receiver.rows(version.encode(request)) == expected_rows([request[0], request[2]])
            assert receiver.findings.refused == {Reason.LABELS: len(values)}
            (example,) = receiver.findings.examples
            assert len(example) <= 300


def test_a_series_that_the_index_has_no_room_for_is_refused(version: Version) -> None:
    receiver = version.receiver()
    known = series(1, (NOW, 1.0))
    receiver.rows(version.encode([known]))

    def full(key: bytes) -> int:
        raise IndexFull("the index is full")

    receiver.resolve = full  # type: ignore[method-assign]
    request = [known, series(2, (NOW, 1.0)), series(3, (NOW, 1.0), (NOW + 1, 1.0))]
    assert receiver.rows(version.encode(request)) == expected_rows([known])
    assert receiver.findings.refused == {Reason.SERIES_LIMIT: 3}
    assert "the index is full" in receiver.findings.examples[0]
    assert 'path="/2"' in receiver.findings.examples[0]


def test_a_refused_time_is_named_with_its_series_and_the_bound(version: Version) -> None:
    receiver = version.receiver()
    request = [series(i, (NOW + i, 1.0)) for i in range(10)]
    for _ in range(4):
        receiver.rows(version.encode(request), (NOW + 3, NOW + 7))
        assert receiver.findings.refused == {Reason.TOO_OLD: 3, Reason.TOO_NEW: 2}
        old, new = receiver.findings.examples
        assert 'requests_total{path="/0"' in old
        assert f"time {NOW} ms" in old
        assert str(NOW + 3) in old
        assert 'requests_total{path="/8"' in new


def test_many_refused_series_keep_few_examples(version: Version) -> None:
    receiver = version.receiver()
    receiver.rows(version.encode([Series([(b"a", b"%d" % i), (b"a", b"x")], [(NOW, 1.0)]) for i in range(1000)]))
    assert receiver.findings.refused == {Reason.LABELS: 1000}
    assert len(receiver.findings.examples) == 5


def test_references_that_name_nothing_refuse_their_series_alone() -> None:
    receiver = VERSIONS["v2"].receiver()
    symbols = b"".join(raw_field(0x22, symbol) for symbol in (b"", b"__name__", b"m"))
    sample = raw_field(0x12, raw_sample(0, NOW))
    bad = [b"\x01\x03", b"\x01", b"\x01\xff\xff\xff\xff\x0f", b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
    good = raw_field(0x2A, raw_field(0x0A, b"\x01\x02") + sample)
    for refs in bad:
        data = symbols + good + raw_field(0x2A, raw_field(0x0A, refs) + sample) + good
        assert len(receiver.rows(data)) == 2
        assert receiver.findings.refused == {Reason.LABELS: 1}


# ---- metadata -------------------------------------------------------------------------------------------------------


def test_metadata_of_version_1() -> None:
    request = V1["WriteRequest"]()
    for number in range(9):
        request.metadata.add(type=number, metric_family_name=f"m{number}", help="Help ü.", unit="seconds")
    receiver = VERSIONS["v1"].receiver()
    assert receiver.rows(request.SerializeToString()) == []
    words = (*TYPES, "unknown")
    assert receiver.findings.metadata == {
        f"m{i}": Metadata(f"m{i}", word, "Help ü.", "seconds") for i, word in enumerate(words)
    }


def test_metadata_of_version_2_comes_when_the_series_or_the_metadata_is_new() -> None:
    receiver = VERSIONS["v2"].receiver()
    counted = [series(i, (NOW, 1.0), metadata=(1, b"Requests.", b"")) for i in range(3)]
    receiver.rows(encode_v2(counted))
    assert receiver.findings.metadata == {"requests_total": Metadata("requests_total", "counter", "Requests.", "")}
    receiver.rows(encode_v2(counted))
    assert receiver.findings.metadata == {}
    receiver.cache.forget_metadata()
    receiver.rows(encode_v2(counted))
    assert "requests_total" in receiver.findings.metadata
    changed = [series(i, (NOW, 1.0), metadata=(2, b"Other.", b"bytes")) for i in range(3)]
    receiver.rows(encode_v2(changed))
    assert receiver.findings.metadata == {"requests_total": Metadata("requests_total", "gauge", "Other.", "bytes")}


def test_bad_metadata_is_refused_and_its_samples_are_kept() -> None:
    receiver = VERSIONS["v2"].receiver()
    symbols = b"".join(raw_field(0x22, symbol) for symbol in (b"", b"__name__", b"m"))
    tail = raw_field(0x2A, b"\x08\x01\x18\x63")
    data = symbols + raw_field(0x2A, raw_field(0x0A, b"\x01\x02") + raw_field(0x12, raw_sample(0, NOW)) + tail)
    assert len(receiver.rows(data)) == 1
    assert receiver.findings.refused == {Reason.METADATA: 1}
    receiver = VERSIONS["v1"].receiver()
    assert receiver.rows(raw_field(0x1A, raw_field(0x12, b"m") + raw_field(0x22, b"\xff"))) == []
    assert receiver.findings.refused == {Reason.METADATA: 1}


def test_start_timestamps_are_accepted_and_counted() -> None:
    receiver = VERSIONS["v2"].receiver()
    request = [series(i, (NOW, float(i)), start=NOW - 1000) for i in range(50)]
    for _ in range(4):
        assert receiver.rows(encode_v2(request)) == expected_rows(request)
        assert receiver.findings.start_times == 50
        assert not receiver.findings.refused


# ---- requests that are broken ---------------------------------------------------------------------------------------

MIXED = [
    series(1, (NOW, 1.0)),
    series(2, (NOW, 0.0)),
    series(3, *((NOW + i, float(i)) for i in range(12)), metadata=(1, b"Help.", b"")),
    Series([(b"__name__", b"long"), (b"v", b"y" * 700)], [(NOW, 1.0)], histograms=1, exemplars=1),
    series(4, (NOW, 1.0), (NOW + 1, 2.0), start=NOW - 9),
]


def test_a_request_cut_at_any_byte_gives_the_rows_before_and_says_so(version: Version) -> None:
    data = version.encode(MIXED)
    everything = expected_rows(MIXED)
    warm = version.receiver()
    for _ in range(3):
        warm.rows(data)
    broken = 0
    for cut in range(len(data)):
        for receiver in (version.receiver(), warm):
            rows, error = receiver.rows_and_error(data[:cut])
            broken += error is not None
            assert error is None or "byte" in error.message
            assert rows == everything[: len(rows)]
    assert broken > len(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x0a", "cut off"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "more than 10 bytes"),
        (b"\x0b\x01", "wire type 3"),
        (b"\x0f\x01", "wire type 7"),
        (b"\x02\x01a", "number 0"),
        (b"\x08\x01", "wire type 0 instead of 2"),
        (b"\x0a\x03\x0a\x05a", "has 5 bytes"),
        (b"\x0a\x02\x08\x01", "wire type 0 instead of 2"),
        (b"\x0a\x04\x12\x02\x08\x01", "wire type 0 instead of 1"),
        (b"\x1a\x02\x09\x01", "cut off"),
    ],
)
def test_broken_structure_is_named_with_its_place(data: bytes, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        VERSIONS["v1"].receiver().rows(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x22\x05a", "cut off|only"),
        (b"\x22", "cut off"),
        (b"\x22\x01a", "first symbol"),
        (b"\x22\x00\x2a\x00\x22\x01a", "symbols come first"),
        (b"\x22\x00\x28\x01", "wire type 0 instead of 2"),
        (b"\x22\x00\x2a\x02\x0d\x01", "cut off"),
    ],
)
def test_broken_structure_of_version_2(data: bytes, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        VERSIONS["v2"].receiver().rows(data)


@pytest.mark.parametrize("name", VERSIONS)
@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_request_raises_nothing_but_our_own_errors(name: str, data: st.DataObject) -> None:
    version = VERSIONS[name]
    good = version.encode(MIXED)
    receiver = version.receiver()
    for _ in range(3):
        receiver.rows(good)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(bad) - 1))
        action = data.draw(st.sampled_from(["flip", "set", "delete", "insert", "copy"]))
        if action == "flip":
            bad[at] ^= 1 << data.draw(st.integers(0, 7))
        elif action == "set":
            bad[at] = data.draw(st.sampled_from([0, 1, 0x0A, 0x12, 0x2A, 0x7F, 0x80, 0xFF]))
        elif action == "delete":
            del bad[at : at + data.draw(st.integers(1, 20))]
        elif action == "insert":
            bad[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        else:
            bad[at:at] = good[at : at + 40]
        if not bad:
            return
    outcomes = []
    for one in (receiver, version.receiver()):
        rows, error = one.rows_and_error(bytes(bad))
        outcomes.append((rows, error is None))
    warm, cold = outcomes
    assert warm == cold  # what is remembered of earlier requests changes nothing


@pytest.mark.parametrize("name", VERSIONS)
@settings(max_examples=examples(100), deadline=None)
@given(data=st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_our_own_errors(name: str, data: bytes) -> None:
    _, error = VERSIONS[name].receiver().rows_and_error(data)
    assert error is None or error.message.startswith(("protobuf: ", "the first symbol"))


@pytest.mark.parametrize("filler", [b"\x0a\x00", b"\x2a\x00", b"\x22\x00", b"\x1a\x00", b"\xf8\x07\x01"])
def test_much_work_without_samples_pauses_now_and_then(version: Version, filler: bytes) -> None:
    receiver = version.receiver()
    inside = raw_field(0x0A if version is VERSIONS["v1"] else 0x2A, filler * 30_000)
    for data in (filler * 30_000, inside):
        findings = Findings()
        batches = version.decode(data, receiver.cache, receiver.resolve, EVER, findings)
        pauses = 0
        try:
            for batch in batches:
                assert len(batch) == 0
                pauses += 1
        except BadInput:
            continue
        assert pauses >= 3


@pytest.mark.parametrize("form", ["standard", "own", "refused"])
def test_many_new_series_pause_now_and_then(version: Version, form: str) -> None:
    """2,000 of them at once hold up the event loop for 40 ms."""
    receiver = version.receiver()
    request = [series(i, (NOW, 1.5), histograms=int(form == "own")) for i in range(3000)]
    asked = most = 0

    def resolve(key: bytes) -> int:
        nonlocal asked
        asked += 1
        if form == "refused":
            raise IndexFull("full")
        return receiver.resolve(key)

    for _ in version.decode(version.encode(request), receiver.cache, resolve, EVER, Findings()):
        asked, most = 0, max(most, asked)
    assert max(asked, most) <= NEW_AT_ONCE
