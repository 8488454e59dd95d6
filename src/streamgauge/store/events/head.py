"""The event head: the newest events, in shared memory, in order of commit.

Commits go to the last segment until one does not fit. What a query's snapshot names stays until its lease ends. Flushed
commits are dropped from the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from streamgauge.model.events import EventBatch
from streamgauge.store.events.records import payload_bytes, stream_text
from streamgauge.store.events.runs import EventColumns, EventHeadSnapshot, EventRun, segment_bytes
from streamgauge.store.leases import Leases
from streamgauge.store.shm import Segment, SharedMemory

MAX_COMMIT_EVENTS = 4096
MAX_COMMIT_BYTES = 1 << 20
"""Of text in one commit: none straddles two segments. An event that is larger has a commit and a segment of its own."""

ROOM_ROWS = 16_384
ROOM_BYTES = 4 << 20
"""Allocating so much takes about a millisecond."""

_USABLE_ROWS = ROOM_ROWS - 2 * MAX_COMMIT_EVENTS + 1
"""Rows that surely fit an empty segment, however they are divided into commits: each event may define a stream."""
_USABLE_BYTES = ROOM_BYTES - MAX_COMMIT_BYTES
STREAM_OVERHEAD = 256
"""Bytes of a stream's definition beside its headers and name, at most."""


def size_of(batch: EventBatch) -> int:
    """Bytes of text that a batch takes at most: with the definition of its stream, and where each event ends."""
    headers, name = batch.stream.headers, batch.stream.name
    return batch.payloads.nbytes + STREAM_OVERHEAD + 6 * (len(headers) + len(name))


@dataclass(frozen=True, slots=True)
class EventFlushInput:
    """The oldest runs of the head. Their names must be leased while they are read."""

    runs: tuple[EventRun, ...]
    through: int  # every commit up to here is in these runs, has no events, or was dropped before


class _Active:
    """The segment that is written to."""

    def __init__(self, segment: Segment, room_rows: int, room_bytes: int, commit: int) -> None:
        self.columns = EventColumns.of(segment, room_rows, room_bytes)
        self.run = EventRun(segment.name, room_rows, room_bytes, 0, 0, commit, commit)
        self.defined: set[int] = set()  # streams

    def fits(self, rows: int, size: int) -> bool:
        return self.run.rows + rows <= self.run.room_rows and self.run.bytes + size <= self.run.room_bytes

    def append(self, commit: int, batch: EventBatch) -> None:
        if batch.stream.id not in self.defined:
            self.defined.add(batch.stream.id)
            text = stream_text(batch.stream)
            self._rows(batch.stream.id, batch.stream.started, np.zeros(1, np.int64), np.array([len(text)]), text)
        if len(batch):
            ends, texts = payload_bytes(batch.payloads)
            self._rows(batch.stream.id, batch.time, np.arange(batch.first, batch.first + len(batch)), ends, texts)
        self.run = replace(self.run, last_commit=commit)

    def _rows(
        self,
        stream: int,
        time: int,
        indexes: np.ndarray[tuple[int], np.dtype[np.int64]],
        ends: np.ndarray[tuple[int], np.dtype[np.int64]],
        texts: bytes | memoryview,
    ) -> None:
        run, columns = self.run, self.columns
        rows = slice(run.rows, run.rows + len(ends))
        columns.streams[rows] = stream
        columns.times[rows] = time
        columns.indexes[rows] = indexes
        columns.ends[rows] = ends + run.bytes
        after = run.bytes + len(texts)
        columns.texts[run.bytes : after] = np.frombuffer(texts, np.uint8)
        self.run = replace(run, rows=rows.stop, bytes=after)


