"""Aggregates of samples are what a plain loop over the samples would find."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.model.arrays import STALE_BITS, Floats
from streamgauge.store.aggregates import AGGREGATE_ROW, aggregated, coarser, sample_increases
from streamgauge.store.ports import Rows
from streamgauge.testing.thorough import examples

RESOLUTION = 1000
NAN_BITS = 0x7FF8000000000000


def bits_of(value: float) -> int:
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits)


def number_of(bits: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<q", bits))
    return float(value)


@dataclass
class Expected:
    """One bucket, as a loop fills it."""

    time: int
    count: int = 0
    total: float = 0.0
    low: float = math.nan
    high: float = math.nan
    last: int = STALE_BITS
    increase: float = 0.0
    stale: bool = False


def loop(samples: list[tuple[int, int]], resolution: int, before: float) -> tuple[list[Expected], float]:
    """Samples are (time, bits of the value), of one series, in order of time."""
    buckets: list[Expected] = []
    previous = before
    for time, bits in samples:
        end = (time // resolution + 1) * resolution - 1
        if not buckets or buckets[-1].time != end:
            buckets.append(Expected(end))
        bucket = buckets[-1]
        bucket.stale = bits == STALE_BITS
        if bucket.stale:
            continue
        value = number_of(bits)
        bucket.count += 1
        bucket.total += value
        bucket.last = bits
        if math.isnan(value):
            continue
        bucket.low = value if math.isnan(bucket.low) else min(bucket.low, value)
        bucket.high = value if math.isnan(bucket.high) else max(bucket.high, value)
        gain = value if value < previous else value - previous
        bucket.increase += gain if math.isfinite(gain) else 0.0
        previous = value
    return buckets, previous


def assert_same(rows: Rows, expected: list[list[Expected]]) -> None:
    assert rows.counts.tolist() == [len(buckets) for buckets in expected]
    flat = [bucket for buckets in expected for bucket in buckets]
    assert rows.times.tolist() == [bucket.time for bucket in flat]
    for row, bucket in zip(rows.values, flat, strict=True):
        assert (row["count"], row["stale"]) == (bucket.count, bucket.stale)
        assert row["last"].view(np.int64) == bucket.last
        if bucket.count == 0:
            assert {int(row[name].view(np.int64)) for name in ("sum", "min", "max", "increase")} == {STALE_BITS}
            continue
        for name, value in (("min", bucket.low), ("max", bucket.high)):
            assert row[name] == value or (math.isnan(row[name]) and math.isnan(value))
            assert row[name].view(np.int64) != STALE_BITS
        for name, value in (("sum", bucket.total), ("increase", bucket.increase)):
            np.testing.assert_allclose(row[name], value, rtol=1e-12, atol=1e-9)


values = st.one_of(
    st.integers(0, 50).map(lambda number: bits_of(float(number))),
    st.floats(-1e6, 1e6).map(bits_of),
    st.sampled_from([STALE_BITS, NAN_BITS, bits_of(math.inf), bits_of(-0.0)]),
)
series = st.dictionaries(st.integers(-5000, 20_000), values, min_size=1, max_size=40).map(
    lambda rows: sorted(rows.items())
)


def rows_of(several: list[list[tuple[int, int]]]) -> Rows:
    return Rows(
        np.array([len(rows) for rows in several], np.int64),
        np.array([time for rows in several for time, _ in rows], np.int64),
        np.array([bits for rows in several for _, bits in rows], np.int64).view(np.float64),
    )


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(series, min_size=1, max_size=5), st.lists(st.sampled_from([math.nan, 0.0, 7.5]), min_size=5, max_size=5)
)
def test_buckets_are_what_a_loop_finds(several: list[list[tuple[int, int]]], before: list[float]) -> None:
    looped = [loop(rows, RESOLUTION, start) for rows, start in zip(several, before, strict=False)]
    found, after = aggregated(rows_of(several), RESOLUTION, np.array(before[: len(several)]))
    assert found.values.dtype == AGGREGATE_ROW
    assert_same(found, [buckets for buckets, _ in looped])
    np.testing.assert_array_equal(after, [last for _, last in looped])


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(series, min_size=1, max_size=4), st.sampled_from([2, 5, 12]))
def test_coarser_buckets_of_buckets_are_those_of_the_samples(several: list[list[tuple[int, int]]], times: int) -> None:
    fine, _ = aggregated(rows_of(several), RESOLUTION, np.full(len(several), np.nan))
    assert_same(coarser(fine, times * RESOLUTION), [loop(rows, times * RESOLUTION, math.nan)[0] for rows in several])


@settings(max_examples=examples(100), deadline=None)
@given(series, st.integers(0, 40))
def test_one_series_in_two_pieces_gives_what_it_gives_in_one(samples: list[tuple[int, int]], cut: int) -> None:
    cut = min(cut, len(samples) - 1)
    parts, before = [], np.full(1, np.nan)
    for piece in filter(None, (samples[:cut], samples[cut:])):
        part, before = aggregated(rows_of([piece]), RESOLUTION, before)
        parts.append(part)
    joined = Rows(
        np.sum([part.counts for part in parts], axis=0),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.values for part in parts]),
    )
    assert_same(coarser(joined, RESOLUTION), [loop(samples, RESOLUTION, math.nan)[0]])


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.one_of(series, st.just([])), min_size=1, max_size=4))
def test_the_increases_of_samples_add_up_to_those_of_their_buckets(several: list[list[tuple[int, int]]]) -> None:
    rows = rows_of(several)
    found = sample_increases(rows.values, rows.counts, np.full(len(several), 3.0))
    offsets = np.concatenate(([0], np.cumsum(rows.counts)))
    for number, samples in enumerate(several):
        own: Floats = found[offsets[number] : offsets[number + 1]]
        expected = sum(bucket.increase for bucket in loop(samples, RESOLUTION, 3.0)[0])
        real = own.view(np.int64) != STALE_BITS
        assert real.tolist() == [bits != STALE_BITS for _, bits in samples]
        np.testing.assert_allclose(own[real].sum(), expected, rtol=1e-12, atol=1e-9)
