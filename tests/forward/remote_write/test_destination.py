"""Sending on from a real store to a real socket: everything arrives, whatever happens to either side."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.forward.remote_write.destination import LOOK_SECONDS, RETRY_SECONDS
from streamgauge.forward.remote_write.manager import RemoteWriteManager
from streamgauge.forward.remote_write.target import MetadataPolicy, Protocol, QueuePolicy, RemoteWriteTarget
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.batch import Metadata
from streamgauge.model.labels import key_of, labels_of
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.relabel import Action, Rule
from streamgauge.stats import Stats
from streamgauge.store.feed import StoreSampleFeed
from streamgauge.store.names import block_dir, remote_write_file, samples_file
from streamgauge.store.ports import DAY_MS
from streamgauge.store.store import Store
from streamgauge.testing.lives import NOON, Row, batch_of, opened
from streamgauge.testing.receiver import Receiver
from streamgauge.testing.target import HttpTarget, http_target
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

SMALL = QueuePolicy(capacity=20, max_shards=3, max_samples_per_send=7, batch_send_deadline=1000)
"""60 samples in memory."""
REFUSE = ("503 Service Unavailable", {})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def serving(receiver: Receiver) -> AsyncIterator[HttpTarget]:
    async with http_target() as target:
        target.reply = receiver
        yield target


class Sending:
    """A manager at work, and the numbers that it keeps."""

    def __init__(self, manager: RemoteWriteManager, stats: Stats, clock: ManualClock) -> None:
        self.manager = manager
        self._stats = stats
        self._clock = clock

    def number(self, name: str, labels: str = "") -> float:
        lines = self._stats.exposition().decode().splitlines()
        start = f"streamgauge_remote_write_{name}{{{labels}"
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    async def follows(self) -> None:
        """Until every destination has sent what was stored."""
        found = self.manager.destinations
        await until(lambda: found and all(each.caught_up and not each.pending for each in found.values()))

    async def reach(self, condition: Callable[[], object], seconds: float = 1.0) -> None:
        """Let time pass until it holds."""

        def moved() -> object:
            self._moving = self._moving or asyncio.ensure_future(self._clock.advance(seconds))
            if self._moving.done():
                self._moving = None
            return condition()

        self._moving: asyncio.Future[None] | None = None
        await until(moved)
        if self._moving is not None:
            await self._moving


@asynccontextmanager
async def sending(
    store: Store, data: Path, clock: ManualClock, targets: Iterable[RemoteWriteTarget]
) -> AsyncIterator[Sending]:
    stats = Stats()
    position = partial(remote_write_file, data)
    manager = RemoteWriteManager(StoreSampleFeed(store), store.listen, position, clock, stats)
    stats.watch(manager.readings)
    manager.apply(list(targets))
    work = asyncio.create_task(manager.run())
    try:
        yield Sending(manager, stats, clock)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def target_of(serving: HttpTarget, protocol: Protocol = Protocol.V1) -> RemoteWriteTarget:
    return RemoteWriteTarget("out", serving.url("/write"), protocol=protocol, queue=SMALL, metadata=MetadataPolicy(0))


def rows(numbers: Iterable[int], series: int = 5) -> list[Row]:
    """One sample of each of some series at each number's time."""
    return [
        (key_of({"__name__": "m", "i": str(each)}), NOON + 1000 * number, STALE_BITS if number == 3 else number + 1)
        for number in numbers
        for each in range(series)
    ]


def noted(position: Path) -> int:
    """The commit up to which all is sent, as a restart will read it."""
    with closing(sqlite3.connect(position)) as connection:
        return int(connection.execute("SELECT through FROM position").fetchone()[0])


