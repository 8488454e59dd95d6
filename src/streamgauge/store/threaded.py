"""A store for programs that have no event loop: it is open on a thread of its own, whose loop it has to itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from streamgauge.clock import SystemClock
from streamgauge.errors import StorageError
from streamgauge.store.helper import HelperProcess, InThread
from streamgauge.store.lock import acquire
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.store import Store, StoreSettings

LOG = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


class ThreadedStore:
    """Holds a folder from here to `close`. Used from any thread; one at a time gets its turn.

    helpers: whether blocks are written in processes of their own, which takes 30 MB each, and this one's lock never.
    Raises FolderInUse, FormatTooNew and StorageError.
    """

    def __init__(self, data: Path, settings: StoreSettings, *, helpers: bool) -> None:
        self._data = data
        self._settings = settings
        self._helpers = helpers
        self._loop = asyncio.new_event_loop()
        self._ready: Future[Store] = Future()
        self._end = asyncio.Event()
        self._failure: BaseException | None = None
        self._using = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="streamgauge-store", daemon=True)
        self._thread.start()
        self.store = self._ready.result()
        """The loop's own, but for what others may do with its snapshots."""

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Nobody else uses or closes it meanwhile. Raises StorageError when it is closed."""
        with self._using:
            if self._closed:
                raise StorageError("the store is closed")
            yield

    def run(self, work: Work[T]) -> T:
        """The result of a coroutine function that is run on the loop, or its exception. While it is in use."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have the loop call it, and do not wait for that. At any time before it is closed."""
        self._loop.call_soon_threadsafe(function)

    def close(self, last: Work[None] | None = None) -> None:
        """Do a last thing, and write everything into blocks. Raises StorageError when that fails; the log then keeps
        what is in none."""
        with self.in_use():
            self._closed = True
            if last is not None:
                self.run(last)
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
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(acquire(self._data))
            flusher, compacter = (self._runner(stack) for _ in range(2))
            opening = open_store(self._data, self._settings, SystemClock(), flusher, compacter, Progress())
            store, maintenance = await stack.enter_async_context(opening)
            background = asyncio.ensure_future(maintenance.run())
            background.add_done_callback(_tell)
            self._ready.set_result(store)
            await self._end.wait()
            background.cancel()
            await asyncio.gather(background, return_exceptions=True)
            await maintenance.flush_all()

    def _runner(self, stack: contextlib.AsyncExitStack) -> HelperProcess | InThread:
        if not self._helpers:
            return InThread()
        helper = HelperProcess()
        stack.push_async_callback(helper.stop)
        return helper


def _tell(background: asyncio.Task[None]) -> None:
    """What must not happen: nothing is written into blocks any more, and in the end the store takes nothing."""
    if not background.cancelled() and (error := background.exception()) is not None:
        LOG.error("the maintenance of the store has ended", exc_info=error)
