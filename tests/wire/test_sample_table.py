"""Samples in bulk as Arrow: what is encoded is decoded, and whatever else comes is refused, not suffered."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.model.arrays import stale_marker
from streamgauge.model.batch import Metadata
from streamgauge.wire.findings import Findings
from streamgauge.wire.sample_table import (
    MAX_BATCHES,
    MAX_METADATA_BYTES,
    SeriesRows,
    SeriesTexts,
    decode,
    encode,
    part_of,
    portions,
)

TEXTS = [b'{__name__="a"}', b'{__name__="b",x="\xc3\xa9"}', b'{__name__="c"}']


def rows(codes: list[int], texts: list[bytes] = TEXTS) -> SeriesRows:
    count = len(codes)
    return SeriesRows(texts, np.array(codes, np.int64), np.arange(count) + 1000, np.arange(count) / 4)


def columns(**changed: Any) -> dict[str, Any]:
    return {
        "series": pa.array(["a", "b", "a"]).dictionary_encode(),
        "time": pa.array([1, 2, 3], pa.timestamp("ms")),
        "value": pa.array([1.0, 2.0, 3.0]),
    } | changed


def stream(table: dict[str, Any], options: Any = None, batches: int = 1, metadata: Any = None) -> bytes:
    batch = pa.record_batch(table)
    schema = batch.schema.with_metadata(metadata)
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, schema, options=options) as writer:
        for _ in range(batches):
            writer.write_batch(batch.cast(schema))
    return out.getvalue().to_pybytes()


def series_of(decoded: list[SeriesRows]) -> list[bytes]:
    return [part.texts[code] for part in decoded for code in part.codes]


def test_what_is_encoded_is_decoded_with_every_bit() -> None:
    values = np.concatenate((stale_marker(), [-0.0, np.inf, 1e-300]))
    table = SeriesRows(TEXTS, np.array([2, 0, 2, 0]), np.array([-5, 0, 1 << 60, 7]), values)
    findings = Findings()
    (decoded,) = decode(encode(table, [Metadata("a", "counter", "Some.", "s")]), findings)
    assert series_of([decoded]) == [TEXTS[code] for code in (2, 0, 2, 0)]
    assert decoded.times.tolist() == [-5, 0, 1 << 60, 7]
    assert decoded.values.view(np.int64).tolist() == values.view(np.int64).tolist()
    assert findings.metadata == {"a": Metadata("a", "counter", "Some.", "s")}


def test_a_part_has_the_texts_that_it_uses() -> None:
    part = part_of(rows([0, 2, 2, 0]), 1, 3)
    assert list(part.texts) == [TEXTS[2]]
    assert part.codes.tolist() == [0, 0]
    assert part.times.tolist() == [1001, 1002]


@pytest.mark.parametrize(
    ("time", "ms"),
    [
        (pa.array([1, 2, -3], pa.timestamp("s")), [1000, 2000, -3000]),
        (pa.array([1500, 2, -1], pa.timestamp("us")), [1, 0, -1]),
        (pa.array([1_500_000, 2, 3], pa.timestamp("ns", "UTC")), [1, 0, 0]),
        (pa.array([7, 8, 9]), [7, 8, 9]),
    ],
)
def test_times_of_any_unit(time: Any, ms: list[int]) -> None:
    (decoded,) = decode(stream(columns(time=time)), Findings())
    assert decoded.times.tolist() == ms


def test_series_need_no_dictionary_and_batches_may_be_several() -> None:
    decoded = decode(stream(columns(series=pa.array(["b", "a", "b"])), batches=3), Findings())
    assert series_of(decoded) == [b"b", b"a", b"b"] * 3


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "Arrow IPC stream"),
        (b'{"metric":{}}', "Arrow IPC stream"),
        (stream({"series": pa.array(["a"]), "time": pa.array([1])}), "the columns are series, time"),
        (stream(columns(more=pa.array([1, 2, 3]))), "they must be series, time, value"),
        (stream(columns(value=pa.array([1, 2, 3]))), "the column value is int64; it must be float64"),
        (stream(columns(time=pa.array(["1", "2", "3"]))), "the column time is string"),
        (stream(columns(series=pa.array([1, 2, 3]))), "it must be a dictionary of text"),
        (stream(columns(value=pa.array([1.0, None, 3.0]))), "the column value has nulls"),
        (stream(columns(series=pa.array(["a", None, "a"]).dictionary_encode())), "the column series has nulls"),
        (stream(columns(time=pa.array([1 << 61] * 3, pa.timestamp("s")))), "out of bounds"),
        (stream(columns(), pa.ipc.IpcWriteOptions(compression="zstd")), "compressed"),
        (stream(columns(series=pa.array(["a"] * 3)), pa.ipc.IpcWriteOptions(compression="lz4")), "compressed"),
        (stream(columns(), batches=MAX_BATCHES + 1), f"more than {MAX_BATCHES} record batches"),
        (stream(columns(), metadata={b"metric_metadata": b"[1]"}), "metric_metadata"),
        (stream(columns(), metadata={b"metric_metadata": b" " * (MAX_METADATA_BYTES + 1)}), "the limit is 1048576"),
        (stream(columns())[:-200], "Arrow IPC stream"),
    ],
)
def test_what_is_refused_and_why(body: bytes, part: str) -> None:
    with pytest.raises(BadInput, match=r".") as caught:
        decode(body, Findings())
    assert part in caught.value.message


def edited(body: bytes, kind: str, change: Callable[[bytearray, int], None]) -> bytes:
    """With a change made to the first message of a kind, whose table stands where `change` is told."""
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
    while (message := reader.read_next_message()).type != kind:
        pass
    header = bytearray(message.metadata.to_pybytes())
    (root,) = struct.unpack_from("<I", header, 0)
    at = root + struct.unpack_from("<H", header, vtable_of(header, root) + 4 + 2 * 2)[0]
    change(header, at + struct.unpack_from("<I", header, at)[0])
    return body.replace(message.metadata.to_pybytes(), bytes(header))


def vtable_of(header: bytearray, table: int) -> int:
    return table - int(struct.unpack_from("<i", header, table)[0])


def no_codec(header: bytearray, table: int) -> None:
    """Take out of a RecordBatch how its buffers are compressed."""
    struct.pack_into("<H", header, vtable_of(header, table) + 4 + 2 * 3, 0)


def big_endian(header: bytearray, table: int) -> None:
    """Let the endianness of a Schema, which is absent, be read where another of its fields stands."""
    vtable = vtable_of(header, table)
    struct.pack_into("<H", header, vtable + 4, struct.unpack_from("<H", header, vtable + 4 + 2)[0])


def test_compression_as_it_was_said_before_v5_is_refused() -> None:
    told = {"ARROW:experimental_compression": "zstd"}
    options = pa.ipc.IpcWriteOptions(compression="zstd", metadata_version=pa.ipc.MetadataVersion.V4)
    batch = pa.record_batch(columns(series=pa.array(["a"] * 3)))
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema, options=options) as writer:
        writer.write_batch(batch, custom_metadata=told)
    body = edited(out.getvalue().to_pybytes(), "record batch", no_codec)
    with pa.ipc.open_stream(body) as reader:
        assert reader.read_all()["value"].to_pylist() == [1.0, 2.0, 3.0], "Arrow decompresses it"
    with pytest.raises(BadInput, match="compressed"):
        decode(body, Findings())


def test_other_streams_of_v4_are_read() -> None:
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    assert series_of(decode(stream(columns(), options), Findings())) == [b"a", b"b", b"a"]


def test_big_endian_buffers_are_refused() -> None:
    body = edited(stream(columns()), "schema", big_endian)
    with pytest.raises(BadInput, match="big-endian"):
        decode(body, Findings())


def test_a_dictionary_that_many_batches_share_is_kept_once() -> None:
    before = pa.total_allocated_bytes()
    series = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["a", "b", "x" * (1 << 20)]))
    for kind in (pa.utf8(), pa.large_utf8()):
        texts = series.dictionary.cast(kind)
        body = stream(columns(series=pa.DictionaryArray.from_arrays(series.indices, texts)), batches=50)
        decoded = decode(body, Findings())
        assert series_of(decoded) == [b"a", b"b", b"a"] * 50
        assert pa.total_allocated_bytes() - before < 4 << 20


def test_texts_are_those_that_rows_use() -> None:
    series = pa.DictionaryArray.from_arrays(pa.array([3, 1, 3, 0]), pa.array(["a", "b", "c", "d"]))
    table = columns(series=series, time=pa.array([1, 2, 3, 4]), value=pa.array([1.0] * 4))
    (decoded,) = decode(stream(table), Findings())
    assert list(decoded.texts) == decoded.texts[:] == [b"a", b"b", b"d"]
    assert decoded.codes.tolist() == [2, 1, 2, 0]


def test_texts_are_handed_over_some_at_a_time() -> None:
    series = pa.DictionaryArray.from_arrays(pa.array([5, 1, 2, 4]), pa.array(["a", "bb", "ccc", "dddd", "", "e"]))
    table = columns(series=series, time=pa.array([1, 2, 3, 4]), value=pa.array([1.0] * 4))
    (decoded,) = decode(stream(table), Findings())
    texts = decoded.texts
    assert isinstance(texts, SeriesTexts)
    assert texts.some(0, 9, 100) == [b"bb", b"ccc", b"", b"e"]
    assert texts.some(1, 2, 100) == [b"ccc", b""]
    assert texts.some(0, 9, 5) == [b"bb", b"ccc", b""]
    assert texts.some(0, 9, 1) == [b"bb"], "one is handed over however long it is"
    assert not texts.equals(texts), "of a dictionary that is not used as a whole nothing is said"
    whole = texts.copied()
    assert whole[:] == [b"a", b"bb", b"ccc", b"dddd", b"", b"e"]
    assert whole.equals(whole.copied())
    (others,) = decode(encode(rows([0, 1, 2, 3, 4, 5], [b"a", b"bb", b"ccc", b"dddd", b"e", b""])), Findings())
    assert isinstance(others.texts, SeriesTexts)
    assert not whole.equals(others.texts)


def test_codes_beyond_their_dictionary_are_refused() -> None:
    codes: Any = pa.array([0, 5, 0], pa.int32())
    series = pa.DictionaryArray.from_arrays(codes, pa.array(["a", "b"]), safe=False)
    with pytest.raises(BadInput):
        decode(stream(columns(series=series)), Findings())


def test_metadata_that_is_too_long_is_left_out() -> None:
    entries = [["a", "gauge", "x" * 20_000, ""], ["b", "no such type", "", ""]]
    findings = Findings()
    decode(stream(columns(), metadata={b"metric_metadata": json.dumps(entries).encode()}), findings)
    assert list(findings.metadata) == ["b"]
    assert findings.metadata["b"].type == "unknown"
    assert findings.refused.total() == 1


def test_metadata_that_does_not_fit_one_stream_goes_with_several() -> None:
    entries = [Metadata(f"m{number}", "gauge", "\u00e9" * 1000, "") for number in range(500)]
    several = list(portions(entries))
    assert len(several) > 1
    findings = Findings()
    for portion in several:
        decode(encode(rows([]), portion), findings)
    assert list(findings.metadata.values()) == entries
    assert list(portions([])) == [[]]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-(1 << 62), 1 << 62), st.floats()), max_size=30))
def test_any_samples_survive_the_way(samples: list[tuple[int, int, float]]) -> None:
    codes, times, values = ([sample[index] for sample in samples] for index in range(3))
    table = SeriesRows(TEXTS, np.array(codes, np.int64), np.array(times, np.int64), np.array(values, np.float64))
    decoded = decode(encode(table), Findings())
    assert series_of(decoded) == [TEXTS[code] for code in codes]
    assert [time for part in decoded for time in part.times] == times
    assert np.array_equal(np.concatenate([part.values for part in decoded]), values, equal_nan=True)


VALID = encode(rows([0, 1, 2, 0] * 5), [Metadata("a", "gauge", "", "")])


@given(st.data())
def test_fuzz_a_damaged_stream_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, body[at] ^ 1, body[at] ^ 0x10]))
    body = body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body
    try:
        decoded = decode(bytes(body), Findings())
    except BadInput:
        return
    for part in decoded:
        assert len(part.codes) == len(part.times) == len(part.values)
        assert not len(part) or 0 <= part.codes.min() <= part.codes.max() < len(part.texts)


@given(st.binary(max_size=200))
def test_fuzz_any_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(BadInput):
        decode(body, Findings())
