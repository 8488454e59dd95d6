from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import stale_marker
from streamgauge.model.source import NoMeter, Samples
from streamgauge.query.budget import Budget, Limits
from streamgauge.store.merge import merge
from streamgauge.store.ports import Part
from streamgauge.store.ranges import ranges
from streamgauge.testing.thorough import examples

Rows = list[tuple[int, int, int]]  # series, time, bits of the value


def part_of(series: int, rows: Rows) -> Part:
    """Rows in order of commit as a part: by series and time, the later of two alike behind."""
    rows = sorted(rows, key=lambda row: row[:2])
    counts = np.bincount(np.array([row[0] for row in rows], np.int64), minlength=series)
    times = np.array([row[1] for row in rows], np.int64)
    part = Part(counts, times, np.array([row[2] for row in rows], np.int64).view(np.float64))
    for array in (part.counts, part.times, part.values):
        array.flags.writeable = False  # as parts of shared memory are
    return part


def contents(samples: Samples) -> list[dict[int, int]]:
    bits = samples.values.view(np.int64)
    answer = []
    for start, end in zip(samples.offsets[:-1], samples.offsets[1:], strict=True):
        assert (np.diff(samples.times[start:end]) > 0).all()
        answer.append(dict(zip(samples.times[start:end].tolist(), bits[start:end].tolist(), strict=True)))
    return answer


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(1, 12),
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 11), st.integers(-3, 9), st.integers(-(1 << 63), (1 << 63) - 1)), max_size=40
        ),
        max_size=5,
    ),
)
def test_the_last_of_each_series_and_time_stands(series: int, places: list[Rows]) -> None:
    places = [[row for row in rows if row[0] < series] for rows in places]
    expected: list[dict[int, int]] = [{} for _ in range(series)]
    for rows in places:
        for owner, time, bits in rows:
            expected[owner][time] = bits
    assert contents(merge(series, [part_of(series, rows) for rows in places], NoMeter())) == expected


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.dictionaries(st.integers(0, 159), st.integers(0, 4), max_size=6)),
        min_size=1,
        max_size=5,
    )
)
def test_series_with_equally_many_samples_are_placed_in_blocks(places: list[tuple[int, dict[int, int]]]) -> None:
    """Each place has the same number of samples of every series, but for a few."""
    parts, expected = [], [dict[int, int]() for _ in range(160)]
    for place, (common, exceptions) in enumerate(places):
        rows = [
            (owner, place * 10 + at, owner * 1000 + place * 10 + at)
            for owner in range(160)
            for at in range(exceptions.get(owner, common))
        ]
        parts.append(part_of(160, rows))
        for owner, time, bits in rows:
            expected[owner][time] = bits
    assert contents(merge(160, parts, NoMeter())) == expected


def reference(parts: Sequence[Part], series: int) -> Samples:
    owner = np.concatenate([np.repeat(np.arange(series), part.counts) for part in parts])
    times = np.concatenate([part.times for part in parts])
    values = np.concatenate([part.values for part in parts])
    order = np.lexsort((times, owner))
    owner, times, values = owner[order], times[order], values[order]
    last = np.ones(len(order), bool)
    last[:-1] = (owner[1:] != owner[:-1]) | (times[1:] != times[:-1])
    offsets = np.concatenate(([0], np.cumsum(np.bincount(owner[last], minlength=series))))
    return Samples(offsets, times[last], values[last])


@pytest.mark.parametrize("shift", [40, 20])
def test_many_samples_on_several_threads(shift: int) -> None:
    """Series of 40 samples a part, every hundredth longer; the parts overlap when `shift` is 20."""
    random = np.random.default_rng(5)
    parts = []
    for place in range(3):
        counts = np.full(5000, 40)
        counts[::100] = 45
        times = np.concatenate([np.arange(count) for count in counts]) + shift * place
        parts.append(Part(counts, times, random.random(len(times))))
    merged, expected = merge(5000, parts, NoMeter(), threads=2), reference(parts, 5000)
    assert np.array_equal(merged.offsets, expected.offsets)
    assert np.array_equal(merged.times, expected.times)
    assert np.array_equal(merged.values, expected.values)


def test_one_ascending_part_is_not_copied() -> None:
    part = part_of(3, [(0, 1, 5), (2, 1, 6), (2, 2, 7)])
    merged = merge(3, [part_of(3, []), part], NoMeter())
    assert merged.offsets.tolist() == [0, 1, 1, 3]
    assert np.shares_memory(merged.times, part.times)
    assert np.shares_memory(merged.values, part.values)


def test_stale_markers_keep_their_bits() -> None:
    stale = int(stale_marker().view(np.int64)[0])
    rows = [(0, 1, stale), (0, 2, stale + 1)]
    assert contents(merge(1, [part_of(1, rows), part_of(1, [(0, 1, 7)]), part_of(1, rows[:1])], NoMeter())) == [
        {1: stale, 2: stale + 1}
    ]


@pytest.mark.parametrize(
    ("distance", "peak", "left"),
    [(10, 2 * 168 + 320, 20), (5, 2 * 168 + 2 * 320, 15), (None, 168, 10)],
    ids=["in order", "overlapping", "a single one"],
)
def test_the_meter_is_asked_before_anything_is_allocated(distance: int | None, peak: int, left: int) -> None:
    places = [0] if distance is None else [0, distance]
    parts = [Part(np.array([10]), np.arange(10) + place, np.zeros(10)) for place in places]

    def budget(limit: int) -> Budget:
        budget = Budget(Limits(bytes=limit))
        for part in parts:
            budget.charge(10, part.size)
        return budget

    if distance is not None:
        with pytest.raises(QueryFailed, match=f"{peak - 1} bytes"):
            merge(1, parts, budget(peak - 1))
    enough = budget(peak)
    merged = merge(1, parts, enough)
    assert len(merged.times) == left
    assert (enough.samples, enough.bytes) == (left, 16 * left), "what is left is what the answer holds"


def test_ranges() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ranges(np.array([], np.int64), np.array([], np.int64)).tolist() == []


def test_a_table_larger_than_what_is_written_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of series in several pieces, one of which no part has a sample of, on one thread and on two."""
    monkeypatch.setattr("streamgauge.store.merge._TABLE_ROWS", 100)
    monkeypatch.setattr("streamgauge.store.merge._ROWS_PER_THREAD", 1000)
    counts = np.repeat([[2, 0, 3, 0], [1, 0, 0, 4]], 150, axis=1)
    parts = []
    for place, each in enumerate(counts):
        rows = np.arange(each.sum())
        parts.append(Part(each, rows + place * 10_000, rows + 0.5 * place))
    expected = []
    for series in range(600):
        first, second = (slice(int(each[:series].sum()), int(each[: series + 1].sum())) for each in counts)
        bits = np.concatenate((parts[0].values[first], parts[1].values[second])).view(np.int64)
        times = np.concatenate((parts[0].times[first], parts[1].times[second]))
        expected.append(dict(zip(times.tolist(), bits.tolist(), strict=True)))
    for threads in (1, 2):
        assert contents(merge(600, parts, NoMeter(), threads=threads)) == expected
    into = (np.empty(1500, np.int64), np.empty(1500))
    answer = merge(600, parts, NoMeter(), into=into)
    assert contents(answer) == expected
    assert answer.times is into[0]
