import logging
import pickle
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import Overloaded
from streamgauge.model.arrays import stale_marker
from streamgauge.model.batch import SampleBatch, empty_batch
from streamgauge.model.source import NoMeter
from streamgauge.store.head import MAX_COMMIT_ROWS, FlushInput, Head
from streamgauge.store.head_view import head_series, read_head, rows_of
from streamgauge.store.leases import Leases
from streamgauge.store.merge import merge
from streamgauge.store.runs import SEGMENT_ROWS, HeadSnapshot
from streamgauge.store.shm import SharedMemory
from streamgauge.store.shm_names import remove_leftovers
from streamgauge.testing.thorough import examples

Sample = tuple[int, int, int]  # series, time, bits of the value
Contents = dict[tuple[int, int], int]

EVER = (-(1 << 63), (1 << 63) - 1)


@contextmanager
def a_head(store_id: str = "", max_rows: int = 1 << 20) -> Iterator[tuple[Head, Leases]]:
    memory, leases = SharedMemory(store_id or secrets.token_hex(16)), Leases()
    with ThreadPoolExecutor(2) as pool:
        head = Head(memory, leases, pool, max_rows=max_rows)
        try:
            yield head, leases
        finally:
            head.close()
            memory.close()


@pytest.fixture
def head() -> Iterator[Head]:
    with a_head() as (head, _):
        yield head


def batch_of(samples: Sequence[Sample]) -> SampleBatch:
    columns = list(zip(*samples, strict=True)) or [(), (), ()]
    bits = np.array(columns[2], np.int64)
    return SampleBatch(np.array(columns[0], np.uint32), np.array(columns[1], np.int64), bits.view(np.float64))


def read(snapshot: HeadSnapshot, ids: Sequence[int], start: int, end: int) -> Contents:
    chosen = np.array(ids, np.uint32)
    samples = merge(len(chosen), read_head(snapshot, chosen, start, end, NoMeter()), NoMeter())
    owners = np.repeat(chosen, np.diff(samples.offsets)).tolist()
    rows = zip(owners, samples.times.tolist(), samples.values.view(np.int64).tolist(), strict=True)
    contents = {(owner, time): bits for owner, time, bits in rows}
    assert len(contents) == len(owners), "a series and time came twice"
    assert list(contents) == sorted(contents)
    return contents


def all_of(taken: FlushInput | HeadSnapshot) -> Contents:
    ids, times, values = rows_of(taken.runs)
    contents = dict(zip(zip(ids.tolist(), times.tolist(), strict=True), values.view(np.int64).tolist(), strict=True))
    assert list(contents) == sorted(contents)
    assert len(contents) == len(ids)
    return contents


def take(head: Head, max_rows: int) -> FlushInput:
    taken = head.take_oldest(max_rows)
    assert taken is not None
    return taken


# ---- against a model ------------------------------------------------------------------------------------------------

# Ids far apart make the reader search instead of using a table.
ids = st.one_of(st.integers(0, 12), st.sampled_from([70, 5_000_000, (1 << 32) - 1]))
times = st.one_of(st.integers(-20, 20), st.sampled_from(EVER))
bits = st.integers(-(1 << 63), (1 << 63) - 1)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.tuples(ids, times, bits), max_size=30)),
        st.tuples(st.just("append"), st.lists(st.tuples(ids, times, bits), min_size=1, max_size=30)),
        st.tuples(st.sampled_from(["seal", "settle", "snapshot", "flush", "failed flush"]), st.integers(1, 60)),
    ),
    max_size=40,
)
ranges = st.tuples(st.lists(ids, max_size=8, unique=True).map(sorted), times, times)


