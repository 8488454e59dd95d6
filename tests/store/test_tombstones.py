"""What tombstones take from a block, as it is read and as it is written anew, against sets of rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.model.labels import key_of
from streamgauge.query.budget import Budget, Limits
from streamgauge.store import block_merge, tombstones
from streamgauge.store.block_reader import LocalBlockReader
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.check import check_block, check_tombstones
from streamgauge.store.clean import perform_clean, samples_left
from streamgauge.store.ports import DAY_MS, BlockMeta, SortedRows, Tombstone
from streamgauge.store.tombstones import applies, applying, undeleted, without, would_lose
from streamgauge.testing.thorough import examples

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
DAY = 20_000 * DAY_MS
IDS = (5, 2, 9, 3)
"""In the order of their keys, which is not their own."""
META = BlockMeta("b", 11, 20, 0, 0, DAY, True, 3, 0, 0, 0, parents=("a",), tombstones=(1,))

Content = dict[int, list[int]]
"""Times from the start of the day, by series id."""


def tombstone(series: set[int], start: int, end: int, number: int = 2, commit: int = 20) -> Tombstone:
    return Tombstone(number, commit, DAY + start, DAY + end, np.array(sorted(series), "<u4").tobytes())


@contextmanager
def block(content: Content) -> Iterator[tuple[LocalBlocks, BlockMeta]]:
    ids = [series for series in IDS if series in content]
    times = np.array([time for series in ids for time in content[series]], np.int64) + DAY
    rows = SortedRows(
        ids=np.array(ids, np.uint32),
        keys=pa.array([key_of({"n": str(IDS.index(series))}) for series in ids], pa.large_binary()),
        counts=np.array([len(content[series]) for series in ids]),
        times=times,
        values=times.astype(np.float64),
    )
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        blocks = LocalBlocks(Path(folder))
        yield blocks, blocks.write(META, rows)


def rows_left(content: Content, dead: list[Tombstone], start: int = 0, end: int = 99) -> Content:
    """By asking each row."""

    def stays(series: int, time: int) -> bool:
        taken = any(
            series in tombstones.series_of(each).tolist() and each.start <= DAY + time <= each.end for each in dead
        )
        return start <= time <= end and not taken

    return {series: [time for time in times if stays(series, time)] for series, times in content.items()}


contents = st.dictionaries(
    st.sampled_from(IDS), st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True).map(sorted), min_size=1
)
deletions = st.lists(
    st.builds(
        lambda series, start, length, number: tombstone(series, start, start + length, number),
        st.sets(st.sampled_from((1, *IDS, 11)), min_size=1),
        st.integers(0, 30),
        st.integers(0, 20),
        st.integers(2, 9),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=examples(150))
@given(contents, deletions, st.integers(0, 30), st.integers(0, 30))
def test_reading_a_block_is_as_if_the_rows_were_not_there(
    content: Content, dead: list[Tombstone], start: int, length: int
) -> None:
    end = start + length
    expected = rows_left(content, dead, start, end)
    with block(content) as (blocks, meta), blocks.open(meta.id) as reader:
        ids = np.array(sorted(IDS), np.uint32)
        budget = Budget(Limits())
        part = without(reader.read(ids, DAY + start, DAY + end, budget), ids, dead, budget)
        found = {series: rows.tolist() for series, rows in _by_series(ids, part.counts, part.times - DAY)}
        assert found == {series: times for series, times in expected.items() if times}
        assert part.values.tolist() == (part.times).astype(float).tolist()
        assert (budget.samples, budget.bytes) == (len(part.times), part.size)
        listed = set(undeleted(reader, dead, DAY + start, DAY + end, budget).tolist())
        assert (budget.samples, budget.bytes) == (len(part.times), part.size)
        assert listed == _may_be_listed(content, dead, expected, start, end)
        more = set(would_lose(reader, ids, DAY + start, DAY + end, dead).tolist())
        assert {series for series, times in expected.items() if times} <= more


def _by_series(ids: np.ndarray, counts: np.ndarray, times: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for series, rows in zip(ids.tolist(), np.split(times, np.cumsum(counts)[:-1]), strict=True):
        if len(rows):
            yield series, rows


def _may_be_listed(content: Content, dead: list[Tombstone], expected: Content, start: int, end: int) -> set[int]:
    """Exact for series that a tombstone means, by their first and last times for others."""
    meant = {series for each in dead for series in tombstones.series_of(each).tolist()}
    return {
        series
        for series, times in content.items()
        if (expected[series] if series in meant else times[0] <= end and times[-1] >= start)
    }


@settings(max_examples=examples(100))
@given(contents, deletions, st.sampled_from([3, 1 << 19]))
def test_a_block_written_anew_has_the_rows_that_are_left(content: Content, dead: list[Tombstone], chunk: int) -> None:
    """Also where a series comes in several chunks."""
    expected = {series: times for series, times in rows_left(content, dead).items() if times}
    total = sum(map(len, content.values()))
    left = sum(map(len, expected.values()))
    with block(content) as (blocks, meta), mock.patch.object(block_merge, "CHUNK_ROWS", chunk):
        with blocks.open(meta.id) as reader:
            assert samples_left(reader, dead) == left
        cleaned = perform_clean(meta, dead, blocks)
        assert cleaned.removed == total - left
        if left in (0, total):
            assert cleaned.written == ()
            assert blocks.names() == ["b"]
            return
        (written,) = cleaned.written
        with blocks.open(written.id) as reader:
            assert check_block(reader) == []
            assert _content(reader) == expected
        assert check_tombstones(dead, [written], 12, blocks.open) == []
        assert (written.first_commit, written.last_commit, written.window, written.late) == (11, 20, DAY, True)
        assert (written.parents, written.level) == (("b",), 4)
        assert written.tombstones == tuple(sorted({1, *(each.id for each in dead)}))
        assert not any(applies(each, written) for each in dead)


def _content(reader: LocalBlockReader) -> Content:
    ids = np.sort(reader.series_ids())
    part = reader.read(ids, DAY, DAY + 99, Budget(Limits()))
    return {series: rows.tolist() for series, rows in _by_series(ids, part.counts, part.times - DAY)}


@pytest.mark.parametrize(
    ("deletion", "meant"),
    [
        (tombstone({5}, 10, 20), True),
        (tombstone({5}, 0, 4), True),
        (tombstone({5}, 9, 30), True),
        (tombstone({5}, 0, 3), False),
        (tombstone({5}, 10, 20, commit=19), False),
        (tombstone({5}, 10, 20, number=1), False),
    ],
)
def test_a_tombstone_means_blocks_up_to_its_commit_that_do_not_list_it(deletion: Tombstone, meant: bool) -> None:
    with block({5: [4, 10]}) as (_, meta):
        assert applies(deletion, meta) == meant
        assert applying([deletion], meta) == ([deletion] if meant else [])


def test_an_aggregate_goes_with_any_part_of_what_it_stands_for() -> None:
    """That at 9 stands for 0 to 9, and that at 19 for 10 to 19."""
    content = {5: [9, 19]}
    with block(content) as (blocks, meta), blocks.open(meta.id) as reader:
        aggregates = replace(meta, resolution=10)
        for start, end, left in ((0, 0, [19]), (5, 9, [19]), (9, 10, []), (10, 30, [9]), (20, 30, [9, 19])):
            dead = applying([tombstone({5}, start, end)], aggregates)
            assert samples_left(reader, dead) == len(left), (start, end)
            assert rows_left(content, dead) == {5: left}