async def append(store: Store, some: Iterable[Row]) -> list[Row]:
    listed = list(some)
    await store.append(batch_of(store, listed))
    return listed


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_what_is_stored_is_sent_once_and_in_order(
    tmp_path: Path, serving: HttpTarget, receiver: Receiver, protocol: Protocol
) -> None:
    clock = ManualClock(NOON)
    async with opened(tmp_path, clock) as (store, _):
        await append(store, rows([0]))  # before the destination is configured
        async with sending(store, tmp_path, clock, [target_of(serving, protocol)]) as out:
            await out.follows()
            sent = [*await append(store, rows(range(1, 4))), *await append(store, rows([10, 4]))]
            await out.reach(lambda: out.number("samples_total") == len(sent))
            assert out.number("highest_sent_timestamp_seconds") == (NOON + 10_000) / 1000
            assert out.number("samples_pending") == 0
    assert sorted(receiver.rows) == sorted(sent)
    assert max(receiver.sizes) <= SMALL.max_samples_per_send


async def test_a_few_samples_wait_for_more_until_the_deadline(
    tmp_path: Path, serving: HttpTarget, receiver: Receiver
) -> None:
    clock = ManualClock(NOON)
    async with opened(tmp_path, clock) as (store, _), sending(store, tmp_path, clock, [target_of(serving)]) as out:
        await out.follows()
        for number in range(3):
            await append(store, rows([number], series=2))
            await clock.advance(0.3)
        assert not receiver.requests
        await append(store, rows([3], series=2))
        await until(lambda: len(receiver.rows) == 8)
        assert clock.monotonic() < 1.0
        await append(store, rows([4], series=2))
        await out.reach(lambda: len(receiver.rows) == 10)


async def test_an_outage_costs_neither_a_sample_nor_memory_nor_anybody_time(
    tmp_path: Path, serving: HttpTarget, receiver: Receiver
) -> None:
    """Flushes, merges and a deletion happen meanwhile."""
    clock = ManualClock(NOON)
    async with (
        opened(tmp_path, clock) as (store, maintenance),
        sending(store, tmp_path, clock, [target_of(serving)]) as out,
    ):
        await out.follows()
        sent = await append(store, rows(range(3)))
        await out.reach(lambda: out.number("samples_total") == 15)
        receiver.respond = lambda request: None  # it takes the request and is silent
        for turn in range(1, 6):
            sent += await append(store, rows(range(10 * turn, 10 * turn + 10)))
            if turn < 5:
                await maintenance.flush_all()
            if turn == 3:
                await maintenance.compact_fully()
        assert out.number("samples_pending") >= 250
        assert out.number("samples_in_memory") <= 60 + 50, "of which a commit is on its way"
        only = [Matcher("i", MatchOp.EQUAL, "2")]
        await maintenance.delete([only], NOON + 30_000, NOON + 34_000)
        receiver.respond = lambda request: REFUSE
        out.manager.apply([replace(target_of(serving), timeout=1)])
        await out.reach(lambda: out.number("samples_retried_total") > 0)
        receiver.respond = Receiver().respond
        out.manager.apply([target_of(serving)])
        gone = {row for row in sent if labels_of(row[0])["i"] == "2" and NOON + 30_000 <= row[1] <= NOON + 34_000}
        await out.reach(lambda: receiver.distinct >= set(sent) - gone)
        await out.reach(lambda: out.number("samples_pending") == 0)
        sent += await append(store, rows([100]))
        await out.reach(lambda: receiver.distinct >= set(sent) - gone)
        assert out.number("samples_dropped_total") == 0
    assert receiver.distinct - set(sent) == set()
    assert gone - receiver.distinct, "what was deleted before it was sent stays here"


async def test_a_restart_goes_on_where_it_was(tmp_path: Path, serving: HttpTarget, receiver: Receiver) -> None:
    clock = ManualClock(NOON)
    sent: list[Row] = []
    for life in range(3):
        async with opened(tmp_path, clock) as (store, maintenance):
            sent += await append(store, rows(range(100 * life, 100 * life + 9))) if life else []
            async with sending(store, tmp_path, clock, [target_of(serving)]) as out:
                await out.follows()
                sent += await append(store, rows([100 * life + 50]))
                await out.reach(partial(receiver.has, sent))
            if life == 1:
                sent += await append(store, rows([160]))
                await maintenance.flush_all()
    assert receiver.distinct == set(sent)
    assert receiver.repeated <= 60 + 5, "of a block from both sides of the position, and what was not noted"


