"""The receiver of events, whatever transport brings them.

Every request and connection is a stream, or one more part of a stream that has a name. Its events are numbered from 1
on in the order in which they come, and counted when they are on disk. Of a stream with a name, events that are there
already are counted and not stored again: whoever does not know what arrived sends it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa

from streamgauge.clock import Clock
from streamgauge.errors import (
    IndexConflict,
    Overloaded,
    StorageError,
    StreamgaugeError,
    TooLarge,
    UnsupportedMedia,
)
from streamgauge.ingest.admission import Held, InFlight
from streamgauge.ingest.coded_body import pieces
from streamgauge.ingest.event_writer import SOURCES, EventWriter, OnTheirWay
from streamgauge.ingest.turns import Turns
from streamgauge.model.events import EventSink
from streamgauge.model.owned import owned_headers, owned_name
from streamgauge.stats import Stats
from streamgauge.wire.event_texts import Lines, payloads_of
from streamgauge.wire.json_values import JsonValues, Stop

HTTP, WEBSOCKET = SOURCES
RETRY_SECONDS = 5
LONG = 1 << 20
"""Bytes that are too many to be looked at on the event loop: several milliseconds, or a hundred times that where they
are escapes."""
FEW_LINES = 2_000
"""Lines that are looked at in one turn: of what has two bytes a line, a millisecond or two."""

_REASONS: Sequence[tuple[type[StreamgaugeError], str]] = (
    (TooLarge, "too_large"),
    (IndexConflict, "index"),
    (UnsupportedMedia, "media"),
    (Overloaded, "overloaded"),
    (StorageError, "storage"),
    (StreamgaugeError, "malformed"),
)


@dataclass(frozen=True, slots=True)
class EventLimits:
    """Limits of what brings events.

    event: bytes of one. rate: bytes a second of one request or connection, beyond which it is read slower; 0 is none.
    streams: requests and connections at once. compressed: bytes of a body in zstd.
    """

    event: int = 64 << 20
    rate: int = 0
    streams: int = 10_000
    compressed: int = 16 << 20


@dataclass(frozen=True, slots=True)
class Opening:
    """How a stream begins. headers: of the request, as JSON. name: "" for none. first: index of the first event. owner:
    whose it is, if that is somebody who is bound to labels."""

    transport: str
    headers: str
    name: str = ""
    first: int = 1
    owner: str | None = None

    @property
    def stored_headers(self) -> str:
        return self.headers if self.owner is None else owned_headers(self.owner, self.headers)

    @property
    def stored_name(self) -> str:
        return self.name if self.owner is None else owned_name(self.owner, self.name)


@dataclass(slots=True)
class Received:
    """What became of one request's events."""

    count: int = 0  # on disk
    stream: int = 0
    next_index: int = 0  # which is expected of the stream; 0 when there is no stream
    error: StreamgaugeError | None = None
    stop: Stop | None = None  # where the body could not be read on


class Divider(Protocol):
    """Makes events of a stream of bytes: JsonValues or Lines."""

    @property
    def stop(self) -> Stop | None: ...
    @property
    def held(self) -> int: ...
    @property
    def more(self) -> bool: ...
    def feed(self, piece: bytes) -> pa.BinaryArray: ...
    def finish(self) -> pa.BinaryArray: ...


