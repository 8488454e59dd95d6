"""An answer between the worker that makes it and the client that reads it.

A slow client must not hold a worker: what it has not taken is kept in memory up to 8 MiB, the rest in a temporary file.
What all answers hold together is limited, too: there can be any number of slow clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from streamgauge.clock import Clock
from streamgauge.errors import QueryCanceled, QueryFailed, StreamgaugeError
from streamgauge.query.frames import CHUNK_BYTES

MEMORY_BYTES = 8 << 20
"""Of one answer. Most answers of dashboards are smaller, and never see a file."""
ALL_MEMORY_BYTES = 64 << 20
ALL_FILE_BYTES = 8 << 30
"""Of all answers together. 50 M points, the most a query may hold, are below 2 GiB of text."""
SLOWEST_READER = 10_000
"""Bytes a second. Whoever reads more slowly keeps a file and a lease on the disk for no good reason."""
PATIENCE = 30.0
"""Seconds that a client may take for any chunk, beside those that the slowest reader needs: time for a paused laptop or
a lost packet, and for what the sockets in between take at once."""


@dataclass(slots=True)
class SpoolSpace:
    """What is left for all answers together, in bytes."""

    memory: int = ALL_MEMORY_BYTES
    disk: int = ALL_FILE_BYTES


class AnswerStream:
    """The chunks of one answer, in order. The worker's side calls `put`, `finish`, `fail`; the client's side iterates
    and calls `aclose`, after which `on_close` has been called, once, if the answer was not read to its end."""

    def __init__(
        self, clock: Clock, on_close: Callable[[], None], space: SpoolSpace, directory: Path | None = None
    ) -> None:
        """`directory` is where the temporary file goes; the system's by default."""
        self._clock = clock
        self._on_close: Callable[[], None] | None = on_close
        self._space = space
        self._file = _File(space, directory)
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._finished = False
        self._error: StreamgaugeError | None = None
        self._changed: asyncio.Future[None] | None = None
        self._pace: asyncio.Task[None] | None = None

    # ---- the worker's side ----

    async def put(self, chunk: bytes) -> None:
        """Add a chunk. After the stream has failed or was closed it is dropped.

        Raises QueryFailed when the temporary file cannot take it.
        """
        if self._error is not None:
            return
        size = len(chunk)
        if self._file.unread or self._held + size > MEMORY_BYTES or size > self._space.memory:
            try:
                await self._file.append(chunk)
            except OSError as error:
                raise QueryFailed(f"the answer cannot be kept for its slow reader: {error}") from None
        else:
            self._chunks.append(chunk)
            self._hold(size)
        self._wake()

    def finish(self) -> None:
        """The answer is whole."""
        self._finished = True
        self._wake()

    def fail(self, error: StreamgaugeError) -> None:
        """The answer will never be whole: from now on the client's side raises `error`."""
        if self._error is None and not self._finished:
            self._break(error)

    # ---- the client's side ----

    def __aiter__(self) -> AnswerStream:
        return self

    async def __anext__(self) -> bytes:
        """The next chunk. Raises what `fail` was given; QueryCanceled after `aclose`."""
        self._stop_pace()
        while True:
            if self._error is not None:
                raise self._error
            if chunk := await self._take():
                break
            if self._finished and self._exhausted:
                self._on_close = None
                self._release()
                raise StopAsyncIteration
            self._changed = asyncio.get_running_loop().create_future()
            try:
                await self._changed
            finally:
                self._changed = None
        if self._finished and self._exhausted:
            self._release()
        else:
            self._pace = asyncio.create_task(self._watch_pace(len(chunk)), name="answer-pace")
        return chunk

    async def aclose(self) -> None:
        """Give the answer up. Nothing is done when it was read to its end."""
        self._give_up(QueryCanceled("the answer was closed"))

    # ---- within ----

    @property
    def _exhausted(self) -> bool:
        return not self._chunks and not self._file.unread

    async def _take(self) -> bytes:
        if self._chunks:
            chunk = self._chunks.popleft()
            self._hold(-len(chunk))
            return chunk
        if self._file.unread:
            try:
                return await self._file.take(CHUNK_BYTES)
            except OSError as error:
                raise QueryFailed(f"what was kept of the answer cannot be read: {error}") from None
        return b""

    async def _watch_pace(self, size: int) -> None:
        await self._clock.sleep(PATIENCE + size / SLOWEST_READER)
        self._give_up(QueryCanceled(f"the client read less than {SLOWEST_READER} bytes a second"))

    def _give_up(self, error: StreamgaugeError) -> None:
        on_close, self._on_close = self._on_close, None
        self._stop_pace()
        if self._error is None and not (self._finished and self._exhausted):
            self._break(error)
            if on_close is not None:
                on_close()

    def _break(self, error: StreamgaugeError) -> None:
        self._error = error
        self._release()
        self._wake()

    def _stop_pace(self) -> None:
        if self._pace is not None and self._pace is not asyncio.current_task():
            self._pace.cancel()
        self._pace = None

    def _release(self) -> None:
        self._chunks.clear()
        self._hold(-self._held)
        self._file.close()

    def _hold(self, size: int) -> None:
        self._held += size
        self._space.memory -= size

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


class _File:
    """A temporary file that is appended to at one end and taken from at the other, by threads."""

    def __init__(self, space: SpoolSpace, directory: Path | None) -> None:
        self._space = space
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._closed = False
        self._turn = asyncio.Lock()
        self._read = 0
        self._written = 0
        self._size = 0  # on disk

    @property
    def unread(self) -> int:
        """Bytes. 0 after `close`."""
        return 0 if self._closed else self._written - self._read

    async def append(self, data: bytes) -> None:
        """Raises OSError, also when there is no space left for all answers together."""
        async with self._turn:
            more = max(0, self._written + len(data) - self._size)
            if more > self._space.disk:
                raise OSError("too much is kept for slow readers already")
            self._size += more
            self._space.disk -= more
            await asyncio.to_thread(self._write_at, self._written, data)
            self._written += len(data)
            if self._closed:
                self.close()  # it may have been made since

    async def take(self, size: int) -> bytes:
        """At most `size` bytes; none when there are none or the file was closed meanwhile."""
        async with self._turn:
            if not self.unread:
                return b""
            data = await asyncio.to_thread(self._read_at, self._read, min(size, self.unread))
            self._read += len(data)
            if self._read == self._written:
                self._read = self._written = 0
            return data

    def close(self) -> None:
        self._closed = True
        self._space.disk += self._size
        self._size = 0
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _write_at(self, offset: int, data: bytes) -> None:
        if self._closed:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="streamgauge-answer-", dir=self._directory)  # noqa: SIM115
        try:
            self._file.seek(offset)
            self._file.write(data)
            self._file.flush()
        except ValueError:  # closed meanwhile
            return

    def _read_at(self, offset: int, size: int) -> bytes:
        if self._file is None:
            return b""
        try:
            self._file.seek(offset)
            return self._file.read(size)
        except ValueError:
            return b""
