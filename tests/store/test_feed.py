"""What was stored after a commit: all of it, whatever has become of it meanwhile, and of the rest not much."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.model.labels import key_of
from streamgauge.store.commit_times import MAX_STRETCHES, CommitTimes
from streamgauge.store.feed import StoreSampleFeed
from streamgauge.store.ports import FIRST_TIME, LAST_TIME
from streamgauge.store.store import Store
from streamgauge.testing.lives import NOON, Row, batch_of, opened


def test_times_of_commits_are_bounded_and_never_too_late() -> None:
    times, noted = CommitTimes(10), {}
    for commit in range(11, 5 * MAX_STRETCHES):
        noted[commit] = (commit * 7919) % 10_007
        times.note(commit, noted[commit])
    assert len(times._stretches) <= MAX_STRETCHES
    for commit in (10, 11, 500, 9_000, 5 * MAX_STRETCHES - 2):
        assert times.oldest_after(commit) <= min(value for key, value in noted.items() if key > commit)
    assert times.oldest_after(9) == FIRST_TIME
    assert times.oldest_after(5 * MAX_STRETCHES) == LAST_TIME


@given(st.lists(st.integers(0, 100), max_size=30), st.integers(0, 31))
def test_of_few_commits_times_are_exact(oldest: list[int], after: int) -> None:
    times = CommitTimes(0)
    for commit, time in enumerate(oldest, 1):
        times.note(commit, time)
    assert times.oldest_after(after) == min(oldest[after:], default=LAST_TIME)


def given_after(feed: StoreSampleFeed, store: Store, commit: int) -> list[Row]:
    found: list[Row] = []
    for piece in feed.pieces(commit):
        release = piece.lease()
        last = 0
        for end, batch in piece.read(0):
            assert end > last
            last = end
            keys = feed.keys(batch.series)
            found += [
                (key or b"", time, bits)
                for key, time, bits in zip(keys, batch.times.tolist(), batch.values.view("i8").tolist(), strict=True)
            ]
        release()
    return found


def rows(number: int, series: int = 3) -> list[Row]:
    return [(key_of({"__name__": "m", "i": str(i)}), NOON + 1000 * number, number + 1) for i in range(series)]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_flushes_merges_and_restarts_hide_nothing(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    commits: list[int] = []
    stored: list[list[Row]] = []

    async def store_some(store: Store, number: int) -> None:
        stored.append(rows(number))
        await store.append(batch_of(store, stored[-1]))
        commits.append(store.state.commit)

    async def check(store: Store) -> None:
        feed = StoreSampleFeed(store)
        for at, commit in enumerate(commits):
            later = {row for some in stored[at + 1 :] for row in some}
            assert later <= set(given_after(feed, store, commit))
            if commit >= flushed and at >= restarted:
                assert later == set(given_after(feed, store, commit)), "times tell apart what came in order"

    flushed, restarted = 0, 0
    for _ in range(2):
        async with opened(tmp_path, clock) as (store, maintenance):
            restarted = len(stored)
            flushed = store.state.flushed_through
            for number in range(len(stored), len(stored) + 5):
                await store_some(store, number)
            await check(store)
            for number in range(len(stored), len(stored) + 3):
                await maintenance.flush_all()
                await store_some(store, number)
            await check(store)
            await maintenance.compact_fully()
            await check(store)
            late = [(key, time - 500_000, bits) for key, time, bits in rows(len(stored))]
            stored.append(late)
            await store.append(batch_of(store, late))
            commits.append(store.state.commit)
            flushed = restarted = 1 << 60  # from now on times tell little
            await check(store)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_block_is_read_from_a_row_on(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOON)) as (store, maintenance):
        key = key_of({"__name__": "m"})
        for start in range(0, 100_000, 10_000):
            some = [(key, NOON - 100_000 + at, at) for at in range(start, start + 10_000)]
            await store.append(batch_of(store, some))
        await maintenance.flush_all()
        (piece,) = StoreSampleFeed(store).pieces(0)
        read = list(piece.read(0))
        assert len(read) == 2
        assert [(end, len(batch)) for end, batch in piece.read(read[0][0])] == [(100_000, len(read[1][1]))]
        assert list(piece.read(100_000)) == []
