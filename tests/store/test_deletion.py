"""Deletion: hidden at once, gone from every file after cleaning, never back; what is written afterwards stays."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import BadInput, Corrupt, Overloaded, ReadOnly, StorageError
from streamgauge.model.batch import Metadata
from streamgauge.model.labels import key_of
from streamgauge.model.source import Matcher, MatchOp, NoMeter
from streamgauge.query.budget import Budget, Limits
from streamgauge.store import deletion, failpoints, names
from streamgauge.store.helper import InThread
from streamgauge.store.jobs import series_without_data
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.offline import compact_folder, delete_in_folder, open_folder
from streamgauge.store.ports import DAY_MS, FIRST_TIME, LAST_TIME
from streamgauge.store.snapshot import StoreSnapshot
from streamgauge.store.store import Store
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import NOON, Row, batch_of, content, content_of, opened

T = TypeVar("T")
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
ALWAYS = (FIRST_TIME, LAST_TIME)
ALICE, BOB = (key_of({"__name__": "visits", "user": f"user-{name}-of-this-test"}) for name in ("alice", "bob"))
SECRET = b"user-alice-of-this-test"


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path) / "data"


Work = Callable[[Store, Maintenance], Awaitable[None]]


def life(data: Path, work: Work, clock: ManualClock | None = None) -> None:
    """From a start to a stop."""

    async def run() -> None:
        async with opened(data, clock or ManualClock(NOON)) as (store, maintenance):
            await work(store, maintenance)

    asyncio.run(run())


def of(user: str) -> list[list[Matcher]]:
    return [[Matcher("user", MatchOp.EQUAL, f"user-{user}-of-this-test")]]


def users(pattern: str) -> list[list[Matcher]]:
    return [[Matcher("user", MatchOp.MATCH, pattern)]]


def rows(key: bytes, *times: int) -> list[Row]:
    return [(key, NOON + time, time) for time in times]


async def flush(store: Store, maintenance: Maintenance) -> None:
    store.head.seal()
    while await maintenance.flush(1 << 20):
        pass


def times_of(store: Store, key: bytes) -> list[int]:
    return sorted(time - NOON for of, time in content(store) if of == key)


def listed(snapshot: StoreSnapshot, start: int, end: int) -> set[bytes]:
    frame = snapshot.open({}).series([], start, end, NoMeter())
    return {key_of(frame.labels(row)) for row in range(len(frame))}


def series_in(store: Store, start: int = FIRST_TIME, end: int = LAST_TIME) -> set[bytes]:
    snapshot, release = store.snapshot()
    try:
        return listed(snapshot, start, end)
    finally:
        release()


def files_with(data: Path, text: bytes) -> list[str]:
    """Files in which a text stands as it is, or packed as the log and the blocks pack labels."""
    found = [path for path in data.rglob("*") if path.is_file() and text in _readable(path)]
    return sorted(str(path.relative_to(data)) for path in found)


def _readable(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix == ".log":
        return raw + _unpacked(raw)
    if path.name == "series.parquet":
        return raw + repr(pq.read_table(path).column("labels").to_pylist()).encode()
    return raw


def _unpacked(raw: bytes) -> bytes:
    """What every zstd frame in a file holds."""
    texts, at = b"", raw.find(b"\x28\xb5\x2f\xfd")
    while at >= 0:
        with suppress(OSError):
            texts += pa.CompressedInputStream(pa.BufferReader(raw[at:]), "zstd").read(1 << 20)
        at = raw.find(b"\x28\xb5\x2f\xfd", at + 1)
    return texts


# ---- hidden at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flushed", [False, True])
def test_deleted_samples_are_hidden_at_once_and_later_ones_are_seen(data: Path, flushed: bool) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, [*rows(ALICE, 1, 2, 3), *rows(BOB, 1, 2, 3)]))
        if flushed:
            await flush(store, maintenance)
        deleted = await maintenance.delete(of("alice"), NOON + 2, NOON + 3)
        assert (deleted.series, deleted.blocks) == (1, 1)
        assert (times_of(store, ALICE), times_of(store, BOB)) == ([1], [1, 2, 3])
        await store.append(batch_of(store, rows(ALICE, 2, 4)))
        assert times_of(store, ALICE) == [1, 2, 4], "the same time again is a sample of its own"

    async def look(store: Store, maintenance: Maintenance) -> None:
        assert (times_of(store, ALICE), times_of(store, BOB)) == ([1, 2, 4], [1, 2, 3])

    life(data, work)
    with open_folder(data) as (snapshot, _):
        assert sorted(time - NOON for key, time in content_of(snapshot) if key == ALICE) == [1, 2, 4]
    life(data, look)
    asyncio.run(compact_folder(data))
    life(data, look)
    assert check_folder(data) == []


def test_what_a_late_block_had_replaced_does_not_come_back_with_its_deletion(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        for value in (7, 8):  # the second is late
            await store.append(batch_of(store, [(ALICE, NOON, value), (BOB, NOON, value)]))
            await flush(store, maintenance)
        assert [meta.late for meta in store.state.blocks] == [False, True]
        await maintenance.delete(of("alice"), *ALWAYS)
        assert content(store) == {(BOB, NOON): 8}
        while await maintenance.clean():
            assert content(store) == {(BOB, NOON): 8}, "whichever of the two went first"
        await maintenance.compact_fully()
        assert content(store) == {(BOB, NOON): 8}

    life(data, work)
    life(data, lambda store, maintenance: _holds(store, {(BOB, NOON): 8}))


async def _holds(store: Store, expected: dict[tuple[bytes, int], int]) -> None:
    assert content(store) == expected


def test_series_are_listed_only_where_they_have_samples_left(data: Path) -> None:
    """Decided by their first and last times where those tell, else by their rows."""

    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, [*rows(ALICE, *range(0, 101, 10)), *rows(BOB, *range(0, 101, 10))]))
        assert series_in(store) == {ALICE, BOB}
        await maintenance.delete(of("alice"), NOON, NOON + 45)
        assert series_in(store) == {ALICE, BOB}
        assert series_in(store, NOON, NOON + 45) == {BOB}
        assert series_in(store, NOON + 20, NOON + 49) == {BOB}, "alice's next sample is at 50"
        assert series_in(store, NOON + 20, NOON + 50) == {ALICE, BOB}
        await maintenance.delete(of("alice"), NOON + 55, NOON + 1000)
        assert series_in(store) == {ALICE, BOB}, "50 is left"
        await maintenance.delete(of("alice"), NOON + 50, NOON + 50)
        assert series_in(store) == {BOB}, "no deletion covers 46 to 49, and there is no sample there"
        assert await _labels(store, "user") == {"user-bob-of-this-test"}

    life(data, work)


async def _labels(store: Store, name: str) -> set[str]:
    snapshot, release = store.snapshot()
    frame = snapshot.open({}).series([], *ALWAYS, NoMeter(), [name])
    release()
    return {frame.labels(row)[name] for row in range(len(frame))}


def test_a_query_is_charged_for_what_is_left_and_nothing_else(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, [*rows(ALICE, *range(1000)), *rows(BOB, *range(1000))]))
        await maintenance.delete(of("alice"), NOON, NOON + 499)
        masked = _charged(store)
        await maintenance.clean_tombstones()
        assert masked == _charged(store), "as if the deleted samples had never been"
        assert masked[0] == 1500

    life(data, work)


def _charged(store: Store) -> tuple[int, int]:
    """Samples and bytes that selecting everything and listing series leave charged."""
    snapshot, release = store.snapshot()
    budget, source = Budget(Limits()), snapshot.open({})
    source.select([], *ALWAYS, budget)
    source.series([], NOON + 100, NOON + 600, budget)
    release()
    return budget.samples, budget.bytes


# ---- gone from the disk ---------------------------------------------------------------------------------------------


def test_after_cleaning_no_file_holds_a_label_value_that_only_deleted_series_had(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, [*rows(ALICE, 1, 2), *rows(BOB, 1)]))
        await flush(store, maintenance)
        await store.append(batch_of(store, [*rows(ALICE, 0, 3), *rows(BOB, 2)]))  # one of them late
        assert {name.partition("/")[0] for name in files_with(data, SECRET)} == {"blocks", "log"}
        await maintenance.delete(of("alice"), *ALWAYS)
        await store.append(batch_of(store, rows(BOB, 3)), [Metadata("visits", "counter", "How often they came.")])
        await maintenance.clean_tombstones()
        await maintenance.close()
        assert files_with(data, SECRET) == []
        assert store.state.tombstones == ()
        assert times_of(store, BOB) == [1, 2, 3]
        assert store.index.series == 1, "the index has forgotten alice"

    life(data, work)
    assert files_with(data, SECRET) == []
    assert files_with(data, b"user-bob-of-this-test") != [], "what is looked for would be found"
    (data / "catalog.sqlite").unlink()

    async def look(store: Store, maintenance: Maintenance) -> None:
        assert (times_of(store, ALICE), times_of(store, BOB)) == ([], [1, 2, 3])

    life(data, look)
    assert check_folder(data) == []


class _Held(InThread):
    """Gives what series have no data only when `go_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.looked, self.go_on = asyncio.Event(), asyncio.Event()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        result = await super().run(function, *arguments)
        if function is series_without_data:
            self.looked.set()
            await self.go_on.wait()
        return result


def test_a_series_whose_data_goes_while_others_are_looked_for_is_forgotten_the_next_time(data: Path) -> None:
    async def work() -> None:
        runner, carol = _Held(), key_of({"__name__": "visits"})
        async with opened(data, ManualClock(NOON), runner=runner) as (store, maintenance):
            await store.append(batch_of(store, [*rows(ALICE, 1), *rows(BOB, 1), *rows(carol, 1)]))
            await maintenance.delete(of("alice"), *ALWAYS)
            pruning = asyncio.ensure_future(maintenance.clean_tombstones())
            await runner.looked.wait()
            await maintenance.delete(of("bob"), *ALWAYS)
            while await maintenance.clean():
                pass
            runner.go_on.set()
            await pruning
            assert store.index.series == 2
            await maintenance.expire()
            assert store.index.series == 1

    asyncio.run(work())


def test_descriptions_behind_the_last_sample_do_not_keep_the_log(data: Path) -> None:
    entry = Metadata("visits", "counter", "How often they came.")

    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, rows(ALICE, 1)))
        await maintenance.delete(of("alice"), *ALWAYS)
        await store.append(batch_of(store, []), [entry])
        await maintenance.clean_tombstones()
        assert list(names.log_dir(data).iterdir()) == []
        await store.append(batch_of(store, rows(BOB, 1)))

    async def look(store: Store, maintenance: Maintenance) -> None:
        assert content(store) == {(BOB, NOON + 1): 1}
        assert store.metadata() == [entry]

    life(data, work)
    life(data, look)
    assert check_folder(data) == []


def test_a_block_that_loses_everything_goes_and_is_not_set_aside(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, rows(ALICE, 1, 2)))
        await maintenance.delete(of("alice"), *ALWAYS)
        store.snapshot()  # of a query that runs on, and keeps the file
        await maintenance.clean_tombstones()
        assert store.state.blocks == ()
        assert len(store.state.tombstones) == 1, "which tells what the file is, should the server be killed now"
        assert len(list(names.blocks_dir(data).iterdir())) == 1

    async def look(store: Store, maintenance: Maintenance) -> None:
        assert content(store) == {}
        assert store.state.damage == []
        assert list(names.blocks_dir(data).iterdir()) == []
        await maintenance.clean_tombstones()
        assert store.state.tombstones == ()

    life(data, work)
    life(data, look)
    assert check_folder(data) == []


def test_a_second_deletion_waits_while_a_query_keeps_the_block_from_before_the_first(data: Path) -> None:
    """Nothing would tell a start after a kill what that block was."""

    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, [*rows(ALICE, 1, 2), *rows(BOB, 1)]))
        await flush(store, maintenance)
        _, release = store.snapshot()
        await maintenance.delete(of("alice"), NOON, NOON + 1)
        await maintenance.clean_tombstones()
        assert len(list(names.blocks_dir(store.data).iterdir())) == 2
        assert len(store.state.tombstones) == 1, "for as long as not everything is off the disk"
        await maintenance.delete(of("alice"), *ALWAYS)
        await maintenance.clean_tombstones()
        assert len(list(names.blocks_dir(store.data).iterdir())) == 2
        assert content(store) == {(BOB, NOON + 1): 1}
        if not kill:
            release()
            await maintenance.clean_tombstones()
            assert store.state.tombstones == ()

    async def look(store: Store, maintenance: Maintenance) -> None:
        assert store.state.damage == []
        assert content(store) == {(BOB, NOON + 1): 1}
        await maintenance.clean_tombstones()
        assert store.state.tombstones == ()

    for kill in (True, False):
        life(data / str(kill), work)
        life(data / str(kill), look)
        assert check_folder(data / str(kill)) == []
        assert files_with(data / str(kill), SECRET) == []


def test_blocks_without_what_is_deleted_are_not_written_anew(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, rows(BOB, 1)))
        await flush(store, maintenance)
        await store.append(batch_of(store, [*rows(ALICE, 1, 100), *rows(BOB, 2)]))
        await flush(store, maintenance)
        before = {meta.id for meta in store.state.blocks}
        assert (await maintenance.delete(of("alice"), NOON + 10, NOON + 20)).series == 1
        await maintenance.clean_tombstones()
        assert {meta.id for meta in store.state.blocks} == before, "there was no sample between 1 and 100"
        assert store.state.tombstones == ()
        await maintenance.delete(of("alice"), NOON + 100, NOON + 100)
        await maintenance.clean_tombstones()
        assert len(before - {meta.id for meta in store.state.blocks}) == 1
        assert maintenance.deletions.counts.blocks_cleaned == 1
        assert maintenance.deletions.counts.samples_deleted == 1

    life(data, work)


def test_deletions_are_carried_out_by_themselves(data: Path) -> None:
    async def work() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock) as (store, maintenance):
            running = asyncio.ensure_future(maintenance.run())
            await store.append(batch_of(store, [*rows(ALICE, 1), *rows(BOB, 1)]))
            await maintenance.delete(of("alice"), *ALWAYS)
            while store.state.tombstones:
                await clock.advance(60)
                await asyncio.wait([running], timeout=0.01)
            assert files_with(data, SECRET) == []
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(work())


# ---- never back -----------------------------------------------------------------------------------------------------


def test_a_compaction_under_way_does_not_bring_deleted_samples_back(data: Path) -> None:
    """It has read the samples before they were deleted, and its block has later commits than the deletion means."""

    async def work(store: Store, maintenance: Maintenance) -> None:
        for number in range(4):
            await store.append(batch_of(store, [*rows(ALICE, number), *rows(BOB, number)]))
            await flush(store, maintenance)
        written, go_on, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

        def hold() -> None:
            loop.call_soon_threadsafe(written.set)
            go_on.wait()

        with failpoints.armed("compact.after_write", hold):
            compacting = asyncio.ensure_future(maintenance.compact())
            await written.wait()
            await maintenance.delete(of("alice"), NOON, NOON + 2)
            await store.append(batch_of(store, rows(ALICE, 0)))
            go_on.set()
            assert not await compacting, "what it wrote is of no use"
        assert times_of(store, ALICE) == [0, 3]
        await maintenance.clean_tombstones()
        while await maintenance.compact():
            pass
        assert times_of(store, ALICE) == [0, 3]
        await maintenance.compact_fully()
        assert times_of(store, ALICE) == [0, 3]

    life(data, work)
    assert check_folder(data) == []


def test_a_query_keeps_what_it_sees_while_samples_are_deleted_and_cleaned(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, [*rows(ALICE, 1), *rows(BOB, 1)]))
        await flush(store, maintenance)
        before, release = store.snapshot()
        await maintenance.delete(of("alice"), *ALWAYS)
        after, release_after = store.snapshot()
        await maintenance.clean_tombstones()
        assert len(content_of(before)) == 2, "it began before the deletion"
        assert len(content_of(after)) == 1
        assert files_with(data, SECRET) != []
        release()
        release_after()
        await maintenance.clean_tombstones()
        await maintenance.close()
        assert files_with(data, SECRET) == []

    life(data, work)


def test_deleting_beside_ingest_is_the_same_after_a_restart(data: Path) -> None:
    """Samples that are acknowledged while a deletion runs go or stay, and that is not undone."""
    found = {}

    async def work(store: Store, maintenance: Maintenance) -> None:
        acknowledged: list[int] = []
        under_way = asyncio.Event()

        async def ingest() -> None:
            for number in range(400):
                await store.append(batch_of(store, [*rows(ALICE, number), *rows(BOB, number)]))
                acknowledged.append(number)
                if number == 100:
                    under_way.set()

        writing = asyncio.ensure_future(ingest())
        await under_way.wait()
        for _ in range(3):
            surely_gone = len(acknowledged)
            await maintenance.delete(of("alice"), *ALWAYS)
            seen = times_of(store, ALICE)
            assert not [time for time in seen if time < surely_gone]
            await maintenance.clean()
        surely_there = set(range(len(acknowledged) + 1, 400))
        await writing
        found["alice"] = times_of(store, ALICE)
        assert surely_there <= set(found["alice"])
        assert times_of(store, BOB) == list(range(400))

    async def look(store: Store, maintenance: Maintenance) -> None:
        assert times_of(store, ALICE) == found["alice"]
        assert times_of(store, BOB) == list(range(400))

    life(data, work)
    life(data, look)
    asyncio.run(compact_folder(data))
    life(data, look)
    assert check_folder(data) == []


def test_a_lost_catalog_loses_what_was_not_carried_out_and_says_so(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, rows(ALICE, 1)))
        await maintenance.delete(of("alice"), *ALWAYS)

    async def look(store: Store, maintenance: Maintenance) -> None:
        assert times_of(store, ALICE) == [1]
        (damage,) = store.state.damage
        assert "deletions that were not carried out yet are lost" in damage.what

    life(data, work)
    (data / "catalog.sqlite").write_bytes(b"nothing of the kind" * 100)
    life(data, look)


def test_a_lost_catalog_does_not_undo_what_was_carried_out(data: Path) -> None:
    """Also when the block from before is still there: its successor lists a tombstone that it does not."""

    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, [*rows(ALICE, 1), *rows(BOB, 1)]))
        await maintenance.delete(of("alice"), *ALWAYS)
        store.snapshot()
        await maintenance.clean_tombstones()
        assert len(list(names.blocks_dir(data).iterdir())) == 2

    life(data, work)
    (data / "catalog.sqlite").unlink()
    life(data, lambda store, maintenance: _holds(store, {(BOB, NOON + 1): 1}))
    assert check_folder(data) == []


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_deleting_nothing_changes_nothing(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, rows(BOB, 1)))
        await flush(store, maintenance)
        before = store.state.blocks
        for matchers, start, end in (
            (of("alice"), *ALWAYS),
            (of("bob"), NOON + 2, NOON + 3),
            (of("bob"), NOON + 1, NOON),
            ([], *ALWAYS),
        ):
            assert (await maintenance.delete(matchers, start, end)).series == 0
        with pytest.raises(BadInput, match="regular expression"):
            await maintenance.delete(users("("), *ALWAYS)
        assert (store.state.tombstones, store.state.blocks) == ((), before)
        assert maintenance.deletions.counts.deletions == 0

    life(data, work)


def test_deleting_the_same_again_adds_nothing(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, rows(ALICE, 1, 2)))
        assert (await maintenance.delete(of("alice"), *ALWAYS)).series == 1
        assert (await maintenance.delete(of("alice"), NOON, NOON + 5)).series == 0
        await store.append(batch_of(store, rows(ALICE, 1)))
        assert (await maintenance.delete(of("alice"), *ALWAYS)).series == 1, "what came since"
        assert times_of(store, ALICE) == []

    life(data, work)


def test_deleting_everything(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        for day in range(3):
            await store.append(batch_of(store, [*rows(ALICE, -day * DAY_MS), *rows(BOB, -day * DAY_MS)]))
            await flush(store, maintenance)
        assert (await maintenance.delete(users(".*"), *ALWAYS)).series == 2
        assert content(store) == {}
        assert series_in(store) == set()
        await maintenance.clean_tombstones()
        await maintenance.close()
        assert store.state.blocks == ()
        assert list(names.blocks_dir(data).iterdir()) == []
        assert store.index.series == 0
        await store.append(batch_of(store, rows(ALICE, 1)))
        assert times_of(store, ALICE) == [1]

    life(data, work)
    assert check_folder(data) == []


def test_a_read_only_store_deletes_nothing_and_says_why(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, rows(ALICE, 1)))
        store.refuse(ReadOnly("the disk is full"))
        with pytest.raises(ReadOnly, match="nothing was deleted: the disk is full") as refused:
            await maintenance.delete(of("alice"), *ALWAYS)
        assert refused.value.status == 503
        assert times_of(store, ALICE) == [1]
        store.accept()
        await maintenance.delete(of("alice"), *ALWAYS)
        assert times_of(store, ALICE) == []

    life(data, work)


def test_too_many_that_wait_are_refused_until_some_are_carried_out(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "MAX_PENDING", 3)

    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, rows(ALICE, *range(9))))
        for number in range(3):
            await maintenance.delete(of("alice"), NOON + number, NOON + number)
        with pytest.raises(Overloaded, match="3 deletions of 3 series wait") as refused:
            await maintenance.delete(of("alice"), NOON + 3, NOON + 3)
        assert refused.value.retry_after
        assert maintenance.deletions.counts.deletions_refused == 1
        await maintenance.clean_tombstones()
        await maintenance.delete(of("alice"), NOON + 3, NOON + 3)
        assert times_of(store, ALICE) == [4, 5, 6, 7, 8]

    life(data, work)


def test_a_deletion_that_the_disk_refuses_is_made_later_or_not_at_all(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, rows(ALICE, 1)))
        await flush(store, maintenance)
        with failpoints.armed("catalog.apply.before_commit", "enospc"), pytest.raises(StorageError):
            await maintenance.delete(of("alice"), *ALWAYS)
        assert times_of(store, ALICE) == [1]
        await store.append(batch_of(store, rows(ALICE, 2)))
        await maintenance.clean()
        assert times_of(store, ALICE) == [2], "what was begun is finished, and means what was there then"

    life(data, work)


def test_damage_on_the_way_is_set_aside_and_the_rest_is_cleaned(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        for day in range(2):
            await store.append(batch_of(store, [*rows(ALICE, -day * DAY_MS), *rows(BOB, -day * DAY_MS)]))
            await flush(store, maintenance)
        await maintenance.delete(of("alice"), *ALWAYS)
        samples = names.samples_file(names.block_dir(data, store.state.blocks[0].id))
        raw = bytearray(samples.read_bytes())
        raw[20] ^= 0xFF
        samples.write_bytes(raw)
        await maintenance.clean_tombstones()
        assert len(store.state.damage) == 1
        assert store.state.tombstones == ()
        assert len(content(store)) == 1
        series = names.series_file(names.block_dir(data, store.state.blocks[0].id))
        series.write_bytes(b"")
        with pytest.raises(Corrupt):
            await maintenance.delete(of("bob"), *ALWAYS)

    life(data, work)


# ---- a folder that no server holds ----------------------------------------------------------------------------------


def test_a_folder_without_a_server(data: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        await store.append(batch_of(store, [*rows(ALICE, 1, 2), *rows(BOB, 1)]))

    life(data, work)
    deleted, samples = asyncio.run(delete_in_folder(data, [*of("alice"), *of("carol")], NOON, NOON + 1))
    assert (deleted.series, samples) == (1, 1)
    assert len(_content_of(data)) == 2
    asyncio.run(delete_in_folder(data, of("alice"), *ALWAYS))
    assert _content_of(data) == {(BOB, NOON + 1): 1}
    assert files_with(data, SECRET) == []
    assert check_folder(data) == []


def _content_of(data: Path) -> dict[tuple[bytes, int], int]:
    with open_folder(data) as (snapshot, _):
        return content_of(snapshot)
