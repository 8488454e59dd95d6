"""The server's end of the socket pair to one query worker. It never blocks."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import cast

from streamgauge.query.frames import CHUNK_BYTES, HEADER, MAX_PAYLOAD_BYTES, Kind, parse_header

_READ_AHEAD_FRAMES = 8
"""Frames that may wait for `receive` before the socket is no longer read."""


class ServerChannel(asyncio.BufferedProtocol):
    """Use from the event loop. While `receive` is behind, the socket is not read and the worker waits in `send`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._frames: deque[tuple[Kind, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._paused = False
        self._buffer = bytearray(HEADER.size + CHUNK_BYTES)
        self._begin = 0  # what was read and is not yet a frame is buffer[begin:end]
        self._end = 0
        self._frame_size = HEADER.size  # of the frame that begins there, as far as is known

    @classmethod
    async def open(cls, sock: socket.socket) -> ServerChannel:
        """Take over the server's end of a pair."""
        _, channel = await asyncio.get_running_loop().create_connection(cls, sock=sock)
        return channel

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Queue a frame of at most MAX_PAYLOAD_BYTES. One to a worker that is gone is dropped: `receive` tells."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a frame of {len(payload)} bytes")
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(HEADER.pack(kind, len(payload)) + payload)

    async def receive(self) -> tuple[Kind, bytes] | None:
        """The next frame; None when the worker is gone or this end was closed."""
        while not self._frames:
            if self._closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        frame = self._frames.popleft()
        if self._paused and len(self._frames) < _READ_AHEAD_FRAMES:
            self._paused = False
            if self._transport is not None:
                self._transport.resume_reading()
        return frame

    def close(self) -> None:
        """Close this end. The worker then ends itself, whatever it is doing."""
        if self._transport is not None:
            self._transport.abort()

    # ---- called by the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._begin == self._end:
            self._begin = self._end = 0
        if self._begin + self._frame_size > len(self._buffer):
            pending = self._buffer[self._begin : self._end]
            self._buffer = bytearray(max(self._frame_size, HEADER.size + CHUNK_BYTES))
            self._buffer[: len(pending)] = pending
            self._begin, self._end = 0, len(pending)
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        try:
            while self._take_frame():
                pass
        except ValueError:
            self.close()
        self._wake()
        if len(self._frames) >= _READ_AHEAD_FRAMES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._wake()

    def _take_frame(self) -> bool:
        self._frame_size = HEADER.size
        if self._end - self._begin < HEADER.size:
            return False
        kind, length = parse_header(self._buffer, self._begin)
        self._frame_size = HEADER.size + length
        stop = self._begin + self._frame_size
        if stop > self._end:
            return False
        self._frames.append((kind, bytes(memoryview(self._buffer)[self._begin + HEADER.size : stop])))
        self._begin = stop
        self._frame_size = HEADER.size
        return True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
