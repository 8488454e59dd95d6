"""An open data folder whose event loop runs on a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from streamgauge.clock import SystemClock
from streamgauge.model.source import Snapshot
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.dispatch import execute
from streamgauge.query.requests import Job, Query
from streamgauge.store.helper import InThread
from streamgauge.store.lock import acquire
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.store import Store, StoreSettings

T = TypeVar("T")


LOG = logging.getLogger(__name__)


class OpenedFolder:
    """Holds a folder from here to `close`. All but the work given to `run` may be called from any thread.

    Raises FolderInUse, FormatTooNew and StorageError.
    """

    def __init__(self, data: Path, settings: StoreSettings) -> None:
        self._data = data
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._ready: Future[Store] = Future()
        self._end = asyncio.Event()
        self._failure: BaseException | None = None
        self._reading = threading.Lock()  # of what follows
        self._kept: MutableMapping[str, object] = {}
        self._thread = threading.Thread(target=self._run, name="streamgauge-store", daemon=True)
        self._thread.start()
        self.store = self._ready.result()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that is run on the loop, or its exception."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have the loop call it, and do not wait for that."""
        self._loop.call_soon_threadsafe(function)

    def answer(self, query: Query, limits: Limits) -> bytes:
        """What a server would answer, made on the caller's thread. Raises any StreamgaugeError."""
        with self._reading, self._snapshot() as snapshot:
            source = snapshot.open(self._kept)
            return b"".join(execute(Job(query, limits), source, Budget(limits), kept=self._kept).body)

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        async def take() -> tuple[Snapshot, Callable[[], None]]:
            return self.store.snapshot()

        snapshot, release = self.run(take())
        try:
            yield snapshot
        finally:
            self.call_soon(release)

    def close(self) -> None:
        """Write everything into blocks. Raises StorageError when that fails; the log then keeps what is in none."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._hold())
            except BaseException as error:
                if self._ready.done():
                    self._failure = error
                else:
                    self._ready.set_exception(error)

    async def _hold(self) -> None:
        runner = InThread()
        with acquire(self._data):
            opening = open_store(self._data, self._settings, SystemClock(), runner, runner, Progress())
            async with opening as (store, maintenance):
                background = asyncio.ensure_future(maintenance.run())
                background.add_done_callback(_tell)
                self._ready.set_result(store)
                await self._end.wait()
                background.cancel()
                await asyncio.gather(background, return_exceptions=True)
                await maintenance.flush_all()


def _tell(background: asyncio.Task[None]) -> None:
    """What must not happen: nothing is written into blocks any more, and in the end the store takes nothing."""
    if not background.cancelled() and (error := background.exception()) is not None:
        LOG.error("the maintenance of the store has ended", exc_info=error)
