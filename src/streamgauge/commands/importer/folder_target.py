"""A data folder that no server holds, as where an import goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from streamgauge.clock import SystemClock
from streamgauge.commands.importer.targets import HEADER, Answer, SentEvents, answer_of
from streamgauge.ingest.admission import InFlight, Limits
from streamgauge.ingest.bulk import BulkImport
from streamgauge.ingest.events import HTTP, EventLimits, Events, Opening
from streamgauge.ingest.request_headers import headers_json
from streamgauge.ingest.turns import Turns
from streamgauge.stats import Stats
from streamgauge.store.store import StoreSettings
from streamgauge.store.threaded import ThreadedStore
from streamgauge.wire.sample_table import CONTENT_TYPE

UNBOUNDED = 1 << 62


class FolderTarget:
    """A data folder, whose store is open for as long as this is: its event loop runs on a thread."""

    def __init__(self, data: Path) -> None:
        """Raises FolderInUse and StorageError."""
        settings = StoreSettings(retention=0, event_retention=0, index_bytes=UNBOUNDED)
        self._opened = ThreadedStore(data, settings, helpers=True)
        clock, stats, limits = SystemClock(), Stats(), Limits(body=UNBOUNDED, inflight=UNBOUNDED)
        store, inflight, turns = self._opened.store, InFlight(limits.inflight, stats), Turns()
        self._bulk = BulkImport(store, stats, clock, inflight, turns, limits)
        self._events = Events(store.events, stats, clock, inflight, turns, EventLimits(event=UNBOUNDED))

    def send(self, body: bytes) -> Answer:
        async def pieces() -> AsyncIterator[bytes]:
            yield body

        with self._opened.in_use():
            answer = self._opened.run(lambda: self._bulk.receive({"content-type": CONTENT_TYPE}, pieces()))
        return answer_of(answer.as_json())

    def send_events(self, events: SentEvents) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield events.body

        headers = headers_json([(HEADER.encode(), events.source.encode())])
        opening = Opening(HTTP, headers, events.name, events.first)
        with self._opened.in_use():
            answer = self._opened.run(lambda: self._events.receive(opening, {}, pieces()))
        if answer.error is not None:
            raise answer.error

    def close(self) -> None:
        """Write everything into blocks. Raises StorageError when that fails; the log then keeps what is in none."""
        self._opened.close()
