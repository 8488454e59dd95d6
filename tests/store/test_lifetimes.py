"""First and last samples of series, wherever they lie, against a plain recount."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.errors import QueryFailed
from streamgauge.model.labels import key_of, labels_of
from streamgauge.model.source import Matcher, MatchOp, NoMeter
from streamgauge.query.budget import Budget, Limits
from streamgauge.store.lifetimes import Bounds
from streamgauge.store.offline import open_folder
from streamgauge.store.ports import DAY_MS
from streamgauge.store.snapshot import StoreSnapshot
from streamgauge.testing.lives import NOON, Row, batch_of, opened

Lives = dict[bytes, tuple[int, int]]

KEYS = [key_of({"__name__": f"m{number % 3}", "n": str(number)}) for number in range(20)]


def lives_of(snapshot: StoreSnapshot, *matcher_sets: list[Matcher]) -> Lives:
    found = snapshot.open({}).lifetimes(matcher_sets, NoMeter())
    spans = zip(found.first.tolist(), found.last.tolist(), strict=True)
    return {key_of(labels): span for labels, span in zip(found.labels, spans, strict=True)}


def recount(rows: Iterable[Row]) -> Lives:
    lives: Lives = {}
    for key, time, _ in rows:
        first, last = lives.get(key, (time, time))
        lives[key] = (min(first, time), max(last, time))
    return lives


def test_lives_reach_over_blocks_late_blocks_and_the_head(tmp_path: Path) -> None:
    """Also while the log is all there is, and in a folder that no server holds."""
    chance = random.Random(7)

    async def work() -> list[Row]:
        rows: list[Row] = []
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, maintenance):
            for step in range(12):
                some = chance.sample(KEYS, 6)
                fresh = [(key, NOON - chance.randrange(3 * DAY_MS), step) for key in some]
                await store.append(batch_of(store, fresh))
                rows += fresh
                if step in (3, 6, 9):
                    await maintenance.flush_all()
                snapshot, release = store.snapshot()
                assert lives_of(snapshot) == recount(rows)
                release()
            assert any(meta.late for meta in store.state.blocks)
            matching = [[Matcher("__name__", MatchOp.EQUAL, "m1")], [Matcher("n", MatchOp.MATCH, "1|2")]]
            snapshot, release = store.snapshot()
            wanted = {key: span for key, span in recount(rows).items() if KEYS.index(key) % 3 == 1 or key == KEYS[2]}
            assert lives_of(snapshot, *matching) == wanted
            assert lives_of(snapshot, [Matcher("n", MatchOp.EQUAL, "none")]) == {}
            release()
            store.resolve(key_of({"n": "has no sample"}))
            snapshot, release = store.snapshot()
            assert lives_of(snapshot) == recount(rows)
            release()
        return rows

    rows = asyncio.run(work())
    with open_folder(tmp_path / "data") as (snapshot, _):
        assert lives_of(snapshot) == recount(rows)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_deleted_is_not_lived(tmp_path: Path, seed: int) -> None:
    """Also before it is off the disk: the first and last samples that blocks know of may be gone."""
    chance = random.Random(seed)

    async def work() -> None:
        rows: list[Row] = []
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, maintenance):
            for step in range(8):
                fresh = [(key, NOON - chance.randrange(2 * DAY_MS), step) for key in chance.choices(KEYS, k=40)]
                await store.append(batch_of(store, fresh))
                rows += fresh
                if step % 2:
                    await maintenance.flush_all()
                start = NOON - chance.randrange(2 * DAY_MS)
                end = start + chance.randrange(DAY_MS)
                metric = f"m{chance.randrange(3)}"
                await maintenance.delete([[Matcher("__name__", MatchOp.EQUAL, metric)]], start, end)
                rows = [row for row in rows if labels_of(row[0])["__name__"] != metric or not start <= row[1] <= end]
                snapshot, release = store.snapshot()
                assert lives_of(snapshot) == recount(rows)
                budget = Budget(Limits())
                found = snapshot.open({}).lifetimes([], budget)
                codes = sum(column.codes.nbytes for column in found.labels.columns.values())
                assert (budget.samples, budget.bytes) == (0, 16 * len(found.first) + codes)
                release()
            assert snapshot.tombstones, "some of it waits"

    asyncio.run(work())


def test_the_meter_is_asked_before_and_keeps_what_the_answer_takes(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, maintenance):
            await store.append(batch_of(store, [(key, NOON, 1) for key in KEYS]))
            await maintenance.flush_all()
            snapshot, release = store.snapshot()
            budget = Budget(Limits())
            found = snapshot.open({}).lifetimes([], budget)
            codes = sum(column.codes.nbytes for column in found.labels.columns.values())
            assert budget.bytes == found.first.nbytes + found.last.nbytes + codes
            with pytest.raises(QueryFailed, match="--query-max-bytes"):
                snapshot.open({}).lifetimes([], Budget(Limits(bytes=64 * len(KEYS))))
            release()

    asyncio.run(work())


ids = st.integers(0, 50)
places = st.lists(st.dictionaries(ids, st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=8), max_size=5)


@given(st.sets(ids, min_size=1), places)
def test_bounds_are_the_least_and_the_greatest(chosen: set[int], found: list[Mapping[int, tuple[int, int]]]) -> None:
    bounds = Bounds(np.array(sorted(chosen), np.uint32))
    for place in found:
        order = random.Random(1).sample(sorted(place), len(place))
        spans = np.array([sorted(place[series]) for series in order], np.int64).reshape(-1, 2)
        bounds.add(np.array(order, np.uint32), spans[:, 0], spans[:, 1])
    for at, series in enumerate(sorted(chosen)):
        times = [time for place in found for time in place.get(series, ())]
        assert bounds.known()[at] == bool(times)
        if times:
            assert (bounds.first[at], bounds.last[at]) == (min(times), max(times))