@settings(max_examples=examples(150), deadline=None)
@given(operations, st.lists(ranges, min_size=1, max_size=4))
def test_every_snapshot_stays_what_it_was(
    steps: list[tuple[str, Any]], queries: list[tuple[list[int], int, int]]
) -> None:
    with a_head() as (head, leases):
        commits: dict[int, list[Sample]] = {}
        dropped = -1
        snapshots: list[tuple[HeadSnapshot, Contents]] = []
        for step, argument in [*steps, ("snapshot", 0), ("settle", 0), ("snapshot", 0)]:
            if step == "append":
                commit = head.last_commit + 1 + len(argument) % 3
                head.append(commit, batch_of(argument))
                commits[commit] = argument
            elif step == "seal":
                head.seal()
            elif step == "settle":
                head.settle(wait=True)
            elif step == "snapshot":
                snapshot = head.snapshot()
                leases.acquire(snapshot.names)
                snapshots.append((snapshot, between(commits, dropped, head.last_commit)))
            elif taken := head.take_oldest(argument):
                assert taken.runs == head.snapshot().runs[: len(taken.runs)]
                assert taken.rows <= argument or len(taken.runs) == 1
                assert all_of(taken) == between(commits, dropped, taken.through)
                if step == "flush":
                    head.drop(taken.through)
                    dropped = taken.through
        for snapshot, expected in snapshots:
            assert all_of(snapshot) == expected
            for chosen, start, end in queries:
                answer = {key: bits for key, bits in expected.items() if key[0] in chosen and start <= key[1] <= end}
                assert read(snapshot, chosen, start, end) == answer
                there = head_series(snapshot, start, end).tolist()
                assert there == sorted(set(there))
                in_range = {series for series, time in expected if start <= time <= end}
                assert in_range <= set(there) <= {series for series, _ in expected}


def between(commits: dict[int, list[Sample]], after: int, through: int) -> Contents:
    """What the commits in (after, through] leave behind."""
    contents: Contents = {}
    for commit, samples in commits.items():
        if after < commit <= through:
            contents.update({(series, time): bits for series, time, bits in samples})
    return contents


# ---- segments -------------------------------------------------------------------------------------------------------


def scrape(series: int, time: int, random: np.random.Generator) -> SampleBatch:
    return SampleBatch(np.arange(series, dtype=np.uint32), np.full(series, time), random.random(series))


def test_a_commit_never_straddles_segments(head: Head) -> None:
    random, rows = np.random.default_rng(3), 10_000
    scrapes = [scrape(rows, 1000 * number, random) for number in range(30)]
    for commit, batch in enumerate(scrapes):
        head.append(commit, batch)
    assert head.sealed_through() == 25
    head.settle(wait=True)
    assert [(run.first_commit, run.last_commit, run.rows, run.series) for run in head.snapshot().runs] == [
        (0, 12, 13 * rows, rows),
        (13, 25, 13 * rows, rows),
        (26, 29, 4 * rows, 0),
    ]
    chosen = np.arange(0, rows, 7, dtype=np.uint32)
    samples = merge(len(chosen), read_head(head.snapshot(), chosen, 5000, 28_500, NoMeter()), NoMeter())
    assert np.array_equal(samples.times.reshape(-1, 24), np.tile(np.arange(5000, 29_000, 1000), (len(chosen), 1)))
    expected = np.stack([batch.values[chosen] for batch in scrapes[5:29]], axis=1)
    assert np.array_equal(samples.values.reshape(-1, 24), expected)

    taken = take(head, 1)
    assert (taken.rows, taken.through) == (13 * rows, 12)
    head.drop(12)
    assert head.rows == 17 * rows


def test_sorted_segments_are_merged_until_a_flush_takes_them(head: Head) -> None:
    for commit in range(8):
        head.append(commit, batch_of([(commit, 0, 1), (3, commit, 2)]))
        head.seal()
        if commit == 2:
            taken = take(head, 4)
    assert taken.through == 1
    head.settle(wait=True)
    assert len(head.snapshot().runs) == 8, "merging would divide what the flush was given"
    head.drop(taken.through)
    for commit in (8, 9):
        head.append(commit, batch_of([(commit, 0, 1), (3, commit, 2)]))
        head.seal()
    head.settle(wait=True)
    (run,) = head.snapshot().runs
    assert (run.first_commit, run.last_commit, run.rows) == (2, 9, 16)


