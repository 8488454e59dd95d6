"""What happens to events at the same time: none is lost, none is there twice, none is acknowledged too early."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import Overloaded, StorageError, SyncFailed
from streamgauge.store.events.store import MAX_QUEUED_BYTES
from streamgauge.store.failpoints import armed
from streamgauge.store.helper import InThread
from streamgauge.store.jobs import run_flush
from streamgauge.testing.lives import NOON, batch_of, opened
from streamgauge.testing.stored_events import events_of, payloads

T = TypeVar("T")


class Held(InThread):
    """Keeps back the answer of a flush of samples."""

    def __init__(self) -> None:
        self.written, self.go = asyncio.Event(), asyncio.Event()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        result = await super().run(function, *arguments)
        if function is run_flush:
            self.written.set()
            await self.go.wait()
        return result


class Stop:
    """Holds up a thread at a failpoint, the first time. Everything goes on when the `with` ends."""

    def __init__(self, point: str, then: Callable[[], None] = lambda: None) -> None:
        self.reached, self._go, self._then = asyncio.Event(), threading.Event(), then
        self._loop = asyncio.get_running_loop()
        self._armed = armed(point, self._hold, 1, 1)

    def _hold(self) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        self._go.wait()
        self._then()

    def let_go(self) -> None:
        self._go.set()

    def __enter__(self) -> Stop:
        self._armed.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._go.set()
        self._armed.__exit__(None, None, None)


def fail() -> None:
    raise SyncFailed("the disk fails")


async def turns() -> None:
    """Let everything happen that can happen without a thread."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_flush_of_samples_does_not_undo_what_one_of_events_has_just_said(data: Path) -> None:
    async def write() -> None:
        runner = Held()
        async with opened(data, ManualClock(NOON), 0, runner) as (store, maintenance):
            stream = store.events.open_stream("http", "{}")
            await store.events.append_events(stream, 1, payloads("1", "2"))
            await store.append(batch_of(store, [(b"up\xff", NOON, 1)]))
            store.head.seal()
            of_samples = asyncio.ensure_future(maintenance.flush(1 << 20))
            await runner.written.wait()
            with Stop("flush.before_catalog") as stop:
                of_events = asyncio.ensure_future(maintenance.events.flush(everything=True))
                await stop.reached.wait()
                runner.go.set()
                await turns()  # the flush of samples waits for its turn now
                stop.let_go()
                await asyncio.gather(of_events, of_samples)

    async def read() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            assert events_of(store) == {(1, 1): "1", (1, 2): "2"}
            assert store.events.head.rows == 0

    asyncio.run(write())
    asyncio.run(read())


def test_what_is_queued_behind_events_that_fail_fails_with_them(data: Path) -> None:
    """Else a client that sends all of it again would have the later ones twice."""

    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            stream, _ = store.events.resume_stream("mine", "http", "{}")
            large = [f'"{letter * (9 << 20)}"' for letter in "abcd"]  # more than one group
            with armed("log.append.before_sync", "eio", 1, 1), pytest.raises(StorageError):
                await store.events.append_events(stream, 1, payloads(*large))
            await turns()
            await store.committer.run(lambda: None)
            assert events_of(store) == {}
            await maintenance.check_disk()
            assert store.events.resume_stream("mine", "http", "{}") == (stream, 1)
            assert await store.events.append_events(stream, 1, payloads(*large)) == 5
            assert list(events_of(store)) == [(1, 1), (1, 2), (1, 3), (1, 4)]

    asyncio.run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_events_that_come_again_are_not_acknowledged_before_they_are_on_disk(data: Path, fails: bool) -> None:
    """A client whose connection broke sends them on another while the first ones are still on their way."""

    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            stream, _ = store.events.resume_stream("mine", "http", "{}")
            with Stop("log.append.before_sync", fail if fails else lambda: None) as stop:
                first = asyncio.ensure_future(store.events.append_events(stream, 1, payloads("1", "2")))
                await stop.reached.wait()
                again = asyncio.ensure_future(store.events.append_events(stream, 1, payloads("1", "2")))
                await turns()
                assert not again.done()
                first.cancel()  # its client has gone
                await turns()
                assert not again.done()
                stop.let_go()
                if fails:
                    with pytest.raises(StorageError):
                        await again
                    assert events_of(store) == {}
                    await maintenance.check_disk()
                    again = asyncio.ensure_future(store.events.append_events(stream, 1, payloads("1", "2")))
                assert await again == 3
            assert events_of(store) == {(1, 1): "1", (1, 2): "2"}

    asyncio.run(main())


def test_a_large_event_waits_for_a_short_queue_only(data: Path) -> None:
    """It is woken though the queue was never half full."""

    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            stream = store.events.open_stream("http", "{}")
            huge = f'"{"x" * (MAX_QUEUED_BYTES - 1000)}"'
            with Stop("log.append.before_sync") as stop:
                several = [
                    asyncio.ensure_future(store.events.append_events(stream, 1, payloads(f'"{"y" * (30 << 20)}"'))),
                    asyncio.ensure_future(store.events.append_events(stream, 2, payloads(f'"{"z" * (3 << 20)}"'))),
                ]
                await stop.reached.wait()
                waiting = asyncio.ensure_future(store.events.append_events(stream, 3, payloads(huge)))
                await turns()
                stop.let_go()
                await asyncio.gather(waiting, *several)
            assert len(events_of(store)) == 3

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory counts as files")
def test_events_for_which_there_is_no_memory_leave_none_behind(data: Path) -> None:
    import resource

    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            stream = store.events.open_stream("http", "{}")
            memory = store.events.head._memory
            before = memory.used_bytes
            large = [f'"{"x" * size}"' for size in (2 << 20, 6 << 20)]
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, limits[1]))
            try:
                with pytest.raises(Overloaded):
                    await store.events.append_events(stream, 1, payloads(*large))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert memory.used_bytes == before
            await store.events.append_events(stream, 1, payloads(*large))
            assert len(events_of(store)) == 2

    asyncio.run(main())


def test_a_stream_with_endless_headers_and_no_event_is_there(data: Path) -> None:
    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            stream = store.events.open_stream("http", "{}" + " " * (1 << 20))
            await store.events.append_events(stream, 1, payloads())
            await store.events.append_events(stream, 1, payloads("1"))
            assert events_of(store) == {(1, 1): "1"}

    asyncio.run(main())
