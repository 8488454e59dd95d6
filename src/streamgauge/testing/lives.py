"""A store through a life that reaches every failpoint, with a record of what was acknowledged on the way."""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from streamgauge.clock import ManualClock
from streamgauge.errors import ReadOnly, StorageError, SyncFailed
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.event_source import EventRange
from streamgauge.model.labels import key_of, labels_of
from streamgauge.model.source import Matcher, MatchOp, NoMeter
from streamgauge.store import failpoints, names
from streamgauge.store.catalog import SqliteCatalog
from streamgauge.store.folder_snapshot import FolderSnapshots
from streamgauge.store.helper import InThread, Runner
from streamgauge.store.lock import acquire
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.ports import DAY_MS, FIRST_TIME, LAST_TIME
from streamgauge.store.resolutions import Tier, thinned_through
from streamgauge.store.shm_names import store_prefix
from streamgauge.store.snapshot import StoreSnapshot, StoreSource
from streamgauge.store.store import Store, StoreSettings

NOON = 1_700_000_000_000 // DAY_MS * DAY_MS + DAY_MS // 2
RETENTION = 2 * DAY_MS
TIERS = (Tier(300_000, 3 * DAY_MS), Tier(3_600_000, 4 * DAY_MS))

Row = tuple[bytes, int, int]
"""Key, time in ms, and the bits of the value."""
Rows = dict[tuple[bytes, int], int]
"""The bits of the value by key and time."""


@asynccontextmanager
async def opened(
    data: Path,
    clock: ManualClock,
    retention: int = 0,
    runner: Runner | None = None,
    retention_bytes: int = 0,
    tiers: tuple[Tier, ...] = (),
    head_events: int = 131_072,
) -> AsyncIterator[tuple[Store, Maintenance]]:
    """A store on its own, its folder locked."""
    runner = runner or InThread()
    settings = StoreSettings(
        retention=retention,
        event_retention=retention,
        retention_bytes=retention_bytes,
        tiers=tiers,
        head_events=head_events,
        min_free_bytes=0,
    )
    with acquire(data):
        async with open_store(data, settings, clock, runner, runner, Progress()) as both:
            yield both


def shared_memory_of(data: Path) -> list[Path]:
    """What there is of a folder's in /dev/shm, whoever left it there."""
    catalog = SqliteCatalog.open(data, writable=False)
    catalog.close()
    return sorted(Path("/dev/shm").glob(f"{store_prefix(catalog.load().store_id)}*"))


def batch_of(store: Store, rows: Iterable[Row]) -> SampleBatch:
    """Rows as a batch of the store's."""
    listed = list(rows)
    return SampleBatch(
        np.array([store.resolve(key) for key, _, _ in listed], np.uint32),
        np.array([time for _, time, _ in listed], np.int64),
        np.array([bits for _, _, bits in listed], np.int64).view(np.float64),
    )


def content_of(snapshot: StoreSnapshot, kept: MutableMapping[str, object] | None = None) -> Rows:
    """All samples as they came, as a query sees them. `kept` is what a query worker keeps between queries."""
    source = snapshot.open({} if kept is None else kept)
    selection = source.select([], thinned_through(snapshot.blocks), LAST_TIME, NoMeter())
    offsets, times, values = selection.samples.offsets, selection.samples.times, selection.samples.values
    found: Rows = {}
    for row in range(len(selection.labels)):
        key = key_of(selection.labels.labels(row))
        part = slice(offsets[row], offsets[row + 1])
        assert (np.diff(times[part]) > 0).all(), "times ascend strictly: nothing is doubled"
        found |= {(key, int(t)): int(v) for t, v in zip(times[part], values[part].view(np.int64), strict=True)}
    return found | _events_of(source)


EVENT = b"\x00event"
"""Stands for the key of an event. Its index is its time, after noon, and a checksum its value."""


def _row_of(index: int, text: str) -> Row:
    return EVENT, NOON + index, zlib.crc32(json.dumps(json.loads(text)).encode())


def _events_of(source: StoreSource) -> Rows:
    found: Rows = {}
    for batch in source.events().payloads(EventRange()):
        for _, index, _, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            key, time, value = _row_of(index, text)
            assert (key, time) not in found, "no event is there twice"
            found[key, time] = value
    return found


def content(store: Store, kept: MutableMapping[str, object] | None = None) -> Rows:
    """Everything that the store holds now."""
    snapshot, release = store.snapshot()
    try:
        return content_of(snapshot, kept)
    finally:
        release()


