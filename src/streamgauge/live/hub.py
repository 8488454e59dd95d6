"""Who follows what is being stored, and how it reaches them.

    store ─> queue ─> matched once for each distinct filter, encoded once ─> a bounded buffer for each tail

The store only puts what it has stored into the queue, and not even that while nobody listens. The rest is done in turns
of a millisecond or so. Whoever reads more slowly than there is to read loses the oldest, and is told how much; so is
everybody when more is stored than can be looked at.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import NotReady, Overloaded
from streamgauge.live.event_rows import MAX_EVENT_BYTES, EventRows
from streamgauge.live.filters import EventFilter, Filter, SampleFilter
from streamgauge.live.messages import Frame, as_sse, frames_of, taken
from streamgauge.live.position import Position
from streamgauge.live.samples import KnownSeries, sample_messages
from streamgauge.live.subscription import Subscription
from streamgauge.model.arrays import UInt32s
from streamgauge.model.batch import SampleBatch, joined
from streamgauge.model.events import EventBatch
from streamgauge.model.view import EVERYTHING, View
from streamgauge.stats import Reading

QUEUE_BYTES = 32 << 20
"""Text of events, and samples, that wait to be looked at: a quarter of a second of the fastest ingest."""
SAMPLE_BYTES = 20
TURN_EVENTS = 512
"""Looked at in one turn. To parse one takes about a microsecond, and to find what is to be parsed less."""
TURN_SAMPLES = 4096
HEARTBEAT_SECONDS = 15.0
"""Proxies and clients give a silent connection up after 30 s and more."""
OVERLAP_NS = 60 * 10**9
"""Samples have times of their own, and come late. Who resumes sees those of so long again, rather than miss some."""


@dataclass(frozen=True, slots=True)
class TailLimits:
    """tails: at once. buffer: bytes that wait for one of them, before the oldest are lost."""

    tails: int = 200
    buffer: int = 1 << 20


@dataclass(slots=True)
class _Events:
    commit: int
    batches: list[EventBatch]
    rows: int
    size: int


@dataclass(slots=True)
class _Samples:
    commit: int
    batches: list[SampleBatch]
    rows: int
    size: int


@dataclass(eq=False, slots=True)
class _Channel:
    """All tails with one filter."""

    wanted: Filter
    tails: list[Subscription] = field(default_factory=list)

    def give(self, frames: Iterator[Frame]) -> int:
        """How many messages were handed to a tail, each as often as it was."""
        sent = 0
        for frame in frames:
            for tail in self.tails:
                sent += frame.messages * tail.give(frame)
        return sent


class Hub:
    """Implements model.listener.Listener. Used on the event loop.

    keys_of: the keys of living series; raises KeyError for an id that is not one. last_event: when the last event came
    that is stored, ns.
    """

    def __init__(
        self,
        clock: Clock,
        keys_of: Callable[[UInt32s], Sequence[bytes]],
        last_event: Callable[[], int],
        limits: TailLimits | None = None,
    ) -> None:
        self.limits = limits or TailLimits()
        self._clock = clock
        self._series = KnownSeries(keys_of)
        self._last_event = last_event
        self._channels: dict[Filter, _Channel] = {}
        self._commit = -1  # the last that we were told of
        self._queue: deque[_Events | _Samples] = deque()
        self.queued = 0  # bytes of it
        self._apart = False  # the next commit must not be put together with the one before it
        self._news = asyncio.Event()
        self._closed = False
        self.open = 0  # tails
        self.sent = 0
        self._lost = 0  # by tails that are closed
        self.unchecked = 0
        self.refused = 0

    # ---- tails ------------------------------------------------------------------------------------------------------

    def subscribe(self, wanted: Filter) -> Subscription:
        """A tail, which gets nothing before its `follow` is called. Close it. Raises Overloaded, NotReady."""
        if self._closed:
            raise NotReady("the server is stopping")
        if self.open >= self.limits.tails:
            self.refused += 1
            raise Overloaded(f"{self.open} live tails are open already (--max-tails)", retry_after=5)
        channel = self._channels.setdefault(wanted, _Channel(wanted))
        tail = Subscription(self.limits.buffer, self._cut, lambda: self._leave(channel, tail))
        channel.tails.append(tail)
        self.open += 1
        return tail

    def _cut(self) -> int:
        """The last commit that a tail does not get: its follower sees it in a snapshot of this step."""
        self._apart = True
        return self._commit

    def _leave(self, channel: _Channel, tail: Subscription) -> None:
        channel.tails.remove(tail)
        self.open -= 1
        self._lost += tail.lost_in_all
        if not channel.tails:
            del self._channels[channel.wanted]
            if isinstance(channel.wanted, SampleFilter):
                self._series.forget(channel.wanted.matchers)
                self._series.forget((channel.wanted.view.matchers,))
        if not self.open:
            self._queue.clear()
            self.queued = 0
            self._series.clear()

    def event_position(self) -> str:
        """After all events that are stored at this moment."""
        return str(Position(self._last_event() + 1))

    def sample_position(self) -> str:
        return str(Position(self._clock.now_ns() - OVERLAP_NS))

    def close(self) -> None:
        """End all tails; there are no others from now on."""
        self._closed = True
        for channel in list(self._channels.values()):
            for tail in list(channel.tails):
                tail.end()

    # ---- from the store ---------------------------------------------------------------------------------------------

    def stored_events(self, commit: int, batches: Sequence[EventBatch]) -> None:
        self._commit = commit
        if not self._listened(EventFilter):
            return
        rows = sum(map(len, batches))
        size = sum(batch.payloads.nbytes for batch in batches)
        last = self._queue[-1] if self._queue and not self._apart else None
        if isinstance(last, _Events) and last.size + size <= MAX_EVENT_BYTES and last.rows + rows <= TURN_SAMPLES:
            last.batches += batches
            last.rows += rows
            last.size += size
            self.queued += size
        elif rows:
            self._put(_Events(commit, list(batches), rows, size))

    def stored_samples(self, commit: int, batch: SampleBatch) -> None:
        self._commit = commit
        if not self._channels or not self._listened(SampleFilter) or not len(batch):
            return
        size = len(batch) * SAMPLE_BYTES
        last = self._queue[-1] if self._queue and not self._apart else None
        if isinstance(last, _Samples) and last.rows + len(batch) <= TURN_SAMPLES:
            last.batches.append(batch)
            last.rows += len(batch)
            last.size += size
            self.queued += size
        else:
            self._put(_Samples(commit, [batch], len(batch), size))

    def _listened(self, kind: type[Filter]) -> bool:
        return any(isinstance(wanted, kind) for wanted in self._channels)

    def _put(self, item: _Events | _Samples) -> None:
        self._apart = False
        self._queue.append(item)
        self.queued += item.size
        while self.queued > QUEUE_BYTES and len(self._queue) > 1:
            oldest = self._queue.popleft()
            self.queued -= oldest.size
            self._miss(oldest)
        self._news.set()

    def _miss(self, item: _Events | _Samples) -> None:
        """Nobody looks at it: all who might have got something of it are told."""
        counts: dict[View, int] = {EVERYTHING: item.rows}
        for channel in self._channels_of(EventFilter if isinstance(item, _Events) else SampleFilter):
            wanted = channel.wanted
            if wanted.view not in counts:
                counts[wanted.view] = self._seen(item, wanted)
            if rows := counts[wanted.view]:
                for tail in channel.tails:
                    self.unchecked += rows
                    tail.miss(item.commit, rows)

    def _seen(self, item: _Events | _Samples, wanted: Filter) -> int:
        """How much of it is of what may be seen: how much others store is nobody's business."""
        if isinstance(item, _Events):
            assert isinstance(wanted, EventFilter)
            return sum(len(batch) for batch in item.batches if wanted.sees_stream(batch.stream))
        return self._series.count((wanted.view.matchers,), joined(item.batches))

    # ---- to the tails -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Passes on what is stored, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass_on())
            group.create_task(self._beat())

    async def _pass_on(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue:
                item = self._queue.popleft()
                self.queued -= item.size
                turns = self._events(item) if isinstance(item, _Events) else self._samples(item)
                for _ in turns:
                    await asyncio.sleep(0)

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_SECONDS)
            for channel in self._channels.values():
                for tail in channel.tails:
                    tail.beat()

    def _events(self, item: _Events) -> Iterator[None]:
        """One turn at a time."""
        known = {batch.stream.id: batch.stream for batch in item.batches}
        everything = EventRows.of(item.batches)
        yield
        for start in range(0, len(everything), TURN_EVENTS):
            rows = everything.slice(start, start + TURN_EVENTS)
            for channel in self._channels_of(EventFilter):
                wanted = channel.wanted
                assert isinstance(wanted, EventFilter)
                streams = None
                if not wanted.of_all_streams:
                    streams = {number for number, stream in known.items() if wanted.wants_stream(stream)}
                    if not streams:
                        continue
                matching, unchecked = rows.matching(wanted, streams)
                if unchecked:
                    self.unchecked += unchecked * len(channel.tails)
                    for tail in channel.tails:
                        tail.miss(item.commit, unchecked)
                if len(matching):
                    encoded = as_sse(*rows.take(matching).messages())
                    self.sent += channel.give(frames_of(item.commit, encoded))
                yield

    def _samples(self, item: _Samples) -> Iterator[None]:
        batch = joined(item.batches)
        position = self.sample_position()
        for channel in self._channels_of(SampleFilter):
            wanted = channel.wanted
            assert isinstance(wanted, SampleFilter)
            labels, times, values = self._series.matching(wanted.matchers, batch)
            if len(times):
                order = np.argsort(times, kind="stable")
                messages = sample_messages(taken(labels, order), times[order], values[order])
                self.sent += channel.give(frames_of(item.commit, as_sse(position, messages)))
            yield

    def _channels_of(self, kind: type[Filter]) -> list[_Channel]:
        return [channel for wanted, channel in self._channels.items() if isinstance(wanted, kind)]

    # ---- what it counts ---------------------------------------------------------------------------------------------

    @property
    def lost(self) -> int:
        return self._lost + sum(tail.lost_in_all for channel in self._channels.values() for tail in channel.tails)

    def readings(self) -> Iterator[Reading]:
        yield Reading.of("streamgauge_tails", "gauge", "Live tails open.", self.open)
        yield Reading.of(
            "streamgauge_tail_queue_bytes", "gauge", "Stored, and not yet looked at for tails.", self.queued
        )
        for name, text, value in (
            ("sent", "Events and samples handed to live tails, each as often as there were tails for it.", self.sent),
            ("lost", "Of these, lost because their readers were too slow.", self.lost),
            (
                "unchecked",
                "Events and samples not looked at for a tail: too many at once, or too large.",
                self.unchecked,
            ),
            ("refused", "Tails refused because too many were open.", self.refused),
        ):
            yield Reading.of(f"streamgauge_tail_{name}_total", "counter", text, value)
