"""Both forms of answer, against a decoder that reads one bit and one field after the other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import Samples, Selection, empty_selection
from streamgauge.testing.remote_read import ReadSeries, chunks_answer, frames, samples_answer
from streamgauge.wire.read_answers import MAX_FRAME_BYTES, ChunksFormat, SamplesFormat

NOW = 1_790_000_000_000


def selection(series: list[ReadSeries]) -> Selection:
    labels = LabelFrame.of([dict(one.labels) for one in series])
    times = np.array([time for one in series for time, _ in one.samples], np.int64)
    bits = np.array([bits for one in series for _, bits in one.samples], np.uint64)
    offsets = np.cumsum([0, *(len(one.samples) for one in series)])
    return Selection(labels, Samples(offsets, times, bits.view(np.float64)))


def through_samples(*results: list[ReadSeries]) -> list[list[ReadSeries]]:
    pieces = [piece for index, one in enumerate(results) for piece in SamplesFormat().encode(index, selection(one))]
    return samples_answer(b"".join(pieces))


def through_chunks(*results: list[ReadSeries]) -> list[list[ReadSeries]]:
    pieces = [piece for index, one in enumerate(results) for piece in ChunksFormat().encode(index, selection(one))]
    return chunks_answer(b"".join(pieces), len(results))


THROUGH = pytest.mark.parametrize("through", [through_samples, through_chunks])


def one(number: int, samples: Iterable[tuple[int, int]]) -> ReadSeries:
    return ReadSeries((("__name__", "m"), ("i", str(number))), list(samples))


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
LABELS = st.dictionaries(NAMES, NAMES, min_size=1, max_size=5).map(lambda labels: tuple(sorted(labels.items())))
BITS = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1 << 63, STALE_BITS, 0x7FF0 << 48, 0xFFF0 << 48]))
TIMES = st.one_of(st.integers(NOW, NOW + 300), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-200, 20_000))
SAMPLES = st.dictionaries(TIMES, BITS, min_size=1, max_size=20).map(lambda samples: sorted(samples.items()))
RESULTS = st.lists(st.builds(ReadSeries, LABELS, SAMPLES), max_size=5, unique_by=lambda series: series.labels)


@given(st.lists(RESULTS, min_size=1, max_size=3))
def test_every_sample_arrives_with_all_its_bits(results: list[list[ReadSeries]]) -> None:
    assert through_samples(*results) == results
    assert through_chunks(*results) == results


@THROUGH
def test_no_query_and_no_series(through) -> None:
    assert through() == []
    assert through([], []) == [[], []]
    assert b"".join(ChunksFormat().encode(0, empty_selection())) == b""


@THROUGH
@pytest.mark.parametrize("count", [1, 119, 120, 121, 240, 241])
def test_series_around_the_length_of_a_chunk(through, count: int) -> None:
    result = [one(number, ((NOW + 15_000 * i, i * number) for i in range(count))) for number in range(3)]
    assert through(result, result[:1]) == [result, result[:1]]


@THROUGH
def test_many_short_series_and_one_long_series(through) -> None:
    """More than is encoded at once, of both."""
    random = np.random.default_rng(7)
    bits = random.integers(0, 1 << 63, 150_000).tolist()
    short = [one(number, [(NOW, bits[number])]) for number in range(15_000)]
    long = [one(1, ((NOW + 17 * i, bits[i]) for i in range(len(bits))))]
    assert through(short, long, short[:2]) == [short, long, short[:2]]


def test_a_long_series_is_cut_into_frames_of_a_mebibyte() -> None:
    bits = np.random.default_rng(7).integers(0, 1 << 63, 180_000).tolist()
    label = ("long", "x" * 60_000)
    series = [ReadSeries((label,), [(NOW + i, value) for i, value in enumerate(bits)])]
    stream = b"".join(ChunksFormat().encode(0, selection(series)))
    sizes = [len(message) for message in frames(stream)]
    assert max(sizes) <= MAX_FRAME_BYTES
    assert min(sizes[:-1]) > MAX_FRAME_BYTES - 10_000
    assert chunks_answer(stream, 1) == [series]


def test_a_series_that_fits_has_one_frame() -> None:
    series = [one(number, ((NOW + 15_000 * i, 0) for i in range(10_000))) for number in range(4)]
    assert len(frames(b"".join(ChunksFormat().encode(0, selection(series))))) == len(series)


def test_the_bytes_of_samples_are_those_of_other_encoders() -> None:
    """Each field in the order of its number, in its shortest spelling; a value of zero is written, too."""
    series = ReadSeries((("a", "b"),), [(1, 0), (300, 0x3FF0 << 48)])
    (head, *rest) = SamplesFormat().encode(0, selection([series]))
    labels = bytes.fromhex("0a06 0a0161 120162")
    samples = bytes.fromhex("120b 09 0000000000000000 1001  120c 09 000000000000f03f 10ac02")
    content = labels + samples
    assert b"".join((head, *rest)) == bytes([0x0A, len(content) + 2, 0x0A, len(content)]) + content