async def test_a_crash_sends_again_what_was_not_noted(tmp_path: Path, serving: HttpTarget, receiver: Receiver) -> None:
    clock = ManualClock(NOON)
    position = remote_write_file(tmp_path, "out")
    async with opened(tmp_path, clock) as (store, _):
        async with sending(store, tmp_path, clock, [target_of(serving)]) as out:
            await out.follows()
            first = await append(store, rows(range(8)))
            await out.reach(lambda: receiver.distinct >= set(first))
            await out.reach(lambda: noted(position) == store.state.commit)
        kept = position.read_bytes()
        async with sending(store, tmp_path, clock, [target_of(serving)]) as out:
            await out.follows()
            second = await append(store, rows(range(8, 16)))
            await out.reach(lambda: receiver.distinct >= set(second))
        position.write_bytes(kept)
        receiver.rows.clear()
        async with sending(store, tmp_path, clock, [target_of(serving)]) as out:
            await out.reach(lambda: receiver.distinct >= set(second))
            assert receiver.distinct == set(second), "and nothing that was noted"


async def test_what_retention_took_is_counted(tmp_path: Path, serving: HttpTarget, receiver: Receiver) -> None:
    clock = ManualClock(NOON)
    patient = replace(target_of(serving), queue=replace(SMALL, max_backoff=600_000))
    async with (
        opened(tmp_path, clock, retention=DAY_MS) as (store, maintenance),
        sending(store, tmp_path, clock, [patient]) as out,
    ):
        await out.follows()
        receiver.respond = lambda request: REFUSE
        for start in (0, 20):
            await append(store, rows(range(start, start + 20)))
            await maintenance.flush_all()
            await out.reach(lambda: out.number("samples_retried_total") > 0)  # of the first; the second waits
        await clock.advance(2 * LOOK_SECONDS)
        clock.jump(3 * DAY_MS)
        while store.state.blocks:
            await clock.advance(3600)
            await maintenance.expire()
        await out.reach(lambda: out.number("samples_dropped_total", 'reason="removed"') >= 100)
        receiver.respond = Receiver().respond
        later = [(key, time + 3 * DAY_MS, value) for key, time, value in rows(range(50, 53))]
        await append(store, later)
        await out.reach(partial(receiver.has, later), 200)


async def test_what_is_refused_is_dropped_and_what_is_too_much_waits(
    tmp_path: Path, serving: HttpTarget, receiver: Receiver
) -> None:
    clock = ManualClock(NOON)
    async with opened(tmp_path, clock) as (store, _), sending(store, tmp_path, clock, [target_of(serving)]) as out:
        await out.follows()
        receiver.respond = lambda request: ("400 Bad Request", {})
        await append(store, rows(range(4)))
        await out.reach(lambda: out.number("samples_failed_total") == 20)
        assert out.number("samples_retried_total") == 0
        receiver.respond = lambda request: ("429 Too Many Requests", {"retry-after": "7"})
        before = len(receiver.requests)
        sent = await append(store, rows([5], series=7))
        await until(lambda: out.number("samples_retried_total") == 7)
        receiver.respond = Receiver().respond
        await clock.advance(6.9)
        assert len(receiver.requests) == before + 1
        await clock.advance(0.2)
        await until(lambda: receiver.distinct == set(sent))
        out.manager.apply([replace(target_of(serving), queue=replace(SMALL, retry_on_429=False))])
        receiver.respond = lambda request: ("429 Too Many Requests", {})
        await until(lambda: not next(iter(out.manager.destinations.values())).target.queue.retry_on_429)
        await out.follows()
        await append(store, rows([6], series=7))
        await out.reach(lambda: out.number("samples_failed_total") >= 27)


async def test_samples_that_waited_too_long_are_left_out(
    tmp_path: Path, serving: HttpTarget, receiver: Receiver
) -> None:
    clock = ManualClock(NOON)
    policy = replace(SMALL, sample_age_limit=60_000, max_backoff=5000)
    async with (
        opened(tmp_path, clock) as (store, _),
        sending(store, tmp_path, clock, [replace(target_of(serving), queue=policy)]) as out,
    ):
        await out.follows()
        receiver.respond = lambda request: REFUSE
        old, new = rows([0]), rows([30])
        await append(store, old + new)
        await out.reach(lambda: out.number("samples_dropped_total", 'reason="too_old"') >= 5, 20)
        clock.jump(NOON + 70_000 - clock.now_ms())
        receiver.respond = Receiver().respond
        await out.reach(lambda: out.number("samples_pending") == 0)
    assert receiver.distinct <= set(new)


