"""One stream's way into the store: while events are on their way to the disk, the next ones gather."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pyarrow as pa

from streamgauge.errors import StreamgaugeError
from streamgauge.model.events import EventSink, Stream
from streamgauge.stats import Stats

GATHERED = 1 << 20
"""Bytes of events that may wait behind those on their way to the disk: some milliseconds of a fast sender, which is
more than a sync takes, so that the disk is not waited for."""

ALL_GATHERED = 64 << 20
"""Bytes of events of all streams that may be on their way before each of them has no more waiting than one piece: there
may be ten thousand."""

SOURCES = {"http": "events_http", "websocket": "events_websocket"}
"""By the transport of a stream, how our metrics call what comes that way."""


class OnTheirWay:
    """Bytes of events of all streams that have been put and are not on disk."""

    def __init__(self) -> None:
        self.size = 0


class EventWriter:
    """Stores events of one stream in the order in which they are put.

    first: index of the first one. expected: the index that the stream expects. stored: called with `count` whenever it
    has grown.
    """

    def __init__(
        self,
        sink: EventSink,
        stats: Stats,
        stream: Stream,
        first: int,
        expected: int,
        on_their_way: OnTheirWay,
        stored: Callable[[int], None] | None = None,
    ) -> None:
        self.stream = stream
        self.count = 0  # events put that are on disk
        self.next_index = expected  # of the stream
        source = SOURCES[stream.transport]
        self._events = stats.ingested_events.labels(source)
        self._bytes = stats.ingested_event_bytes.labels(source)
        self._sink = sink
        self._all = on_their_way
        self._first = first  # index of the next one to append
        self._stored = stored
        self._gathered: list[pa.BinaryArray] = []
        self._size = 0  # bytes of what has gathered
        self._taken = asyncio.Event()  # what had gathered is on its way
        self._work: asyncio.Task[None] | None = None
        self._durable = False  # the stream itself is on disk
        self._failure: StreamgaugeError | None = None
        self._failed = asyncio.Event()

    async def feed(self, work: Coroutine[None, None, None]) -> None:
        """Run `work`, which puts events, and then `flush`. It is cancelled when an append fails: whatever it waits for,
        nothing of it would be stored. Raises as `put` does, and what `work` raises."""
        reading = asyncio.ensure_future(work)
        failing = asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait((reading, failing), return_when=asyncio.FIRST_COMPLETED)
            self._raise_failure()
            reading.result()
        finally:
            reading.cancel()
            failing.cancel()
            await asyncio.wait((reading, failing))
        await self.flush()

    async def put(self, payloads: pa.BinaryArray) -> None:
        """Take events; returns when there is room for more. Raises what an append failed with: none is tried again."""
        self._raise_failure()
        if len(payloads):
            self._gather(payloads)
        while self._size > (GATHERED if self._all.size <= ALL_GATHERED else 0):
            self._taken.clear()
            await self._taken.wait()
            self._raise_failure()

    async def flush(self) -> None:
        """Return when everything is on disk, and the stream too, if it had no events. Raises as `put` does."""
        self._raise_failure()
        if not self._durable and not self._gathered and self._work is None:
            self._gather(pa.array([], pa.binary()))
        await self.settle()
        self._raise_failure()

    async def settle(self) -> None:
        """Return when everything is on disk or has failed."""
        if self._work is not None:
            await self._work

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _gather(self, payloads: pa.BinaryArray) -> None:
        self._gathered.append(payloads)
        self._size += payloads.nbytes
        self._all.size += payloads.nbytes
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._append_all(), name="events-append")

    async def _append_all(self) -> None:
        try:
            while self._gathered:
                payloads, size = _joined(self._gathered), self._size
                self._gathered, self._size = [], 0
                self._taken.set()
                try:
                    await self._append(payloads)
                finally:
                    self._all.size -= size
        except StreamgaugeError as error:
            self._failure = error
            self._failed.set()
        finally:
            self._all.size -= self._size
            self._gathered, self._size = [], 0
            self._taken.set()
            self._work = None

    async def _append(self, payloads: pa.BinaryArray) -> None:
        following = await self._sink.append_events(self.stream, self._first, payloads)
        self._durable = True
        self._first += len(payloads)
        self.next_index = max(following, self._first)
        if len(payloads):
            self.count += len(payloads)
            self._events.inc(len(payloads))
            self._bytes.inc(payloads.nbytes)
            if self._stored is not None:
                self._stored(self.count)


def _joined(parts: list[pa.BinaryArray]) -> pa.BinaryArray:
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
