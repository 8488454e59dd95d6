"""The store as a whole, against a dictionary: what was appended and not deleted is what is read, through flushes,
compactions, retention, wrong clocks and restarts."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.errors import MetricFull, Overloaded
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.labels import key_of, labels_of
from streamgauge.model.series_limits import CountLimit, SeriesLimits
from streamgauge.model.source import Matcher, MatchOp, NoMeter
from streamgauge.store.clock_trust import CLOCK_JUMP_MS, TRUST_SECONDS
from streamgauge.store.expiry import LOOK_AGAIN_SECONDS
from streamgauge.store.jobs import series_without_data
from streamgauge.store.maintenance import IDLE_SECONDS, Maintenance
from streamgauge.store.offline import compact_folder, open_folder
from streamgauge.store.ports import DAY_MS, FIRST_TIME, LAST_TIME
from streamgauge.store.store import Store
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import NOON, Row, Rows, batch_of, content, content_of, opened
from streamgauge.testing.thorough import examples

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
RETENTION = 3 * DAY_MS


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path) / "data"


def bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))


KEYS = [
    *(key_of({"__name__": "up", "job": job}) for job in "abcdef"),
    key_of({"café.ünï": "x"}),
    key_of({"__name__": "ü"}),
]
VALUES = [bits(v) for v in (0.0, -0.0, 1.5, float("nan"), float("inf"), 5e-324)] + [STALE_BITS]


# ---- a model ---------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """What a store is to hold. Blocks go as a whole, so what is past its retention may be there or not, until the
    samples that keep its block alive are gone as well."""

    clock: ManualClock
    retention: int
    rows: Rows = field(default_factory=dict)
    metadata: dict[str, Metadata] = field(default_factory=dict)
    kept: dict[str, object] = field(default_factory=dict)  # by the process that reads, through restarts of the store

    def append(self, rows: list[Row], metadata: list[Metadata]) -> None:
        self.rows |= {(key, time): value for key, time, value in rows}
        self.metadata |= {entry.metric: entry for entry in metadata}

    def delete(self, keys: set[bytes], start: int, end: int) -> None:
        self.rows = {at: bits for at, bits in self.rows.items() if at[0] not in keys or not start <= at[1] <= end}

    def compare(self, store: Store) -> None:
        found = content(store, self.kept)
        assert found.items() <= self.rows.items()
        oldest = store.oldest_kept(self.clock.now_ms())
        missing = {time for _, time in self.rows.keys() - found.keys()}
        assert max(missing, default=oldest - 1) < oldest, "nothing went that retention keeps"
        self.rows = found
        assert {entry.metric: entry for entry in store.metadata()} == self.metadata
        by_job = Matcher("job", MatchOp("="), "a")
        snapshot, release = store.snapshot()
        selected = snapshot.open(self.kept).select([by_job], oldest, self.clock.now_ms(), NoMeter())
        release()
        expected = {at for at in found if at[0] == KEYS[0] and oldest <= at[1] <= self.clock.now_ms()}
        assert len(selected.samples.times) == len(expected)
        if not store.head.rows:  # which tells of series no more than that they may have a sample
            self.compare_series(store)

    def compare_series(self, store: Store) -> None:
        """No series is listed all of whose samples were deleted."""
        snapshot, release = store.snapshot()
        listed = snapshot.open(self.kept).series([], FIRST_TIME, LAST_TIME, NoMeter())
        release()
        assert {key_of(listed.labels(row)) for row in range(len(listed))} == {key for key, _ in self.rows}


async def act(store: Store, maintenance: Maintenance, model: Model, what: str, chosen: random.Random) -> None:
    clock = model.clock
    if what == "append":
        now, oldest = clock.now_ms(), store.oldest_kept(clock.now_ms())
        first = max(oldest, now - 4 * DAY_MS)
        times = [chosen.choice((now, chosen.randrange(first, now))) // 60_000 * 60_000 for _ in range(3)]
        rows = [
            (chosen.choice(KEYS), max(time, oldest), chosen.choice(VALUES))
            for time in times
            for _ in range(chosen.randrange(4))
        ]
        metadata = [Metadata("up", "gauge", f"help {chosen.randrange(3)}")] if chosen.random() < 0.1 else []
        await store.append(batch_of(store, rows), metadata)
        model.append(rows, metadata)
    elif what == "flush":
        store.head.seal()
        await maintenance.flush(1 << 20)
    elif what == "flush the oldest":
        await maintenance.flush(1)
    elif what == "seal":
        store.head.seal()
    elif what == "compact":
        await maintenance.compact()
    elif what == "compact fully":
        await maintenance.compact_fully()
    elif what == "expire":
        await maintenance.expire()
    elif what == "delete":
        jobs = chosen.sample("abcdef", chosen.randrange(1, 4))
        end = clock.now_ms() - chosen.choice((0, 0, 3600_000, DAY_MS))
        start = end - chosen.choice((0, 3600_000, 2 * DAY_MS, 20 * DAY_MS))
        await maintenance.delete([[Matcher("job", MatchOp("=~"), "|".join(jobs))]], start, end)
        model.delete({key for key in KEYS if labels_of(key).get("job") in jobs}, start, end)
    elif what == "clean":
        await maintenance.clean()
    elif what == "clean all":
        await maintenance.clean_tombstones()
        assert store.state.tombstones == (), "nothing reads what was to be cleaned"
    elif what == "time passes":
        await clock.advance(chosen.choice((60, 3600, 40_000, 90_000) if model.retention else (60, 900)))
    elif what == "the clock jumps":
        clock.jump(chosen.choice((-3600_000, 3600_000, -DAY_MS, DAY_MS) if model.retention else (-60_000, 60_000)))


async def one_life(data: Path, model: Model, todo: Iterator[str], chosen: random.Random, look_every: int) -> bool:
    """From a start to a restart. False when nothing is left to do."""
    async with opened(data, model.clock, model.retention) as (store, maintenance):
        assert store.state.damage == []
        model.compare(store)
        for number, what in enumerate(todo):
            if what == "restart":
                return True
            await act(store, maintenance, model, what, chosen)
            if number % look_every == 0:
                model.compare(store)
    return False


def same_without_a_server(data: Path, model: Model) -> None:
    assert check_folder(data) == []
    with open_folder(data) as (snapshot, damage):
        assert damage == []
        assert content_of(snapshot) == model.rows


STEPS = {
    "append": 60,
    "flush": 6,
    "seal": 3,
    "flush the oldest": 3,
    "compact": 6,
    "compact fully": 1,
    "expire": 5,
    "delete": 6,
    "clean": 5,
    "clean all": 1,
    "time passes": 6,
    "the clock jumps": 1,
    "restart": 2,
}


@settings(max_examples=examples(25))
@given(
    operations=st.lists(st.sampled_from([*STEPS, "append", "append", "flush", "flush"]), max_size=25),
    retention=st.sampled_from([0, RETENTION]),
    seed=st.integers(0, 1 << 32),
)
def test_store_is_a_dictionary(operations: list[str], retention: int, seed: int) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        model, todo, chosen = Model(ManualClock(NOON), retention), iter(operations), random.Random(seed)
        while asyncio.run(one_life(Path(folder) / "data", model, todo, chosen, 1)):
            pass
        same_without_a_server(Path(folder) / "data", model)


@pytest.mark.parametrize("retention", [0, RETENTION])
def test_store_is_a_dictionary_over_hundreds_of_operations(data: Path, retention: int) -> None:
    chosen = random.Random(retention)
    todo = iter(chosen.choices(list(STEPS), list(STEPS.values()), k=200))
    model = Model(ManualClock(NOON), retention)
    while asyncio.run(one_life(data, model, todo, chosen, 10)):
        pass
    asyncio.run(one_life(data, model, todo, chosen, 10))  # compares what retention has taken since it last did
    same_without_a_server(data, model)
    asyncio.run(compact_folder(data))
    same_without_a_server(data, model)


# ---- retention and the clock -----------------------------------------------------------------------------------------


async def fill_day(store: Store, maintenance: Maintenance, key: bytes, time: int) -> None:
    await store.append(batch_of(store, [(key, time, 1)]))
    store.head.seal()
    await maintenance.flush(1 << 20)


def test_a_clock_that_jumps_ahead_costs_nothing_for_an_hour(data: Path) -> None:
    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock, RETENTION) as (store, maintenance):
            await fill_day(store, maintenance, KEYS[0], NOON)
            assert not await maintenance.expire()
            clock.jump(30 * DAY_MS)
            assert not await maintenance.expire()
            clock.jump(-30 * DAY_MS)  # somebody noticed
            await clock.advance(TRUST_SECONDS + 1)
            assert not await maintenance.expire()
            assert len(content(store)) == 1
            clock.jump(30 * DAY_MS)
            assert not await maintenance.expire()
            await clock.advance(TRUST_SECONDS + 1)
            assert await maintenance.expire(), "the jump has proved to last"
            assert content(store) == {}

    asyncio.run(work())


def test_a_start_with_a_wrong_date_costs_nothing_for_an_hour(data: Path) -> None:
    async def work(clock: ManualClock, dropped: bool) -> None:
        async with opened(data, clock, RETENTION) as (store, maintenance):
            if not store.state.blocks:
                await fill_day(store, maintenance, KEYS[0], NOON)
            assert not await maintenance.expire()
            assert len(content(store)) == 1
            if dropped:
                await clock.advance(TRUST_SECONDS + 1)
                assert await maintenance.expire()

    asyncio.run(work(ManualClock(NOON), False))
    asyncio.run(work(ManualClock(NOON + 30 * DAY_MS), False))
    asyncio.run(work(ManualClock(NOON), False))
    asyncio.run(work(ManualClock(NOON + 30 * DAY_MS), True))


def test_a_small_correction_of_the_clock_is_believed(data: Path) -> None:
    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock, RETENTION) as (store, maintenance):
            await fill_day(store, maintenance, KEYS[0], NOON - RETENTION + 1000)
            await fill_day(store, maintenance, KEYS[1], NOON)
            clock.jump(CLOCK_JUMP_MS - 1)
            assert await maintenance.expire()
            assert len(content(store)) == 1

    asyncio.run(work())


# ---- compaction by itself --------------------------------------------------------------------------------------------


def test_a_day_that_nobody_writes_to_any_more_is_compacted_all_the_same(data: Path) -> None:
    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock) as (store, maintenance):
            running = asyncio.ensure_future(maintenance.run())
            for number in range(2):
                await fill_day(store, maintenance, KEYS[number], NOON + number)
            await clock.advance(DAY_MS / 2000 - 60)
            assert len(store.state.blocks) == 2, "more of this day may come"
            while len(store.state.blocks) > 1:
                await clock.advance(60)
                await asyncio.wait([running], timeout=0.01)
            assert clock.now_ms() >= NOON + DAY_MS // 2
            assert len(content(store)) == 2
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(work())


def test_what_was_just_flushed_is_left_alone_until_flushes_rest(data: Path) -> None:
    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock) as (store, maintenance):
            await clock.advance(2 * IDLE_SECONDS)
            for number in range(2):
                await fill_day(store, maintenance, KEYS[number], NOON - DAY_MS + number)
            assert not await maintenance.compact()
            await clock.advance(IDLE_SECONDS - 1)
            assert not await maintenance.compact()
            await clock.advance(1)
            assert await maintenance.compact()
            assert not await maintenance.compact()
            assert len(store.state.blocks) == 1

    asyncio.run(work())


# ---- series without data ---------------------------------------------------------------------------------------------


def test_a_series_goes_with_its_last_block_and_can_come_back(data: Path) -> None:
    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock, RETENTION) as (store, maintenance):
            await fill_day(store, maintenance, KEYS[0], NOON)
            first = store.resolve(KEYS[0])
            await clock.advance(2 * 86_400)
            await fill_day(store, maintenance, KEYS[1], clock.now_ms())
            await clock.advance(1.5 * 86_400)
            generation = store.generation
            assert await maintenance.expire()
            assert store.generation != generation
            assert store.index.series == 1
            stale = SampleBatch(np.array([first], np.uint32), np.array([clock.now_ms()]), np.zeros(1))
            with pytest.raises(Overloaded, match="send it again"):
                await store.append(stale)
            again = [(KEYS[0], clock.now_ms(), 3)]
            await store.append(batch_of(store, again))
            assert store.resolve(KEYS[0]) > first
            assert len(content(store)) == 2

    async def look(found: int) -> None:
        async with opened(data, ManualClock(NOON + 7 * DAY_MS // 2), RETENTION) as (store, maintenance):
            assert len(content(store)) == found
            assert {labels_of(key)["job"] for key, _ in content(store)} == {"a", "b"}
            await maintenance.compact_fully()

    asyncio.run(work())
    asyncio.run(look(2))
    asyncio.run(look(2))
    assert check_folder(data) == []


def test_churn_costs_what_lives_and_not_what_ever_was(data: Path) -> None:
    """Each day has series of its own: what is kept of them goes with them, and late rows of the living are known."""
    per_day, days = 300, 20

    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock, RETENTION) as (store, maintenance):
            for day in range(days):
                now = clock.now_ms()
                rows = [(key_of({"pod": f"{day}-{number}"}), now, number) for number in range(per_day)]
                await store.append(batch_of(store, [*rows, (KEYS[0], now, day)]))
                store.head.seal()
                await maintenance.flush(1 << 20)
                await maintenance.expire()
                marks, kept = store.state.watermarks, RETENTION // DAY_MS + 2
                assert len(marks.ids) <= 2 * kept * per_day
                assert store.index.series <= kept * per_day
                assert len(store.index.known_ids()) <= 2 * kept * per_day
                assert marks.of(np.array([store.resolve(KEYS[0])], np.uint32)).tolist() == [now]
                await clock.advance(86_400)
            assert store.index.next_id == days * per_day + 1
            late = clock.now_ms() - DAY_MS - 1
            await fill_day(store, maintenance, KEYS[0], late)
            assert [meta.late for meta in store.state.blocks if meta.min_time == late] == [True]

    async def look() -> None:
        async with opened(data, ManualClock(NOON + days * DAY_MS), RETENTION) as (store, _):
            assert len(store.state.watermarks.ids) <= 6 * per_day, "nor does a start bring them back"

    asyncio.run(work())
    asyncio.run(look())
    assert check_folder(data) == []


def test_series_that_were_never_written_make_room_for_those_that_are_refused(data: Path) -> None:
    """A scrape that fails has looked its series up by then."""

    def key(number: int) -> bytes:
        return key_of({"__name__": "m", "n": str(number)})

    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock) as (store, maintenance):
            store.limit_series(SeriesLimits(metric=CountLimit(3)))
            written = store.resolve(key(0))
            await store.append(SampleBatch(np.array([written], np.uint32), np.array([NOON]), np.ones(1)))
            for number in (1, 2):
                store.resolve(key(number))
            await maintenance.expire()
            assert len(store.index.known_ids()) == 3, "nobody needs their room"
            for number in range(3, 6):
                with pytest.raises(MetricFull):
                    store.resolve(key(number))
            await maintenance.expire()
            assert store.resolve(key(0)) == written
            for number in (3, 4):
                store.resolve(key(number))
            with pytest.raises(MetricFull):
                store.resolve(key(5))
            await maintenance.expire()
            with pytest.raises(MetricFull):
                store.resolve(key(5))
            await clock.advance(LOOK_AGAIN_SECONDS)
            await maintenance.expire()
            store.resolve(key(5))

    asyncio.run(work())


def test_a_series_that_is_written_to_while_others_are_pruned_stays(data: Path) -> None:
    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock) as (store, maintenance):
            ids = [store.resolve(key_of({"n": str(number)})) for number in range(10_000)]
            await fill_day(store, maintenance, KEYS[0], NOON)
            on_its_way = asyncio.ensure_future(store.append(one(ids[9_999])))
            await asyncio.sleep(0)
            with store.pruner.watching(store.queued_series):
                snapshot, release = store.snapshot()
                found = series_without_data(snapshot)
                release()
                await store.append(one(ids[3]))
                pruning = asyncio.ensure_future(store.pruner.prune(found))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await store.append(one(ids[9_998]))  # while some are pruned already, and this is to be
                assert await pruning == 9_997
            await on_its_way
            assert store.index.living(np.array(ids, np.uint32)).nonzero()[0].tolist() == [3, 9_998, 9_999]
            assert len(content(store)) == 4

    def one(series: int) -> SampleBatch:
        return SampleBatch(np.array([series], np.uint32), np.array([NOON]), np.ones(1))

    asyncio.run(work())