def test_full_says_that_writers_must_wait() -> None:
    with a_head(max_rows=4) as (head, _):
        head.append(1, batch_of([(1, 1, 1)] * 3))
        assert not head.full
        head.append(2, batch_of([(1, 1, 1)]))
        assert head.full
        head.seal()
        taken = take(head, 1)
        head.drop(taken.through)
        assert (head.full, head.rows) == (False, 0)


def test_repetitions_that_go_when_segments_are_sorted_and_merged_are_counted_no_more(head: Head) -> None:
    for commit in range(1, 9):
        head.append(commit, batch_of([(1, 1, commit), (1, 1, 0), (2, commit, 1)]))
        head.seal()
    head.settle(wait=True)
    assert head.rows == head.snapshot().rows == 9
    head.append(9, batch_of([(1, 1, 1)]))
    assert head.rows == 10
    head.drop(take(head, 100).through)
    assert head.rows == 1


def test_commits_without_samples_are_flushed_with_those_before_them(head: Head) -> None:
    head.append(1, empty_batch())
    assert (head.sealed_through(), head.take_oldest(1)) == (1, None)
    head.append(2, batch_of([(1, 1, 1)]))
    head.append(3, empty_batch())
    assert head.sealed_through() == 1
    head.seal()
    taken = take(head, 1)
    assert taken.through == head.sealed_through() == 3


def test_dropped_memory_goes_with_the_last_lease() -> None:
    memory, leases = SharedMemory(secrets.token_hex(16)), Leases()
    with ThreadPoolExecutor(1) as pool:
        head = Head(memory, leases, pool)
        head.append(1, batch_of([(1, 1, 1)]))
        unsorted = head.snapshot()
        release = leases.acquire(unsorted.names)
        head.seal()
        head.settle(wait=True)
        assert leases.waiting == 1
        head.drop(1)
        assert read(unsorted, [1], *EVER) == {(1, 1): 1}
        release()
        assert (leases.waiting, memory.used_bytes) == (0, 0)
    memory.close()


def test_stale_markers_keep_their_bits(head: Head) -> None:
    stale = int(stale_marker().view(np.int64)[0])
    for commit in range(8):
        head.append(commit, batch_of([(1, commit, stale), (2, commit, stale + 1)]))
        head.seal()
    expected = {(series, time): stale + series - 1 for series in (1, 2) for time in range(8)}
    assert all_of(head.snapshot()) == expected
    head.settle(wait=True)
    assert all_of(head.snapshot()) == expected


def test_a_spawned_process_reads_a_snapshot(head: Head) -> None:
    random = np.random.default_rng(1)
    for commit in range(15):
        head.append(commit, scrape(10_000, commit, random))
    head.settle(wait=True)
    snapshot, chosen = head.snapshot(), np.array([5, 9_999, 10_000], np.uint32)
    assert len(pickle.dumps(snapshot)) < 500
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as workers:
        there = workers.submit(read_head, snapshot, chosen, 3, 14, NoMeter()).result()
    here = read_head(snapshot, chosen, 3, 14, NoMeter())
    assert [part.counts.tolist() for part in there] == [[10, 10, 0], [2, 2, 0]]
    assert [part.values.tolist() for part in there] == [part.values.tolist() for part in here]
    assert len(all_of(head.snapshot())) == 150_000, "the worker's exit removed nothing"


# ---- faults ---------------------------------------------------------------------------------------------------------


