"""A process beside the server for flushing and compacting, so that neither holds up the event loop.

It is started when there is work and ends when it has been idle for a while: what it took of memory goes with it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from streamgauge.errors import StorageError
from streamgauge.store import failpoints

T = TypeVar("T")


class Runner(Protocol):
    """Runs a pure, picklable function somewhere that does not hold up the event loop."""

    async def run(self, function: Callable[..., T], *arguments: Any) -> T: ...

    async def close(self) -> None: ...


class HelperProcess:
    """Runs one function at a time in a spawned process. Used on the event loop."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """The function's result, or its exception. StorageError when the process died."""
        if self._executor is None:
            self._executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_start)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        except BrokenProcessPool:
            await self.close()
            raise StorageError(
                "the helper process that writes blocks died (killed, or out of memory); nothing is lost, "
                "it is tried again"
            ) from None

    async def close(self) -> None:
        """End the process; the next run starts another."""
        executor, self._executor = self._executor, None
        if executor is not None:
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)


class InThread:
    """A runner without a process of its own, for work on a folder that no server holds."""

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(function, *arguments)

    async def close(self) -> None:
        pass


def _start() -> None:
    """In the helper: leave Ctrl-C to the server, and end at once when the server does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    failpoints.arm_from_environment()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_watch, args=(parent.sentinel,), name="parent watch", daemon=True).start()


def _watch(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
