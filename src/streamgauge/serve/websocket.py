"""One WebSocket connection after its handshake: messages in, counts out, and how it ends.

What comes is read no faster than it is taken, and of what a client does not read only the latest count is kept, so
that a connection takes the same memory however its client behaves. One that is silent is asked with a ping whether it
is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Protocol

from streamgauge.errors import Overloaded
from streamgauge.wire.websocket_frames import Code, End, FrameReader, Opcode, Unmask, close_frame, frame

BURST = 256 << 10
"""Bytes of messages that wait to be taken before no more is read: a millisecond of work for who takes them."""
AT_ONCE = 2_000
"""Messages that are given at once, as each that is not JSON takes some microseconds, however short it is."""
_MESSAGE_BYTES = 64
"""That a message counts for beside its own: empty ones take memory, too."""
PING_SECONDS = 30.0
SILENT_SECONDS = 60.0
"""Without a byte from the client before it is asked, and before it is given up: its half of the connection may be gone
without anybody having said so."""

SWITCHING = 101


class Flow(Protocol):
    """What both sides can take at the moment."""

    read_paused: bool
    write_paused: bool

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    async def drain(self) -> None:
        """Return when the other side reads, or has gone."""


class Line(Protocol):
    """What a socket needs of the connection under it."""

    @property
    def flow(self) -> Flow: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    def hang_up(self) -> None:
        """End our side after what has been written; what still comes is thrown away."""

    def give_up(self, reason: str) -> None:
        """Break the connection off."""


class WebSocket:
    """limit: bytes of one message."""

    def __init__(self, line: Line, limit: int) -> None:
        self.end: End | None = None  # why no more messages come
        self.hold: Callable[[int], None] = lambda size: None  # accounts for bytes of an unfinished message
        self._line = line
        self._reader = FrameReader(limit, _apply_mask())
        self._messages: list[bytes] = []
        self._size = 0  # bytes of these
        self._news = asyncio.Event()  # messages, or the end
        self._count: int | None = None  # to be sent when the client reads again
        self._ping: bytes | None = None  # to be answered then
        self._silent = 0.0  # seconds since the last byte
        self._asked = False
        self._closed = False  # our Close frame has been sent

    # ---- from the connection ----------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        self._silent, self._asked = 0.0, False
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        if self.end is not None:
            return
        before = self._reader.held
        incoming = self._reader.feed(data)
        if self._reader.more:  # a flood of short frames; others get their turn
            self._line.flow.pause_reading()
            asyncio.get_running_loop().call_soon(self._feed, b"")
        elif not data:
            self._read_on()
        if incoming.messages:
            self._messages += incoming.messages
            self._size += sum(map(len, incoming.messages)) + _MESSAGE_BYTES * len(incoming.messages)
            self._news.set()
        if incoming.ping is not None:
            self._ping = incoming.ping
            self._write_pending()
        if incoming.end is not None:
            self._stop(incoming.end)
        elif (more := self._reader.held - before) != 0:
            self._account(more)
        if self._size > BURST:
            self._line.flow.pause_reading()

    def _read_on(self) -> None:
        """Read, if nothing is waiting that was read already."""
        if not self._reader.more and self._size <= BURST:
            self._line.flow.resume_reading()

    def _account(self, size: int) -> None:
        try:
            self.hold(size)
        except Overloaded as error:
            self._stop(End(Code.TRY_AGAIN, error.message))

    def _stop(self, end: End) -> None:
        self.end = self.end or end
        self._news.set()

    def lost(self) -> None:
        """The connection is gone."""
        self._closed = True
        self._stop(End(Code.GOING_AWAY, closed=True))

    def go_away(self) -> None:
        """The server stops: what has come is stored yet, and nothing after it."""
        self._stop(End(Code.GOING_AWAY, "the server stops"))

    def dismiss(self, reason: str) -> None:
        """Whoever is there may not be any more: what has come is stored yet, and nothing after it."""
        self._stop(End(Code.POLICY, reason))

    def check(self, seconds: float) -> None:
        """`seconds` have passed since the last check."""
        if self._line.flow.read_paused:
            return
        self._silent += seconds
        if self._silent >= SILENT_SECONDS:
            self._line.give_up("silent")
        elif self._silent >= PING_SECONDS and not self._asked:
            self._asked = True
            self._write(frame(Opcode.PING, b""))

    def writable(self) -> None:
        """The client reads again."""
        self._write_pending()

    # ---- to and from the application --------------------------------------------------------------------------------

    async def bursts(self) -> AsyncGenerator[list[bytes], None]:
        """Messages as they come, some at a time, until `end` is set."""
        while True:
            await self._news.wait()
            self._news.clear()
            messages, self._messages, self._size = self._messages, [], 0
            ended = self.end is not None
            for begin in range(0, len(messages), AT_ONCE):
                if begin + AT_ONCE >= len(messages):
                    self._read_on()
                yield messages[begin : begin + AT_ONCE]
            if ended:
                return

    def acknowledge(self, count: int) -> None:
        """Tell the client how many of its events are on disk."""
        self._count = count
        self._write_pending()

    async def send(self, texts: Iterable[str]) -> None:
        """Send messages. Returns when the client reads on, or has gone."""
        self._write(b"".join(frame(Opcode.TEXT, text.encode()) for text in texts))
        await self._line.flow.drain()

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye, and hang up."""
        if not self._closed:
            self._write(close_frame(code, reason))
            self._closed = True
            self._line.hang_up()

    def _write_pending(self) -> None:
        if self._line.flow.write_paused:
            return
        if self._ping is not None:
            self._write(frame(Opcode.PONG, self._ping))
            self._ping = None
        if self._count is not None:
            self._write(frame(Opcode.TEXT, b"%d" % self._count))
            self._count = None

    def _write(self, data: bytes) -> None:
        if not self._closed and not self._line.transport.is_closing():
            self._line.transport.write(data)


def _apply_mask() -> Unmask:
    """Imported for the first connection: a start has better to do."""
    try:
        from websockets.speedups import apply_mask
    except ImportError:  # built without a compiler
        from websockets.utils import apply_mask
    return apply_mask
