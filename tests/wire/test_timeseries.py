"""Messages of time series over gRPC, against what protobuf itself makes of the definition."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.model.labels import key_of
from streamgauge.testing.sink import MemorySink
from streamgauge.testing.time_series import compile_definition, datum, messages
from streamgauge.wire import timeseries as wire
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.series_cache import SpellingCache
from streamgauge.wire.timeseries_points import DataPoints, PointReader
from streamgauge.wire.timeseries_rows import RowDecoder
from streamgauge.wire.timeseries_scrape import PollCache, decode

FOREVER = (-(1 << 61), 1 << 61)
TIMES = st.integers(-(10**18), 4 * 10**18)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
LABELS = st.dictionaries(TEXTS, TEXTS, max_size=5)


def test_what_is_compiled_is_of_the_definition() -> None:
    held = resources.files("streamgauge.wire").joinpath("proto", "timeseries.binpb").read_bytes()
    assert FileDescriptorSet.FromString(held) == FileDescriptorSet.FromString(compile_definition())


@given(TEXTS, LABELS, st.floats(), st.none() | TIMES)
@settings(max_examples=30)
def test_a_datum_is_what_protobuf_writes_and_reads(
    metric: str, labels: dict[str, str], value: float, time: int | None
) -> None:
    raw = wire.encode_datum(metric, labels, value, time)
    parsed = messages()["TelemetryDatum"].FromString(raw)
    assert parsed.SerializeToString() == raw
    row = wire.decode_row(raw)
    assert dict(wire.pairs_of(row.spelling)) == {
        b"__name__": metric.encode(),
        **{name.encode(): text.encode() for name, text in labels.items()},
    }
    assert (np.array([row.value]).view("i8"), row.time) == (np.array([value]).view("i8"), time)


def test_a_filter_and_a_point_are_what_protobuf_writes_and_reads() -> None:
    raw = wire.encode_filter("m", {"a": "b"}, -1, 1_700_000_000_123_456_789)
    assert messages()["Filter"].FromString(raw).SerializeToString() == raw
    assert wire.decode_filter(raw) == wire.Filter("m", (("a", "b"),), -1, 1_700_000_000_123_456_789)
    assert wire.decode_filter(b"") == wire.Filter("", (), None, None)
    assert wire.decode_filter(b"\x1a\x00") == wire.Filter("", (), 0, None)
    point = wire.encode_point(-0.0, 1)
    assert messages()["DataPoint"].FromString(point).SerializeToString() == point
    assert wire.decode_point(point) == wire.Point(-0.0, 1)


def test_fields_may_come_in_any_order_and_unknown_ones_are_skipped() -> None:
    usual = wire.encode_datum("m", {"a": "b"}, 2.0, 5)
    series = wire.decode_row(usual).spelling
    turned = usual[len(series) :] + b"\x7a\x01x" + series
    assert wire.decode_row(turned) == wire.decode_row(usual)


def test_blank_labels_are_none() -> None:
    raw = datum("m", [("", ""), ("a", ""), ("", "b"), ("c", "d")], 1.0, 0)
    assert wire.pairs_of(wire.decode_row(raw).spelling) == [(b"c", b"d"), (b"__name__", b"m")]


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"\xff", "cut off"),
        (b"\x0a\x05ab", "cut off"),
        (b"\x0a\xff\xff\xff\xff\x0fab", "only 2 are left"),
        (b"\x18\x01", "wire type"),
        (b"\x19\x00", "cut off"),
        (b"\x22\x02\x10\xff", "cut off"),
        (b"\x22\x06\x10\x80\x94\xeb\xdc\x03", "1000000000 nanoseconds"),
        (b"\x22\x0b\x10" + b"\xff" * 9 + b"\x01", "-1 nanoseconds"),
        (b"\x12\x00" * 200_000, "more than 300 fields"),
        (b"\x22\x28" + b"\x30\x00" * 20, "more than 16 fields"),
    ],
)
def test_what_is_no_datum_is_refused(raw: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        wire.decode_row(raw)


def test_no_metric_is_refused() -> None:
    with pytest.raises(BadInput, match="metric must be set"):
        wire.pairs_of(wire.decode_row(datum("", [("a", "b")], 1.0, 0)).spelling)


class Rows:
    """Decodes into a sink, as a call would."""

    def __init__(self, window: tuple[int, int] = FOREVER) -> None:
        self.sink, self.findings, self.cache = MemorySink(window), Findings(), SpellingCache()
        self.decoder = RowDecoder(self.cache, self.sink.resolve, window, self.findings)

    def read(self, *rows: bytes, now: int | None = None) -> list[tuple[dict[str, str], int, float]]:
        batches = list(self.decoder.decode(rows, 1, now))
        assert all(len(batch) == 0 for batch in batches[:-1])
        last = batches[-1]
        keys = {self.sink.resolve(key_of(labels)): labels for labels in map(self._labels, self.sink.keys)}
        columns = zip(last.series.tolist(), last.times.tolist(), last.values.tolist(), strict=True)
        return [(keys[series], time, value) for series, time, value in columns]

    def _labels(self, key: bytes) -> dict[str, str]:
        from streamgauge.model.labels import labels_of

        return labels_of(key)


def test_rows_become_a_batch_and_spellings_are_remembered() -> None:
    rows = Rows()
    m, n = {"__name__": "m", "a": "b"}, {"__name__": "n"}
    found = rows.read(datum("m", [("a", "b")], 1.0, 1.5), datum("n", [], 2.0, 1.0), datum("m", [("a", "b")], 0.0, 2.0))
    assert found == [(m, 1500, 1.0), (n, 1000, 2.0), (m, 2000, 0.0)]
    rows.sink.refuse_series = BadInput("nothing new")
    assert rows.read(datum("m", [("a", "b")], 4.0, 3.0)) == [(m, 3000, 4.0)]


def test_what_is_refused_is_named_by_its_row_and_the_others_stay() -> None:
    rows = Rows((0, 10_000))
    found = rows.read(
        datum("m", [], 1.0, 1.0),
        b"\xff",
        datum("m", [("a", "b")], 1.0, None),
        datum("m", [], 1.0, 11.0),
        datum("m", [], 1.0, -(2**30)),
        datum("m", [("a", "b"), ("a", "c")], 1.0, 1.0),
        datum("m", [], 2.0, 2.0),
    )
    assert [value for _, _, value in found] == [1.0, 2.0]
    assert rows.findings.refused == {
        Reason.MALFORMED: 1,
        Reason.NO_TIME: 1,
        Reason.TOO_NEW: 1,
        Reason.TOO_OLD: 1,
        Reason.LABELS: 1,
    }
    text = " | ".join(rows.findings.examples)
    for expected in ("row 2: protobuf", 'row 3: m{a="b"}: it has no timestamp', "row 4: m{}: time 11000 ms", "row 6: "):
        assert expected in text


def test_times_beyond_any_column_are_out_of_bounds() -> None:
    rows = Rows((0, 10_000))
    far = wire.encode_datum("m", {}, 1.0, 0)
    assert rows.read(far[:-2] + b"\x22\x0a\x08" + b"\xff" * 8 + b"\x7f", far) == [({"__name__": "m"}, 0, 1.0)]
    assert rows.findings.refused == {Reason.TOO_NEW: 1}


def test_a_missing_time_may_mean_now() -> None:
    assert Rows().read(datum("m", [], 1.0, None), now=5_000_000) == [({"__name__": "m"}, 5, 1.0)]


def test_times_that_differ_below_a_millisecond_collide_and_are_counted() -> None:
    rows = Rows()
    rows.read(*(wire.encode_datum("m", {}, 1.0, time) for time in (1_000_001, 1_000_002, 1_000_002, 2_000_000)))
    assert rows.decoder.collisions == 1


def test_many_new_series_let_others_have_their_turn() -> None:
    rows = Rows()
    batches = list(rows.decoder.decode([datum(f"m{at}", [], 1.0, 1.0) for at in range(200)], 1))
    assert [len(batch) for batch in batches] == [0, 0, 0, 200]


def padded(at: int) -> bytes:
    """A row of known series with fields that nobody knows: 600 bytes."""
    return datum("m", [], 1.0, float(at)) + b"\x78\x00" * 290


def test_no_turn_reads_more_than_some_bytes_of_rows() -> None:
    messages = [padded(at) for at in range(100)]
    turns = sum(map(len, messages)) // wire.TURN_BYTES
    rows = Rows()
    batches = list(rows.decoder.decode(messages, 1))
    assert [len(batch) for batch in batches] == [0] * turns + [100]
    polled = decode(messages, PollCache(), lambda pairs: 1)
    assert len(list(polled)) == turns


def test_labels_may_stand_last() -> None:
    labels = [(f"l{at}", "v" * 800) for at in range(250)]
    usual = wire.decode_row(datum("m", labels, 1.0, None))
    late = wire.encode_datum("", {}, 1.0, None)[2:] + usual.spelling
    assert wire.decode_row(late) == usual


def test_points_are_cut_wherever_the_pieces_end() -> None:
    times, values = np.arange(0, 3_000, 7) - 700, np.arange(429) / 3
    raw = DataPoints().encode(times, values)
    for size in (1, 5, 1_000_000):
        reader = PointReader()
        found = [wire.decode_point(p) for at in range(0, len(raw), size) for p in reader.feed(raw[at : at + size])]
        assert [point.time // 1_000_000 for point in found] == times.tolist()
        assert [point.value for point in found] == values.tolist()