class EventHead:
    """The writing side, on the event loop's thread. `max_bytes`: with more text than that, writers are to wait for a
    flush (`full`)."""

    def __init__(self, memory: SharedMemory, leases: Leases, *, max_rows: int, max_bytes: int) -> None:
        self._memory = memory
        self._leases = leases
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._runs: list[EventRun] = []  # sealed, in order of commit
        self._active: _Active | None = None
        self._spares: list[Segment] = []
        self._own: dict[int, Segment] = {}  # segments for batches too large for another, by the batch's id()
        self._last_commit = -1

    @property
    def rows(self) -> int:
        return sum(run.rows for run in self._all())

    @property
    def bytes(self) -> int:
        """Of text."""
        return sum(run.bytes for run in self._all())

    @property
    def full(self) -> bool:
        """Writers must wait until a flush has made room."""
        return self.rows >= self._max_rows or self.bytes >= self._max_bytes

    @property
    def first_commit(self) -> int | None:
        """Of those that are in the head; None when it is empty."""
        return next((run.first_commit for run in self._all()), None)

    def first_commit_after(self, through: int) -> int | None:
        """Of the runs behind those that a flush has taken `through` a commit; None when there are none."""
        return next((run.first_commit for run in self._all() if run.first_commit > through), None)

    def reserve(self, rows: int, size: int) -> None:
        """Make sure that commits with so many events and so much text in all can be appended. Called before they are
        logged, since what is logged must become visible. Raises Overloaded when no shared memory is left."""
        needed = ceil(2 * rows / _USABLE_ROWS + size / _USABLE_BYTES)
        while len(self._spares) < needed:
            self._spares.append(self._memory.take(segment_bytes(ROOM_ROWS, ROOM_BYTES)))

    def reserve_own(self, batch: EventBatch) -> None:
        """`reserve` for a batch that has more text than a commit may have. Raises Overloaded."""
        self._own[id(batch)] = self._memory.create(segment_bytes(len(batch) + 1, size_of(batch)))

    def give_up(self, batch: EventBatch) -> None:
        """A batch with a segment of its own does not come."""
        if (segment := self._own.pop(id(batch), None)) is not None:
            self._memory.remove(segment.name)

    def append(self, commit: int, batches: Sequence[EventBatch]) -> None:
        """Make a commit's events part of every later snapshot. Commits ascend.

        Raises Overloaded when no shared memory is left and none was reserved; nothing has changed then.
        """
        assert commit > self._last_commit, "commits ascend"
        rows, size = sum(map(len, batches)) + len(batches), sum(map(size_of, batches))
        own = [batch for batch in batches if id(batch) in self._own]
        if own or size > ROOM_BYTES or rows > ROOM_ROWS:
            segment = self._own.pop(id(own[0])) if own else self._memory.create(segment_bytes(rows, size))
            room = (len(own[0]) + 1, size_of(own[0])) if own else (rows, size)
            self.seal()
            self._active = _Active(segment, *room, commit)
        elif self._active is None or not self._active.fits(rows, size):
            segment = self._spares.pop() if self._spares else self._memory.take(segment_bytes(ROOM_ROWS, ROOM_BYTES))
            self.seal()
            self._active = _Active(segment, ROOM_ROWS, ROOM_BYTES, commit)
        for batch in batches:
            self._active.append(commit, batch)
        self._last_commit = commit

    def seal(self) -> None:
        """Close the segment that is written to, so that a flush can take it."""
        if self._active is not None:
            self._runs.append(self._active.run)
            self._active = None

    def snapshot(self) -> EventHeadSnapshot:
        return EventHeadSnapshot(tuple(self._all()))

    def take_sealed(self) -> EventFlushInput | None:
        """The sealed segments. None when none is. They stay in the head until `drop`."""
        if not self._runs:
            return None
        through = self._active.run.first_commit - 1 if self._active else self._last_commit
        return EventFlushInput(tuple(self._runs), through)

    def drop(self, through: int) -> None:
        """Forget the commits up to `through`, as an EventFlushInput says: they are in blocks now."""
        dropped = [run for run in self._runs if run.last_commit <= through]
        self._runs = self._runs[len(dropped) :]
        for run in dropped:
            self._retire(run)

    def _retire(self, run: EventRun) -> None:
        self._leases.retire(run.name, lambda: self._memory.recycle(run.name))

    def _all(self) -> Sequence[EventRun]:
        return [*self._runs, self._active.run] if self._active else self._runs
