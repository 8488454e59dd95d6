"""The event side of a store that is open for writing: implements model.events.EventSink. Used on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from streamgauge.clock import Clock
from streamgauge.errors import IndexConflict, Overloaded, TooLarge
from streamgauge.model.events import EventBatch, Stream
from streamgauge.model.owned import client_name
from streamgauge.store.events.head import MAX_COMMIT_BYTES, MAX_COMMIT_EVENTS, EventHead, size_of
from streamgauge.store.events.ports import EventBlockMeta, NamedStream
from streamgauge.store.events.records import payload_bytes
from streamgauge.store.events.snapshot import EventSnapshot

MAX_EVENT_BYTES = 256 << 20
"""Of one event: a record of the log is read back whole, and its segment has at most 1 GiB."""
MAX_QUEUED_BYTES = 64 << 20
"""Text on its way to the disk before writers are held back: a second or less of the fastest ingest."""
MAX_NAMED_BYTES = 64 << 20
"""Of headers of streams with names, which are in memory and in the catalog."""
MAX_NAMED_STREAMS = 100_000
"""Each takes a kilobyte of memory and a row of the catalog, of which a start reads all and a flush writes those that
events came for."""
MAX_SET_BACK_NS = 60 * 10**9
"""By how much the clock may be set back without times of appends repeating: a step of a time service. What is more is a
clock that was wrong, and would be for as long."""
NAMED_STREAM_NS = 30 * 86_400 * 10**9
"""How long a named stream is known after its last event: a client that comes back later begins another."""


@dataclass(slots=True)
class _Named:
    """A stream that can be resumed."""

    stream: Stream
    next_index: int  # of what is on disk
    queued_next: int  # of what is on disk or on its way there
    last_used: int  # ns


@dataclass(slots=True)
class EventState:
    """What recovery hands over, and what maintenance changes."""

    blocks: tuple[EventBlockMeta, ...] = ()  # in order of commit
    flushed_through: int = 0
    next_stream: int = 1
    named: tuple[NamedStream, ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """What the store as a whole says to those who write.

    refuse: raises ReadOnly or Overloaded while nothing is taken. wait: waits until the condition holds, or raises as
    `refuse` does. submit: hands a batch to the committer; the future is done once it is on disk and visible.
    """

    refuse: Callable[[], None]
    wait: Callable[[Callable[[], bool]], Awaitable[None]]
    submit: Callable[[EventBatch], asyncio.Future[None]]


class EventStore:
    """flush_rows, flush_bytes: how much in the head starts a flush."""

    def __init__(
        self, head: EventHead, state: EventState, clock: Clock, gate: Gate, flush_rows: int, flush_bytes: int
    ) -> None:
        self.head = head
        self._flush_rows = flush_rows
        self._flush_bytes = flush_bytes
        self.state = state
        self.events_appended = 0  # since the start
        self._clock = clock
        self._gate = gate
        self._queued_events = 0  # on their way to the disk
        self._queued_bytes = 0
        self.last_stored = max((meta.max_time for meta in state.blocks), default=0)  # time of the last append, ns
        self._last_time = self.last_stored  # the same, with what is on its way
        self._waiting = 0  # who waits for what the store does
        self._named = {
            each.stream.name: _Named(each.stream, each.next_index, each.next_index, each.last_used)
            for each in state.named
        }
        self._header_bytes = sum(len(each.stream.headers) for each in state.named)
        self._unsaved: set[str] = set()  # names of which the catalog does not have what is in `_named`, or not in it
        self._idle_from = 0  # before this time, ns, none of them has been idle for long

    # ---- writing ----------------------------------------------------------------------------------------------------

    def open_stream(self, transport: str, headers: str) -> Stream:
        return self._new_stream(transport, headers, "")

    def resume_stream(self, name: str, transport: str, headers: str) -> tuple[Stream, int]:
        named = self._named.get(name)
        if named is None:
            if len(self._named) >= MAX_NAMED_STREAMS:
                self.forget_idle()
            if len(self._named) >= MAX_NAMED_STREAMS or self._header_bytes + len(headers) > MAX_NAMED_BYTES:
                raise Overloaded(
                    f"{len(self._named)} streams with names are known, and there is no room for another: the limits "
                    f"are {MAX_NAMED_STREAMS} streams and {MAX_NAMED_BYTES} bytes of their headers"
                )
            stream = self._new_stream(transport, headers, name)
            named = self._named[name] = _Named(stream, 1, 1, stream.started)
            self._header_bytes += len(headers)
            self._used(named, stream.started)
        return named.stream, named.queued_next

    def _new_stream(self, transport: str, headers: str, name: str) -> Stream:
        number = self.state.next_stream
        self.state.next_stream += 1
        return Stream(number, self._now(), transport, headers, name)

    def _now(self) -> int:
        return self._clock.now_ns()

    async def append_events(self, stream: Stream, first: int, payloads: pa.BinaryArray) -> int:
        self._gate.refuse()
        parts = list(_parts(EventBatch(stream, first, self._now(), payloads)))
        size = sum(map(size_of, parts))
        await self._wait(lambda: self._has_room(size))
        # From here to the queue nothing else gets a turn.
        while not (batches := self._not_yet_stored(parts)):
            named = self._named_of(stream)
            assert named is not None, "of other streams everything is new"
            if (expected := await self._on_disk(named)) is not None:
                return expected
            await self._wait(lambda: self._has_room(size))
        time = self._next_time()
        batches = [replace(batch, time=time) for batch in batches]
        self._reserve(batches)
        following = batches[-1].first + len(batches[-1])
        if (named := self._named_of(stream)) is not None:
            named.queued_next = following
        self._queued_events += sum(map(len, batches))
        self._queued_bytes += sum(map(size_of, batches))
        await asyncio.gather(*map(self._gate.submit, batches))
        return following

    def _next_time(self) -> int:
        """Each append has a time of its own, and they ascend as commits do: an event's time and index say where in all
        of them it stands."""
        now = self._now()
        if now <= self._last_time < now + MAX_SET_BACK_NS:
            now = self._last_time + 1
        self._last_time = now
        return now

    def _named_of(self, stream: Stream) -> _Named | None:
        """None for a stream without a name, and for one that was forgotten."""
        named = self._named.get(stream.name) if stream.name else None
        return named if named is not None and named.stream.id == stream.id else None

    async def _on_disk(self, named: _Named) -> int | None:
        """The index that is expected next, once all before it is on disk: another may have brought it and be waiting
        for that. None when it fails."""
        expected = named.queued_next
        await self._wait(lambda: named.next_index >= expected or named.queued_next < expected)
        return expected if named.next_index >= expected else None

    async def _wait(self, until: Callable[[], bool]) -> None:
        """Raises ReadOnly and Overloaded, as the gate does."""
        if until():
            return
        self._waiting += 1
        try:
            await self._gate.wait(until)
        finally:
            self._waiting -= 1

    def _not_yet_stored(self, batches: Sequence[EventBatch]) -> list[EventBatch]:
        """Of a stream with a name, what is not on the disk or on its way there. Raises IndexConflict for a gap."""
        stream = batches[0].stream
        if not stream.name:
            return list(batches)
        if (named := self._named_of(stream)) is None:
            raise IndexConflict(
                f"stream {client_name(stream.name)} was not heard of for so long that it has been forgotten; connect "
                "anew, which begins another",
                1,
            )
        expected = named.queued_next
        if batches[0].first > expected:
            raise IndexConflict(
                f"event {batches[0].first} of stream {client_name(stream.name)} does not follow on what is stored of "
                f"it; the next one is {expected}",
                expected,
            )
        fresh: list[EventBatch] = []
        for batch in batches:
            if (known := min(expected - batch.first, len(batch))) > 0:
                batch = replace(batch, first=batch.first + known, payloads=batch.payloads.slice(known))
            if len(batch) or (batch.first == 1 and not fresh and expected == 1):
                fresh.append(batch)
        return fresh

    def _reserve(self, batches: Sequence[EventBatch]) -> None:
        small = [batch for batch in batches if size_of(batch) <= MAX_COMMIT_BYTES]
        events = self._queued_events + sum(map(len, small)) + len(small)
        try:
            for batch in batches:
                if size_of(batch) > MAX_COMMIT_BYTES:
                    self.head.reserve_own(batch)
            self.head.reserve(events, self._queued_bytes + sum(map(size_of, small)))
        except BaseException:
            for batch in batches:
                self.head.give_up(batch)
            raise

    def _has_room(self, size: int) -> bool:
        # What is large waits for half of the queue and not for all of it: small ones would never let it pass.
        counted = min(size, MAX_QUEUED_BYTES // 2)
        crowded = self._queued_bytes and self._queued_bytes + counted > MAX_QUEUED_BYTES
        return not crowded and not self.head.full

    # ---- what the store has done ------------------------------------------------------------------------------------

    def published(self, commit: int, batches: Sequence[EventBatch]) -> None:
        """A commit is on disk: make it visible."""
        self.head.append(commit, batches)
        for batch in batches:
            self.last_stored = batch.time
            self.events_appended += len(batch)
            if (named := self._named_of(batch.stream)) is not None:
                named.next_index = max(named.next_index, batch.first + len(batch))
                self._used(named, batch.time)

    def _used(self, named: _Named, time: int) -> None:
        named.last_used = time
        self._idle_from = min(self._idle_from, time + NAMED_STREAM_NS)
        self._unsaved.add(named.stream.name)

    def failed(self, batches: Sequence[EventBatch]) -> None:
        """Batches did not reach the disk: they may come again."""
        for batch in batches:
            self.head.give_up(batch)
            if (named := self._named_of(batch.stream)) is not None:
                named.queued_next = min(named.queued_next, batch.first)

    def left_queue(self, batches: Sequence[EventBatch]) -> bool:
        """Batches are no longer on their way. Whether somebody waits for that."""
        self._queued_events -= sum(map(len, batches))
        self._queued_bytes -= sum(map(size_of, batches))
        return self._waiting > 0

    def replayed(self, commit: int, batches: Sequence[EventBatch]) -> None:
        """A commit that the log holds and no block does."""
        for batch in batches:
            stream = batch.stream
            self.state.next_stream = max(self.state.next_stream, stream.id + 1)
            known = self._named.get(stream.name)
            if stream.name and (known is None or known.stream.id < stream.id):  # of one that was begun anew the last
                self._header_bytes += len(stream.headers) - (len(known.stream.headers) if known else 0)
                self._unsaved.add(stream.name)
                self._named[stream.name] = _Named(stream, 1, 1, batch.time)
        self.published(commit, batches)
        self._last_time = self.last_stored
        for batch in batches:
            if (named := self._named_of(batch.stream)) is not None:
                named.queued_next = named.next_index

    # ---- reading ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> EventSnapshot:
        """To be read under a lease on its names."""
        return EventSnapshot(self.state.blocks, self.head.snapshot())

    # ---- maintenance ------------------------------------------------------------------------------------------------

    @property
    def flush_is_due(self) -> bool:
        return self.head.rows >= self._flush_rows or self.head.bytes >= self._flush_bytes

    def in_blocks_through(self, through: int) -> int:
        """A commit, at most `through`, up to which blocks hold all events; never less than the catalog's. Every commit
        up to `through` is visible."""
        first = self.head.first_commit
        return max(self.state.flushed_through, through if first is None else min(through, first - 1))

    def swap(self, add: Sequence[EventBlockMeta], remove: Sequence[str], flushed_through: int | None = None) -> None:
        """Make a change that the catalog holds visible, in one step."""
        gone = set(remove)
        blocks = [*(meta for meta in self.state.blocks if meta.id not in gone), *add]
        self.state.blocks = tuple(sorted(blocks, key=lambda meta: (meta.first_commit, meta.last_commit)))
        if flushed_through is not None:
            self.state.flushed_through = max(self.state.flushed_through, flushed_through)
            self.head.drop(flushed_through)

    @property
    def named(self) -> list[NamedStream]:
        """Those that can be resumed, as they are on disk."""
        return [NamedStream(each.stream, each.next_index, each.last_used) for each in self._named.values()]

    def unsaved_named(self) -> tuple[list[NamedStream], list[str]]:
        """What the catalog does not know yet: those that are new or have changed, and the names of those forgotten."""
        known = [self._named[name] for name in self._unsaved if name in self._named]
        changed = [NamedStream(each.stream, each.next_index, each.last_used) for each in known]
        return changed, [name for name in self._unsaved if name not in self._named]

    def named_saved(self, changed: Sequence[NamedStream], forgotten: Sequence[str]) -> None:
        """The catalog has what `unsaved_named` gave."""
        for each in changed:
            named = self._named.get(each.stream.name)
            if named is not None and NamedStream(named.stream, named.next_index, named.last_used) == each:
                self._unsaved.discard(each.stream.name)
        self._unsaved.difference_update(name for name in forgotten if name not in self._named)

    def forget_idle(self) -> None:
        """Forget the named streams that nobody has used for long. Only while the clock is believed, if it can wait."""
        now = self._now()
        if now < self._idle_from:  # who asks for one name after the other when there is no room must not have all read
            return
        before = now - NAMED_STREAM_NS
        for name in [name for name, each in self._named.items() if each.last_used < before]:
            if self._named[name].queued_next == self._named[name].next_index:
                self._header_bytes -= len(self._named.pop(name).stream.headers)
                self._unsaved.add(name)
        self._idle_from = min((each.last_used for each in self._named.values()), default=now) + NAMED_STREAM_NS


def _parts(batch: EventBatch) -> Iterator[EventBatch]:
    """A batch in parts that each fit a commit; an event that does not is alone. Raises TooLarge."""
    ends, texts = payload_bytes(batch.payloads)
    if len(batch) <= MAX_COMMIT_EVENTS and len(texts) <= MAX_COMMIT_BYTES:
        yield batch
        return
    start = 0
    while start < len(batch):
        begin = int(ends[start - 1]) if start else 0
        stop = int(ends.searchsorted(begin + MAX_COMMIT_BYTES, "right"))
        stop = max(min(stop, start + MAX_COMMIT_EVENTS), start + 1)
        if int(ends[stop - 1]) - begin > MAX_EVENT_BYTES:
            raise TooLarge(f"event {batch.first + start} has more than the {MAX_EVENT_BYTES} bytes that can be stored")
        yield replace(batch, first=batch.first + start, payloads=batch.payloads.slice(start, stop - start))
        start = stop