class Events:
    """Receives events. One for a server; used on the event loop."""

    def __init__(
        self,
        sink: EventSink,
        stats: Stats,
        clock: Clock,
        inflight: InFlight,
        turns: Turns,
        limits: EventLimits | None = None,
    ) -> None:
        self.limits = limits or EventLimits()
        self._sink = sink
        self._stats = stats
        self._clock = clock
        self._inflight = inflight
        self._turns = turns
        self._open = 0
        self._on_their_way = OnTheirWay()
        self._aside = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def stream(self, opening: Opening, stored: Callable[[int], None] | None = None) -> AsyncIterator[EventWriter]:
        """The way in for one stream; when the `with` ends, all that it was given is on disk or has failed.

        stored: called with the count of events on disk whenever that has grown. Raises Overloaded, and IndexConflict
        where the first index leaves a gap.
        """
        writer = self._writer(opening, stored)
        self._change_open(1)
        try:
            yield writer
        finally:
            self._change_open(-1)
            await writer.settle()

    def _change_open(self, by: int) -> None:
        self._open += by
        self._stats.event_streams.set(self._open)

    def _writer(self, opening: Opening, stored: Callable[[int], None] | None) -> EventWriter:
        if self._open >= self.limits.streams:
            raise Overloaded(
                f"{self._open} requests and connections bring events, which is the limit", retry_after=RETRY_SECONDS
            )
        if not opening.name:
            stream = self._sink.open_stream(opening.transport, opening.stored_headers)
            return EventWriter(self._sink, self._stats, stream, 1, 1, self._on_their_way, stored)
        stream, expected = self._sink.resume_stream(opening.stored_name, opening.transport, opening.stored_headers)
        if opening.first > expected:
            raise IndexConflict(
                f"event {opening.first} of stream {opening.name} does not follow on what is stored of it; the next one "
                f"is {expected}",
                expected,
            )
        return EventWriter(self._sink, self._stats, stream, opening.first, expected, self._on_their_way, stored)

    def account(self) -> contextlib.AbstractContextManager[Held]:
        """The account of what a connection holds in memory."""
        return self._inflight.account()

    async def receive(
        self, opening: Opening, headers: Mapping[str, str], body: AsyncIterator[bytes], lines: bool = False
    ) -> Received:
        """Store the events of one request. headers: by name in lower case. lines: each is an event, JSON or not.

        What was read before something went wrong is stored, also before what `body` raises, which goes through.
        """
        received = Received()
        try:
            with self._inflight.account() as held:
                async with self.stream(opening) as writer:
                    divider: Divider = (Lines if lines else JsonValues)(self.limits.event)
                    try:
                        await writer.feed(self._divide(writer, headers, body, divider, held))
                    finally:
                        await writer.settle()
                        received.stop = divider.stop
                        received.stream = writer.stream.id
                        received.count, received.next_index = writer.count, writer.next_index
        except StreamgaugeError as error:
            received.error = error
        if received.error is None and received.stop is not None:
            received.error = received.stop.error
        self.count_request(HTTP, received.error)
        return received

    async def _divide(
        self,
        writer: EventWriter,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        divider: Divider,
        held: Held,
    ) -> None:
        pace = Pace(self._clock, self.limits.rate)
        async with contextlib.aclosing(pieces(headers, self._counted(body), self.limits.compressed, held)) as inflated:
            async for piece in inflated:
                before = divider.held
                for part in few_lines(piece):
                    await writer.put(await self._turn(partial(divider.feed, part), divider.held))
                    await self._put_more(writer, divider)
                if divider.stop is not None:
                    break
                held.add(divider.held - before)
                await pace.keep(len(piece))
        await writer.put(await self._turn(divider.finish, divider.held))
        while divider.more:
            await self._put_more(writer, divider)
            await writer.put(divider.finish())

    async def _put_more(self, writer: EventWriter, divider: Divider) -> None:
        while divider.more:
            await writer.put(await self._turns.take(partial(divider.feed, b"")))

    async def _turn(self, step: Callable[[], pa.BinaryArray], size: int) -> pa.BinaryArray:
        """What `step` makes of so many bytes, out of others' way: what is long is looked at on a thread, of which there
        is one, as its steps are short ones in Python that let others in between them."""
        if size < LONG:
            return await self._turns.take(step)
        async with self._aside:
            return await asyncio.to_thread(step)

    async def receive_messages(self, writer: EventWriter, bursts: AsyncIterator[Sequence[bytes]]) -> None:
        """Store messages, each an event, JSON or not, until there are no more. Raises what storing them fails with, as
        soon as it does."""
        await writer.feed(self._put_messages(writer, bursts))

    async def _put_messages(self, writer: EventWriter, bursts: AsyncIterator[Sequence[bytes]]) -> None:
        pace = Pace(self._clock, self.limits.rate)
        size_of = self._stats.ingest_request_bytes.labels(SOURCES[WEBSOCKET])
        async for burst in bursts:
            size = sum(map(len, burst))
            size_of.inc(size)
            await writer.put(await self._turn(partial(payloads_of, burst), size))
            await pace.keep(size)

    async def _counted(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        size = self._stats.ingest_request_bytes.labels(SOURCES[HTTP])
        async for chunk in body:
            size.inc(len(chunk))
            yield chunk

    def count_request(self, transport: str, error: StreamgaugeError | None) -> None:
        """Enter how a request or connection has ended into our metrics."""
        source = SOURCES[transport]
        status = 200 if transport == HTTP else 101
        self._stats.ingest_requests.labels(source, str(error.status if error else status)).inc()
        if error is not None:
            reason = next(word for kind, word in _REASONS if isinstance(error, kind))
            self._stats.refused.labels(source, reason).inc()


def few_lines(piece: bytes) -> Iterator[bytes]:
    """A piece in parts of `FEW_LINES` lines at most."""
    if piece.count(b"\n") <= FEW_LINES:
        yield piece
        return
    ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n"))[FEW_LINES - 1 :: FEW_LINES] + 1
    for start, stop in pairwise([0, *ends.tolist(), len(piece)]):
        yield piece[start:stop]


class Pace:
    """Slows whoever comes faster than `rate`, in bytes a second; 0 slows nobody."""

    def __init__(self, clock: Clock, rate: int) -> None:
        self._clock = clock
        self._rate = rate
        self._due = clock.monotonic()  # when all that came would have come at the rate

    async def keep(self, size: int) -> None:
        """Return when `size` bytes more may come."""
        if not self._rate:
            return
        now = self._clock.monotonic()
        self._due = max(self._due, now) + size / self._rate
        await self._clock.sleep(self._due - now)