@dataclass
class Diary:
    """What was tried and what was acknowledged. Kept in a file, so that it outlives the process that writes it."""

    path: Path

    def tries(self, rows: Iterable[Row]) -> None:
        self._write({"rows": [[key.hex(), time, bits] for key, time, bits in rows]})

    def acknowledged(self) -> None:
        self._write({"acknowledged": True})

    def deletes(self, keys: Iterable[bytes], start: int, end: int) -> None:
        self._write({"deleted": [key.hex() for key in keys], "start": start, "end": end})

    def expires(self, before: int) -> None:
        self._write({"expired": before})

    def _write(self, entry: dict[str, object]) -> None:
        with self.path.open("ab") as file:
            os.write(file.fileno(), json.dumps(entry).encode() + b"\n")

    def allows(self, found: Rows) -> list[str]:
        """What is wrong with the content of a store that this was done to. An append or a deletion that was not
        acknowledged may have happened or not; what is past its retention may be there or not."""
        possible: dict[tuple[bytes, int], list[int | None]] = {}
        tried: list[tuple[tuple[bytes, int], int | None]] = []
        expired = FIRST_TIME
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            entry = json.loads(line)
            if "rows" in entry:
                tried = [((bytes.fromhex(key), time), bits) for key, time, bits in entry["rows"]]
                for at, bits in tried:
                    possible.setdefault(at, [None]).append(bits)
            elif "deleted" in entry:
                keys = {bytes.fromhex(key) for key in entry["deleted"]}
                tried = [(at, None) for at in possible if at[0] in keys and entry["start"] <= at[1] <= entry["end"]]
                for at, _ in tried:
                    possible[at].append(None)
            elif "acknowledged" in entry:
                possible |= {at: [bits] for at, bits in tried}
            else:
                expired = entry["expired"]
        wrong = [f"{at} was never written" for at in found if at not in possible]
        for at, values in possible.items():
            if found.get(at) not in values and not (at not in found and at[1] < expired):
                wrong.append(f"{at} is {found.get(at)}, not one of {values}")
        return wrong


KEYS = [key_of({"__name__": "up", "job": job}) for job in "abc"] + [key_of({"café": "ü"})]


