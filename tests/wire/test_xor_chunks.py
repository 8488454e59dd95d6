"""XOR chunks against a decoder written from the description of the format, one bit after the other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamgauge.model.arrays import STALE_BITS
from streamgauge.testing.remote_read import decode_chunk
from streamgauge.wire.xor_chunks import CHUNK_SAMPLES, MAX_CHUNK_BYTES, encode

Sample = tuple[int, int]  # time, bits of the value
INT64 = 1 << 63
NOW = 1_790_000_000_000
UINT64 = st.integers(0, (1 << 64) - 1)


def encoded(series: list[list[Sample]]) -> list[bytes]:
    """One chunk for each series."""
    samples = [sample for one in series for sample in one]
    times = np.array([time for time, _ in samples], np.int64)
    values = np.array([bits for _, bits in samples], np.uint64).view(np.float64)
    data, offsets = encode(times, values, np.cumsum([0, *map(len, series)]))
    return [data[begin:end].tobytes() for begin, end in pairwise(offsets)]


def bits_of(*values: float) -> list[int]:
    return [int(bits) for bits in np.array(values).view(np.uint64)]


def at_intervals(bits: list[int], interval: int = 15_000, start: int = NOW) -> list[Sample]:
    return [(start + index * interval, value) for index, value in enumerate(bits)]


PAYLOADS = st.integers(0, (1 << 52) - 1)
VALUES = st.one_of(
    st.floats(width=64).map(lambda value: bits_of(value)[0]),
    st.integers(-50, 50).map(lambda value: bits_of(value)[0]),
    PAYLOADS.map(lambda payload: 0x7FF0_0000_0000_0000 | payload),  # NaNs of every kind, and +Inf
    PAYLOADS.map(lambda payload: 0xFFF0_0000_0000_0000 | payload),
    st.just(STALE_BITS),
    UINT64,
)
STEPS = st.one_of(
    st.just(15_000),
    st.integers(1, 40),
    st.integers(14_900, 15_100),
    st.sampled_from([8191, 8192, 8193, 65_535, 65_536, 65_537, 524_287, 524_288, 524_289]),
    st.integers(1, 1 << 53),
)


@st.composite
def series(draw: st.DrawFn) -> list[Sample]:
    time = draw(st.one_of(st.just(NOW), st.integers(-(1 << 60), 1 << 60), st.integers(-70, 70)))
    samples = []
    for step, bits in draw(st.lists(st.tuples(STEPS, VALUES), min_size=1, max_size=CHUNK_SAMPLES)):
        samples.append((time, bits))
        time += step
    return samples


@given(st.lists(series(), min_size=1, max_size=6))
@example([[(-INT64, 0), (INT64 - 1, 1)]])
@example([[(-INT64, 0), (-1, 1 << 63), (INT64 - 1, 1), (INT64 - 1, (1 << 64) - 1)]])
@example([[(0, 0)], [(NOW, STALE_BITS)], [(0, 0), (1, 0), (2, 0)]])
def test_what_is_encoded_is_decoded(given_series: list[list[Sample]]) -> None:
    chunks = encoded(given_series)
    assert [decode_chunk(chunk) for chunk in chunks] == given_series
    assert max(map(len, chunks)) <= MAX_CHUNK_BYTES


@given(st.lists(series(), min_size=2, max_size=6))
def test_chunks_are_the_same_whatever_stands_beside_them(given_series: list[list[Sample]]) -> None:
    assert encoded(given_series) == [encoded([one])[0] for one in given_series]


@pytest.mark.parametrize(
    ("change", "prefix", "payload"),
    [
        (0, "0", 0),
        *((change, "10", 14) for change in (1, -1, 8192, -8191)),
        *((change, "110", 17) for change in (8193, -8192, 65_536, -65_535)),
        *((change, "1110", 20) for change in (65_537, -65_536, 524_288, -524_287)),
        *((change, "1111", 64) for change in (524_289, -524_288, 1 << 40)),
    ],
)
def test_a_time_takes_the_bits_that_the_format_says(change: int, prefix: str, payload: int) -> None:
    step = 1 << 20
    samples = [(0, 0), (step, 0), (2 * step + change, 0)]
    bits = "".join(f"{byte:08b}" for byte in encoded([samples])[0])
    third = bits[16 + 8 + 64 + 24 + 1 :]  # behind the count, the first sample, and the second's three bytes and a bit
    expected = prefix + (f"{change & (1 << payload) - 1:0{payload}b}" if payload else "") + "0"
    assert third == expected.ljust(len(third), "0")
    assert len(third) - len(expected) < 8


def test_a_series_that_does_not_change_takes_two_bits_a_sample() -> None:
    (chunk,) = encoded([at_intervals(bits_of(*[42.0] * CHUNK_SAMPLES))])
    first = 2 + 6 + 8  # count, time, value
    second = 2 * 8 + 1  # a varint of two bytes, and that the value is the same
    assert len(chunk) == first + -(-(second + 2 * (CHUNK_SAMPLES - 2)) // 8)


def test_a_window_stays_in_force_while_all_bits_lie_within_it() -> None:
    """Worked out by hand. 1.5 and 1.0 differ in one bit, with 12 zeros before it and 51 behind it."""
    (chunk,) = encoded([at_intervals(bits_of(1.0, 1.5, 1.0, 1.0), 1, 0)])
    bits = "".join(f"{byte:08b}" for byte in chunk)
    first = f"{4:016b}" + f"{0:08b}" + f"{bits_of(1.0)[0]:064b}"
    second = f"{1:08b}" + "11" + f"{12:05b}" + f"{1:06b}" + "1"
    third = "0" + "10" + "1"
    fourth = "0" + "0"
    assert bits == (first + second + third + fourth).ljust(len(bits), "0")
    assert len(bits) - len(first + second + third + fourth) < 8


def test_a_window_of_64_bits_is_written_as_0() -> None:
    samples = at_intervals([0, (1 << 64) - 1, 0], 1, 0)
    (chunk,) = encoded([samples])
    bits = "".join(f"{byte:08b}" for byte in chunk)
    assert bits[16 + 8 + 64 + 8 :].startswith("11" + "00000" + "000000" + "1" * 64 + "0" + "10" + "1" * 64)
    assert decode_chunk(chunk) == samples
