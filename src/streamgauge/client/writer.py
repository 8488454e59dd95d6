"""Sends events to a server from any thread, and keeps them until the server has stored them."""

from __future__ import annotations

import asyncio
import atexit
import os
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from streamgauge.client.address import Address, parse_address
from streamgauge.client.backoff import Backoff, Retry
from streamgauge.client.buffer import Bounds, Buffer, Counts, Undelivered, WhenFull
from streamgauge.client.encoding import encode, encode_text
from streamgauge.client.link import Connect, Link
from streamgauge.client.post import PostLink
from streamgauge.client.reports import Reports
from streamgauge.client.sender import Sender
from streamgauge.client.spans import Span
from streamgauge.client.spill import Spill
from streamgauge.client.tracing import TraceContext
from streamgauge.client.waker import Waker
from streamgauge.client.websocket import WebSocketLink

CLOSE_SECONDS = 5.0
"""Within which `close`, and the end of the program, deliver what is held unless told otherwise."""


class Writer:
    """Events to `url`: ws:// and wss:// keep a WebSocket open, http:// and https:// post batches.

    Nothing that goes wrong raises an exception where events are written: it is counted, and reported to `on_error`
    (by default to standard error), once a minute for each kind. It may be shared by threads and used in coroutines. In
    a child after a fork it begins anew; what was held then is the parent's to send.

    - `token`: of the server, which shows it who writes; it goes with each connection.
    - `ca_file`: certificates, as PEM, that sign those of good servers; or `tls`, a context with whatever else.
    - `when_full`: "block" the caller for `bounds.block_seconds` and then lose the event; "drop-oldest", which loses the
      oldest that is not on its way; "spill" to files in `spill_folder`, up to `spill_bytes`, which a later writer with
      the same folder sends if this one cannot.
    - `linger`: seconds in which more events may gather to be sent together.
    - `silence`: seconds without an acknowledgement after which a connection is given up and events are sent again.

    Raises ValueError for arguments that do not fit, and OSError for a folder or certificates that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        ca_file: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        when_full: WhenFull = "block",
        bounds: Bounds | None = None,
        spill_folder: str | os.PathLike[str] | None = None,
        spill_bytes: int = 1 << 30,
        linger: float = 0.01,
        retry: Retry | None = None,
        connect_seconds: float = 10.0,
        silence: float = 60.0,
        on_error: Callable[[str], object] | None = None,
    ) -> None:
        if when_full not in ("block", "drop-oldest", "spill"):
            raise ValueError(f'when_full is "block", "drop-oldest" or "spill", not {when_full!r}')
        if (when_full == "spill") != (spill_folder is not None):
            raise ValueError('when_full="spill" and spill_folder go together')
        if ca_file is not None:
            if tls is not None:
                raise ValueError("ca_file and tls exclude each other")
            tls = ssl.create_default_context(cafile=os.fspath(ca_file))
        self._address = parse_address(url, headers or {}, tls, token)
        self._when_full: WhenFull = when_full
        self._bounds = bounds or Bounds()
        self._spill_folder = None if spill_folder is None else Path(spill_folder)
        self._spill_bytes = spill_bytes
        self._linger = linger
        self._retry = retry or Retry()
        self._connect_seconds = connect_seconds
        self._silence = silence
        self._on_error = on_error
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_call_weakly(self, "_begin_in_child"))

    # ---- writing ----

    def write(self, event: object) -> bool:
        """Send a value as an event: anything, made JSON as far as it is not. False when it is lost, which is counted.

        It waits only when the buffer is full and `when_full` is "block".
        """
        return self._put(encode(event))

    def write_json(self, text: str | bytes) -> bool:
        """As `write`, of an event that is JSON text already. What is not JSON is sent as a JSON string."""
        return self._put(encode_text(text))

    async def write_async(self, event: object) -> bool:
        """As `write`, for a coroutine: where that would wait, other tasks run."""
        if self._when_full == "block" and self._buffer.is_full():
            return await asyncio.to_thread(self.write, event)
        return self.write(event)

    def span(self, name: str, *, parent: TraceContext | str | bytes | None = None, **attributes: Any) -> Span:
        """A span that is sent here: for a `with`, or to decorate a function. See `Span`."""
        return Span(self, name, attributes, parent)

    def counts(self) -> Counts:
        return self._buffer.counts()

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until all that was written is stored by the server; false when that takes longer."""
        self._waker.wake()
        return self._buffer.drain(seconds)

    async def flush_async(self, seconds: float = CLOSE_SECONDS) -> bool:
        """As `flush`, for a coroutine."""
        return await asyncio.to_thread(self.flush, seconds)

    # ---- closing ----

    def close(self, seconds: float = CLOSE_SECONDS) -> Undelivered:
        """Take nothing more, deliver what is held within `seconds`, and say what could not be."""
        until = time.monotonic() + seconds
        self._buffer.seal()
        self._waker.wake()
        self._buffer.drain(seconds)
        undelivered = self._buffer.close()
        self._waker.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(until - time.monotonic(), 0.0))
        for forget in self._at_close:
            forget()
        if undelivered:
            kept = (
                f", {undelivered.kept_bytes:,} bytes are kept on disk for the next start" if self._spill_folder else ""
            )
            what = "event was" if undelivered.events == 1 else "events were"
            self._report("close", f"{undelivered.events:,} {what} not delivered{kept}")
        return undelivered

    async def close_async(self, seconds: float = CLOSE_SECONDS) -> Undelivered:
        """As `close`, for a coroutine."""
        return await asyncio.to_thread(self.close, seconds)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Writer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()

    # ---- within ----

    def _begin(self) -> None:
        """What is a process's own."""
        self._report = Reports(self._on_error)
        self._spill = None if self._spill_folder is None else Spill(self._spill_folder, self._spill_bytes)
        self._waker = Waker()
        self._buffer = Buffer(self._bounds, self._when_full, self._spill, self._waker.wake, self._report)
        self._starting = threading.Lock()
        self._sender: Sender | None = None
        self._thread: threading.Thread | None = None
        self._at_close: list[Callable[[], object]] = []
        self._forget = weakref.finalize(self, _orphan, self._buffer, self._waker)  # when nobody has it any more
        self._forget.atexit = False
        if self._spill:
            self._start()

    def _begin_in_child(self) -> None:
        self._forget.detach()
        if self._sender is not None:
            self._sender.abandon()
        if self._spill is not None:
            self._spill.abandon()
        try:
            self._begin()
        except OSError as error:  # of the folder; it worked in the parent
            self._report("spill", f"a child process has no files for events: {error}")
            self._when_full, self._spill_folder = "block", None
            self._begin()

    def _put(self, event: bytes) -> bool:
        if self._thread is None:
            self._start()
        return self._buffer.put(event)

    def _start(self) -> None:
        """Start the background thread, and see to it that the end of the program waits for it a little."""
        with self._starting:
            if self._thread is not None or self._buffer.sealed:
                return
            self._sender = Sender(
                self._buffer,
                _connector(self._address, self._connect_seconds, self._silence, self._waker),
                self._waker,
                Backoff(self._retry),
                self._linger,
                self._silence,
                self._report,
                str(self._address),
            )
            thread = threading.Thread(target=self._sender.run, name="streamgauge-writer", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # too many threads, or too late
                self._report("thread", f"events cannot be sent: {error}")
                return
            self._thread = thread
        close = _call_weakly(self, "close")
        atexit.register(close)
        self._at_close.append(lambda: atexit.unregister(close))
        if util := sys.modules.get("multiprocessing.util"):  # whose children end without atexit
            self._at_close.append(util.Finalize(None, close, exitpriority=0).cancel)


def _connector(address: Address, connect_seconds: float, silence: float, waker: Waker) -> Connect:
    def connect(stream: str, first: int) -> Link:
        if address.websocket:
            return WebSocketLink(address, stream, first, connect_seconds, waker)
        return PostLink(address, stream, first, silence, waker)

    return connect


def _orphan(buffer: Buffer, waker: Waker) -> None:
    buffer.seal()
    waker.wake()


def _call_weakly(writer: Writer, name: str) -> Callable[[], None]:
    """A function that calls a method of a writer, if it is still there, and does not keep it."""
    reference = weakref.ref(writer)

    def call() -> None:
        if (found := reference()) is not None:
            getattr(found, name)()

    return call