@dataclass
class Life:
    """Appends, flushes, deletions, compactions, snapshots and retention by age and size on one folder, over two starts.

    `stops_at`: a failpoint that somebody has armed, which this is not to use. Whatever the disk refuses on the way is
    tried again once the store has recovered by itself, as writers and the server would.
    """

    data: Path
    diary: Diary
    runner: Runner
    stops_at: str = ""
    refused: int = 0  # steps that failed

    def run(self) -> None:
        clock = ManualClock(NOON)
        self._again(lambda: self._first(clock))
        self._tear_the_log()
        self._again(lambda: self._second(clock))

    def _again(self, start: Callable[[], Awaitable[None]]) -> None:
        """A start that fails says so, and the next one succeeds."""
        try:
            asyncio.run(_awaited(start()))
        except StorageError:
            self.refused += 1
            asyncio.run(_awaited(start()))

    async def _first(self, clock: ManualClock) -> None:
        async with opened(self.data, clock, RETENTION, self.runner) as (store, maintenance):
            for number in range(5):
                rows = [(key, NOON + number * 1000 + at, number * 10 + at) for key in KEYS[:3] for at in range(3)]
                await self._append(store, maintenance, rows)
                if number == 2:
                    await self._fail_once(store, maintenance)
                store.head.seal()
                await self._step(maintenance, lambda: maintenance.flush(1 << 20))
                await self._append_events(store, maintenance, number + 1)
                await self._step(maintenance, lambda: maintenance.events.flush(everything=True))
            while await self._step(maintenance, maintenance.events.compact):
                pass
            late = [(KEYS[0], NOON + 1001, 99), (KEYS[3], NOON - DAY_MS, 5), (KEYS[0], NOON - DAY_MS, 6)]
            await self._append(store, maintenance, late)
            store.head.seal()
            await self._step(maintenance, lambda: maintenance.flush(1 << 20))
            while await self._step(maintenance, maintenance.compact):
                pass
            await self._snapshot(maintenance, clock, skip_head=True)
            await self._delete(maintenance, KEYS[:1], NOON + 1000, NOON + 2001)
            await self._append(store, maintenance, [(KEYS[0], NOON + 1001, 98)])
            while await self._step(maintenance, maintenance.clean):
                await maintenance.close()
            await self._append(store, maintenance, [(KEYS[0], NOON + 9000, 1)])

    async def _second(self, clock: ManualClock) -> None:
        async with opened(self.data, clock, RETENTION, self.runner, tiers=TIERS) as (store, maintenance):
            await self._append(store, maintenance, [(KEYS[1], NOON + 9000, 2)])
            await self._append_events(store, maintenance, 2)
            await clock.advance(1.6 * DAY_MS / 1000)
            await self._delete(maintenance, KEYS[3:], NOON - 2 * DAY_MS, NOON)  # which empties a block
            await self._delete(maintenance, KEYS[1:2], NOON, NOON + 1001)
            while await self._step(maintenance, maintenance.clean):
                await maintenance.close()
            self.diary.expires(store.oldest_kept(clock.now_ms()))
            for tiers in (TIERS, TIERS[1:], ()):  # the first day is thinned, then more so, and then it goes
                store.keep_for(RETENTION, tiers=tiers)
                while await self._step(maintenance, maintenance.expire):
                    await maintenance.close()
            await self._append(store, maintenance, [(key, clock.now_ms(), 7) for key in KEYS])
            store.head.seal()
            await self._step(maintenance, lambda: maintenance.flush(1 << 20))
            await self._step(maintenance, maintenance.compact)
            await self._snapshot(maintenance, clock)
            store.keep_for(0, retention_bytes=1)
            self.diary.expires(max(store.state.blocks, key=lambda meta: meta.max_time).min_time)
            await self._step(maintenance, maintenance.expire)
            await maintenance.close()

    async def _snapshot(self, maintenance: Maintenance, clock: ManualClock, skip_head: bool = False) -> None:
        snapshots = FolderSnapshots(maintenance, self.data, clock)

        async def take() -> bool:
            return bool(await snapshots.take(skip_head))

        await self._step(maintenance, take)

    async def _append(self, store: Store, maintenance: Maintenance, rows: list[Row]) -> None:
        self.diary.tries(rows)
        for _ in range(3):
            try:
                await store.append(batch_of(store, rows), (Metadata("up", "gauge", f"help of {len(rows)}"),))
                self.diary.acknowledged()
                return
            except (ReadOnly, SyncFailed):
                self.refused += 1
                await maintenance.check_disk()
        raise AssertionError("the store does not recover")

    async def _append_events(self, store: Store, maintenance: Maintenance, count: int) -> None:
        """Of a stream with a name: one that failed may have happened or not, and coming again changes nothing."""
        stream, first = store.events.resume_stream("life", "http", "{}")
        texts = [json.dumps({"n": index, "even": [None, "yes"][index % 2]}) for index in range(first, first + count)]
        self.diary.tries(_row_of(index, text) for index, text in enumerate(texts, first))
        for _ in range(3):
            try:
                await store.events.append_events(
                    stream, first, pa.array([text.encode() for text in texts], pa.binary())
                )
                self.diary.acknowledged()
                return
            except (ReadOnly, SyncFailed):
                self.refused += 1
                await maintenance.check_disk()
        raise AssertionError("the store does not recover")

    async def _delete(self, maintenance: Maintenance, keys: list[bytes], start: int, end: int) -> None:
        sets = [[Matcher(*pair) for pair in _matched(key)] for key in keys]

        async def delete() -> bool:
            return (await maintenance.delete(sets, start, end)).series > 0

        self.diary.deletes(keys, start, end)
        await self._step(maintenance, delete)
        self.diary.acknowledged()

    async def _step(self, maintenance: Maintenance, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await step()
        except StorageError:
            self.refused += 1
            return await step()

    async def _fail_once(self, store: Store, maintenance: Maintenance) -> None:
        """An append that fails, so that the log goes on in another segment and the first can be trimmed."""
        point = "log.append.before_sync" if self.stops_at != "log.append.before_sync" else "log.append.before_write"
        rows = [(KEYS[0], NOON + 500, 55)]
        self.diary.tries(rows)
        with failpoints.armed(point, "eio"), suppress(ReadOnly, SyncFailed):
            await store.append(batch_of(store, rows))
        await maintenance.check_disk()

    def _tear_the_log(self) -> None:
        segments = sorted(names.log_dir(self.data).glob("*.log"))
        if segments:
            with segments[-1].open("ab") as file:
                file.write(b"a record that was not written to its end")


def _matched(key: bytes) -> list[tuple[str, MatchOp, str]]:
    return [(name, MatchOp.EQUAL, value) for name, value in labels_of(key).items()]


async def _awaited(work: Awaitable[None]) -> None:
    await work
