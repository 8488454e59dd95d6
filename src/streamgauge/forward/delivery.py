"""Handing all events on to one destination, at least once, from what is stored: nothing waits for it but itself.

It looks again when something was stored, a second later at the earliest; reading and writing are done on a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.clock import Clock
from streamgauge.errors import DeliveryFailed, StreamgaugeError
from streamgauge.forward.cursor import Cursor
from streamgauge.forward.destination import Event, Outlet
from streamgauge.model.batch import SampleBatch
from streamgauge.model.event_feed import EventFeed, EventPiece
from streamgauge.model.events import EventBatch, Stream
from streamgauge.stats import Stats

LOG = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
"""Between two looks: events that come one by one are delivered together, and the head is looked through once."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0
BATCH_EVENTS = 2000
BATCH_BYTES = 4 << 20
"""Of payloads that are written in one transaction, and may come twice after a crash."""


@dataclass(frozen=True, slots=True)
class _Batch:
    streams: Sequence[Stream]
    events: Sequence[Event]


class Delivery:
    """Implements model.listener.Listener. cursor: the file that says how far it is. open_outlet: on the thread."""

    def __init__(
        self,
        name: str,
        feed: EventFeed,
        open_outlet: Callable[[], Outlet],
        cursor: Path,
        clock: Clock,
        stats: Stats,
    ) -> None:
        self._name = name
        self._feed = feed
        self._open_outlet = open_outlet
        self._cursor_file = cursor
        self._clock = clock
        self._stats = stats
        self._stored = asyncio.Event()
        self._stored.set()
        self._stop = False  # read on the thread
        self._cursor: Cursor | None = None
        self._outlet: Outlet | None = None
        self._known: dict[int, EventPiece] = {}  # blocks that are not delivered, by their last commit
        self._waits = False  # a failure was logged, and no success since

    # ---- on the event loop ------------------------------------------------------------------------------------------

    def stored_samples(self, commit: int, batch: SampleBatch) -> None:
        pass

    def stored_events(self, commit: int, batches: Sequence[EventBatch]) -> None:
        self._stored.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        retry = FIRST_RETRY_SECONDS
        executor = ThreadPoolExecutor(1, f"deliver-{self._name}")
        try:
            while True:
                await self._stored.wait()
                self._stored.clear()
                try:
                    await self._round(executor)
                except StreamgaugeError as error:
                    self._failed(error, retry)
                    self._stored.set()
                    await self._clock.sleep(retry)
                    retry = min(2 * retry, LAST_RETRY_SECONDS)
                else:
                    if self._waits:
                        LOG.info("events are delivered to %s again", self._name)
                        self._waits = False
                    retry = FIRST_RETRY_SECONDS
                    await self._clock.sleep(PAUSE_SECONDS)
        finally:
            self._stop = True
            closing = asyncio.get_running_loop().run_in_executor(executor, self._close)
            executor.shutdown(wait=False)
            await asyncio.wait([closing])

    async def _round(self, executor: ThreadPoolExecutor) -> None:
        """Deliver what is stored now."""
        commit, pieces, release = self._feed.take()
        work = asyncio.get_running_loop().run_in_executor(executor, self._deliver, commit, pieces)
        work.add_done_callback(lambda _: release())  # not before, however often this is cancelled
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stop = True  # it ends after the batch that it is at
            await asyncio.wait([work])
            raise

    def _failed(self, error: StreamgaugeError, retry: float) -> None:
        self._stats.destination_failures.labels(self._name).inc()
        if not self._waits:
            LOG.error("events are not delivered to %s, which is tried again: %s", self._name, error.message)
        self._waits = True

    # ---- on the thread ----------------------------------------------------------------------------------------------

    def _deliver(self, commit: int, pieces: Sequence[EventPiece]) -> None:
        if self._cursor is None:
            self._cursor = Cursor(self._cursor_file)
        cursor = self._cursor
        if cursor.through > commit:
            cursor.advance({}, 0)  # the folder is an older one than it was; indexes tell what is delivered
        self._count_lost(pieces, cursor.through)
        waiting = [piece for piece in pieces if piece.through > cursor.through]
        try:
            for piece in waiting:
                for batch in self._batches(piece, cursor):
                    self._write(batch, cursor)
                    if self._stop:
                        return
                cursor.advance({}, piece.through)
                self._known.pop(piece.through, None)
            if commit > cursor.through:
                cursor.advance({}, commit)
        except DeliveryFailed:
            self._close_outlet()
            raise

    def _write(self, batch: _Batch, cursor: Cursor) -> None:
        if self._outlet is None:
            self._outlet = self._open_outlet()
        left_out = self._outlet.write(batch.streams, batch.events)
        cursor.advance(_following(batch.events))
        self._stats.destination_events.labels(self._name).inc(len(batch.events) - left_out)
        self._stats.destination_left_out.labels(self._name, "unfit").inc(left_out)

    def _batches(self, piece: EventPiece, cursor: Cursor) -> Iterator[_Batch]:
        streams = {stream.id: stream for stream in piece.streams()}
        following: dict[int, int] = {}
        held: list[Event] = []
        size = 0
        for rows in piece.batches():
            for event in _events(rows, cursor, following):
                held.append(event)
                size += len(event.payload)
                if len(held) == BATCH_EVENTS or size >= BATCH_BYTES:
                    yield _batch(held, streams)
                    held, size = [], 0
        if held:
            yield _batch(held, streams)

    def _count_lost(self, pieces: Sequence[EventPiece], through: int) -> None:
        """Blocks that are gone before they were delivered, and in no other, are told and counted."""
        covered = [(piece.first, piece.through) for piece in pieces]
        for last, piece in list(self._known.items()):
            if not any(first <= piece.first and last <= end for first, end in covered):
                del self._known[last]
                if last > through:
                    LOG.error("%d events were removed by retention before %s had them", piece.events, self._name)
                    self._stats.destination_left_out.labels(self._name, "removed").inc(piece.events)
        self._known |= {piece.through: piece for piece in pieces if piece.events and piece.first > through}

    def _close_outlet(self) -> None:
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            outlet.close()

    def _close(self) -> None:
        self._close_outlet()
        if self._cursor is not None:
            self._cursor.close()


def _events(rows: pa.RecordBatch, cursor: Cursor, following: dict[int, int]) -> Iterator[Event]:
    """Those that are not delivered yet. following: the next index of the streams that were looked up."""
    streams, indexes, times = (rows.column(number).to_numpy() for number in range(3))
    for stream in np.unique(streams).tolist():
        if stream not in following:
            following[stream] = cursor.next_index(stream)
    wanted = np.array([following[stream] for stream in streams.tolist()], np.int64) <= indexes
    if not wanted.any():
        return
    payloads: Any = rows.column(3).filter(pa.array(wanted)).to_pylist()
    columns = (streams[wanted].tolist(), indexes[wanted].tolist(), times[wanted].tolist(), payloads)
    for stream, index, time, payload in zip(*columns, strict=True):
        yield Event(stream, index, time, payload)


def _batch(events: Sequence[Event], streams: Mapping[int, Stream]) -> _Batch:
    used = dict.fromkeys(event.stream for event in events)
    return _Batch([streams[number] for number in used if number in streams], events)


def _following(events: Sequence[Event]) -> Mapping[int, int]:
    return {event.stream: event.index + 1 for event in events}