async def test_labels_are_added_and_rewritten_before_they_leave(
    tmp_path: Path, serving: HttpTarget, receiver: Receiver
) -> None:
    clock = ManualClock(NOON)
    rules = (
        Rule(Action.DROP, ("i",), regex="1|3"),
        Rule(Action.REPLACE, ("cluster", "i"), target_label="where", replacement="$1"),
        Rule(Action.LABELDROP, regex="i"),
    )
    changed = replace(target_of(serving), relabel=rules, external=(("cluster", "home"), ("__name__", "no")))
    async with opened(tmp_path, clock) as (store, _), sending(store, tmp_path, clock, [changed]) as out:
        await out.follows()
        await append(store, rows([1]))
        await out.reach(lambda: out.number("samples_total") == 3)
        assert out.number("samples_dropped_total", 'reason="relabelled"') == 2
    labels = [labels_of(key) for key, _, _ in sorted(receiver.rows)]
    assert labels == [{"__name__": "m", "cluster": "home", "where": f"home;{i}"} for i in (0, 2, 4)]


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_metadata_is_sent(tmp_path: Path, serving: HttpTarget, receiver: Receiver, protocol: Protocol) -> None:
    clock = ManualClock(NOON)
    described = Metadata("m", "gauge", "A number.", "seconds")
    async with opened(tmp_path, clock) as (store, _):
        await store.append(batch_of(store, rows([0])), [described])
        wanted = replace(target_of(serving, protocol), metadata=MetadataPolicy(5000))
        async with sending(store, tmp_path, clock, [wanted]) as out:
            await out.follows()
            await append(store, rows([1], series=7))
            await out.reach(lambda: receiver.metadata)
    assert receiver.metadata == {"m": described}


async def test_a_reload_changes_what_has_changed_and_nothing_else(
    tmp_path: Path, serving: HttpTarget, receiver: Receiver
) -> None:
    clock = ManualClock(NOON)
    first, second = target_of(serving), replace(target_of(serving), name="b/%", url=serving.url("/other"))
    async with opened(tmp_path, clock) as (store, _), sending(store, tmp_path, clock, [first]) as out:
        await out.follows()
        (kept,) = out.manager.destinations.values()
        out.manager.apply([first, second])
        await until(lambda: len(out.manager.destinations) == 2)
        await out.follows()
        assert out.manager.destinations["out"] is kept
        sent = await append(store, rows([1], series=7))
        await out.reach(lambda: len(receiver.rows) == 14)
        assert {request.target for request in receiver.requests} == {"/write", "/other"}
        out.manager.apply([second])
        await until(lambda: list(out.manager.destinations) == ["b/%"])
        sent += await append(store, rows([2], series=7))
        await out.reach(lambda: receiver.distinct == set(sent))
        assert len(receiver.rows) == 21


async def test_a_damaged_block_is_passed_over(tmp_path: Path, serving: HttpTarget, receiver: Receiver) -> None:
    clock = ManualClock(NOON)
    async with opened(tmp_path, clock) as (store, maintenance):
        async with sending(store, tmp_path, clock, [target_of(serving)]) as out:
            await out.follows()
        await append(store, rows(range(20)))
        await maintenance.flush_all()
        (meta,) = store.state.blocks
        file = samples_file(block_dir(tmp_path, meta.id))
        content = bytearray(file.read_bytes())
        content[30] ^= 0xFF
        file.write_bytes(content)
        async with sending(store, tmp_path, clock, [target_of(serving)]) as out:
            await out.reach(lambda: out.number("samples_dropped_total", 'reason="unreadable"') == 100, RETRY_SECONDS)
            sent = await append(store, rows([30], series=7))
            await out.reach(lambda: receiver.distinct == set(sent))
