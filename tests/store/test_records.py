"""Payloads of the log come back as they went in; any other bytes are Corrupt and nothing worse."""

import contextlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from streamgauge.errors import Corrupt
from streamgauge.model.arrays import stale_marker
from streamgauge.model.batch import Metadata, SampleBatch, empty_batch
from streamgauge.store import records
from streamgauge.testing.thorough import examples

INT64 = np.iinfo(np.int64)


def batch(times: list[int], values: np.ndarray | None = None) -> SampleBatch:
    count = len(times)
    return SampleBatch(
        np.arange(count, dtype=np.uint32) * 3,
        np.array(times, np.int64),
        np.arange(count, dtype=np.float64) if values is None else values,
    )


def assert_same(found: SampleBatch, expected: SampleBatch) -> None:
    assert (found.series.dtype, found.times.dtype, found.values.dtype) == (np.uint32, np.int64, np.float64)
    assert np.array_equal(found.series, expected.series)
    assert np.array_equal(found.times, expected.times)
    assert np.array_equal(found.values.view(np.int64), expected.values.view(np.int64))


@pytest.mark.parametrize(
    "times",
    [
        [],
        [5],
        [5, 5, 5],
        [-7, 5, 5],
        [0, (1 << 32) - 1],
        [0, 1 << 32],
        [INT64.min, INT64.max],
        [INT64.min, INT64.min + 1],
        [INT64.max, INT64.max - 1],
    ],
)
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_samples_come_back_bit_for_bit(times: list[int], offset: int) -> None:
    payload = bytes(offset) + records.encode_samples(batch(times))
    assert_same(records.decode_samples(memoryview(payload)[offset:]), batch(times))


def test_special_values_keep_their_bits() -> None:
    bits = np.array([0x7FF0000000000002, 0x7FF8000000000001, -1, 1, INT64.max, INT64.min, 0], np.int64)
    sent = batch([1] * 7, bits.view(np.float64))
    assert np.array_equal(records.decode_samples(records.encode_samples(sent)).values.view(np.int64), bits)
    assert stale_marker()[0:1].view(np.int64)[0] == bits[0]


def test_columns_that_are_views_with_gaps_are_encoded() -> None:
    wide = batch(list(range(100)))
    sent = SampleBatch(wide.series[::3], wide.times[::3], wide.values[::3])
    assert_same(records.decode_samples(records.encode_samples(sent)), sent)


def test_the_usual_times_take_four_bytes_or_none() -> None:
    assert len(records.encode_samples(batch([1_700_000_000_000] * 1000))) == 16 + 12 * 1000
    assert len(records.encode_samples(batch([1_700_000_000_000 + n for n in range(1000)]))) == 16 + 16 * 1000


@pytest.mark.parametrize("as_arrow", [False, True])
@pytest.mark.parametrize("keys", [[], [b""], [b"a\xffb\xffc\xff", b"", b"x" * 10_000]])
def test_series_come_back(keys: list[bytes], as_arrow: bool) -> None:
    ids = np.uint32(0xFFFFFFFF) - np.arange(len(keys), dtype=np.uint32)
    given_keys = pa.array([b"before", *keys], pa.binary())[1:] if as_arrow else keys
    found_ids, found = records.decode_series(records.encode_series(ids, given_keys))
    assert np.array_equal(found_ids, ids)
    found.validate(full=True)
    assert found.to_pylist() == keys


def test_more_series_than_a_record_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="one record holds at most"):
        records.encode_series(np.zeros(1, np.uint32), [bytes(records.MAX_SERIES_BYTES)])


@pytest.mark.parametrize("limit", [1, 10, 25, 1000])
def test_definitions_are_divided_among_records(limit: int) -> None:
    """A group of half a million new series may have more than a record holds."""
    keys = [b"x" * size for size in (0, 3, 12, 1, 30, 0, 7, 7, 7)]
    ids = np.arange(len(keys), dtype=np.uint32)
    parts = [records.decode_series(payload) for payload in records.encode_definitions(ids, keys, limit)]
    assert [key for _, found in parts for key in found.to_pylist()] == keys
    assert np.concatenate([found for found, _ in parts]).tolist() == ids.tolist()
    assert all(sum(map(len, found.to_pylist()[1:])) < limit for _, found in parts)


def test_metadata_comes_back() -> None:
    entries = [Metadata("up", "gauge", "Whether…\nit is up", ""), Metadata("é", "", "", "bytes")]
    assert records.decode_metadata(records.encode_metadata(entries)) == entries
    assert records.decode_metadata(memoryview(records.encode_metadata([]))) == []


DECODERS = [records.decode_samples, records.decode_series, records.decode_metadata]
SEEDS = [
    records.encode_samples(batch([1, 2, 3])),
    records.encode_samples(batch([INT64.min, INT64.max])),
    records.encode_samples(empty_batch()),
    records.encode_series(np.arange(3, dtype=np.uint32), [b"a\xff", b"", b"bc\xff"]),
    records.encode_metadata([Metadata("up", "gauge", "help", "unit")]),
]


def decode_all(payload: bytes) -> None:
    for decode in DECODERS:
        with contextlib.suppress(Corrupt):
            decode(payload)


@given(st.binary(max_size=200))
@settings(max_examples=examples(500), deadline=None)
def test_any_bytes_are_columns_or_corrupt(payload: bytes) -> None:
    decode_all(payload)


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=examples(1000), deadline=None)
def test_changed_payloads_are_columns_or_corrupt(seed: bytes, data: st.DataObject) -> None:
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(seed) - 1))] = data.draw(st.integers(0, 255))
    decode_all(bytes(changed[: data.draw(st.integers(0, len(seed)))]) if data.draw(st.booleans()) else bytes(changed))


@pytest.mark.parametrize("payload", SEEDS)
def test_a_cut_payload_is_corrupt(payload: bytes) -> None:
    decode = DECODERS[[0, 0, 0, 1, 2][SEEDS.index(payload)]]
    for size in range(len(payload)):
        with pytest.raises(Corrupt):
            decode(payload[:size])


def test_claims_are_checked_before_anything_is_allocated() -> None:
    huge = b"\xff\xff\xff\xff"
    for decode in DECODERS:
        with pytest.raises(Corrupt, match="claims"):
            decode(huge * 2 + bytes(16) if decode is not records.decode_samples else huge + bytes(20))


@given(
    npst.arrays(np.int64, st.integers(0, 50), elements=st.integers(INT64.min, INT64.max)),
    npst.arrays(np.int64, 50, elements=st.integers(INT64.min, INT64.max)),
)
@settings(max_examples=examples(200), deadline=None)
def test_all_samples_come_back(times: np.ndarray, bits: np.ndarray) -> None:
    sent = batch(times.tolist(), bits[: len(times)].view(np.float64))
    assert_same(records.decode_samples(records.encode_samples(sent)), sent)