def test_what_was_reserved_can_be_appended(head: Head, small_files: Callable[[int], None]) -> None:
    """However unluckily the commits fall: each second one is too large for what the one before has left."""
    largest = scrape(MAX_COMMIT_ROWS, 0, np.random.default_rng(1))
    sizes = [MAX_COMMIT_ROWS] * 7 + [1, MAX_COMMIT_ROWS] * 8
    head.append(0, batch_of([(1, 1, 1)]))
    head.reserve(sum(sizes))
    small_files(1 << 20)
    with pytest.raises(Overloaded):
        head.reserve(sum(sizes) + SEGMENT_ROWS)
    for commit, size in enumerate(sizes, start=1):
        head.append(commit, SampleBatch(largest.series[:size], largest.times[:size], largest.values[:size]))
    assert head.rows > 0
    small_files(-1)


def test_without_memory_a_commit_is_refused_and_nothing_changes(head: Head, small_files: Callable[[int], None]) -> None:
    head.append(1, batch_of([(1, 1, 1)]))
    release = head._leases.acquire(head.snapshot().names)  # else the sorted segment's memory might be used again
    head.seal()
    small_files(1 << 20)
    with pytest.raises(Overloaded):
        head.append(2, batch_of([(2, 2, 2)]))
    small_files(-1)
    release()
    assert (head.last_commit, all_of(head.snapshot())) == (1, {(1, 1): 1})
    head.append(2, batch_of([(2, 2, 2)]))
    assert all_of(head.snapshot()) == {(1, 1): 1, (2, 2): 2}


def test_segments_that_cannot_be_sorted_are_read_as_they_are(
    head: Head, small_files: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    head.append(1, batch_of([(2, 2, 2), (1, 1, 1), (1, 1, 5)]))
    small_files(16)
    head.seal()
    head.settle(wait=True)
    small_files(-1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert [run.series for run in head.snapshot().runs] == [0]
    taken = take(head, 1)
    assert all_of(taken) == read(head.snapshot(), [1, 2], *EVER) == {(1, 1): 5, (2, 2): 2}


def test_a_merge_that_finds_no_memory_is_not_tried_again(
    head: Head, small_files: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    rows = 1000
    for commit in range(8):
        head.append(commit, scrape(rows, commit, np.random.default_rng(commit)))
        head.seal()
        if commit == 6:
            head.settle(wait=True)
    small_files(3 * 16 * rows)  # enough to sort one, not to merge eight
    head.settle(wait=True)
    for _ in range(3):
        head.settle(wait=True)
        head.append(head.last_commit + 1, empty_batch())
    small_files(-1)
    assert len(caplog.records) == 1
    assert [(run.rows, run.series) for run in head.snapshot().runs] == [(rows, rows)] * 8
    assert len(all_of(head.snapshot())) == 8 * rows


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared memory can be listed on Linux alone")
def test_closing_leaves_nothing() -> None:
    store_id = secrets.token_hex(16)
    with a_head(store_id) as (head, _):
        for commit in range(9):
            head.append(commit, batch_of([(1, commit, 1)]))
            head.seal()
    assert remove_leftovers(store_id) == 0


class OnDemand(ThreadPoolExecutor):
    """Does its work when the test says so."""

    def __init__(self) -> None:
        super().__init__(1)
        self.held = threading.Event()
        self.submit(self.held.wait)


def test_what_a_flush_was_given_stays_while_the_same_rows_are_sorted() -> None:
    """A flush takes its runs first and a lease on them after that: they must be the same then."""
    memory, leases, pool = SharedMemory(secrets.token_hex(16)), Leases(), OnDemand()
    head = Head(memory, leases, pool)
    try:
        head.append(1, batch_of([(1, 1, 1), (0, 1, 2)]))
        head.seal()
        taken = take(head, 1 << 20)
        pool.held.set()
        head.settle(wait=True)
        assert taken.runs == head.snapshot().runs
        assert all_of(taken) == {(0, 1): 2, (1, 1): 1}
        head.drop(taken.through)
        assert memory.used_bytes == 0
    finally:
        pool.held.set()
        head.close()
        pool.shutdown()
        memory.close()
