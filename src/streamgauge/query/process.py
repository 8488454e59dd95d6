"""Starting, killing and burying the processes of query workers."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import socket
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from multiprocessing.process import BaseProcess

import psutil

from streamgauge.query import worker
from streamgauge.query.channel import ServerChannel
from streamgauge.query.frames import Kind
from streamgauge.query.worker import WorkerSettings
from streamgauge.spawn import start

_JOIN_SECONDS = 5.0
MEMORY_LIMIT = 4 << 30
"""Bytes of private memory of one worker beyond what it starts with: twice what a query's budget may account for, since
kernels need room to work in. By default no more than half of the machine's."""


class WorkerProcess:
    """One worker as the server sees it. Use `start`.

    Processes are started and waited for on `executor`, which has one thread: multiprocessing's book-keeping is not made
    for several, and to start one copies the page tables of the server, which takes milliseconds.
    """

    def __init__(self, process: BaseProcess, channel: ServerChannel, executor: Executor) -> None:
        self.channel = channel
        self.pid: int = process.pid or 0
        self._process = process
        self._executor = executor
        self._memory: psutil.Process | None = None

    @classmethod
    async def start(cls, settings: WorkerSettings, executor: Executor) -> WorkerProcess:
        """Start a worker and wait until it is ready.

        Raises ChildProcessError when it ends before that.
        """
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("spawn").Process(
            target=worker.main, args=(theirs, settings), name="streamgauge-query", daemon=True
        )
        starting = asyncio.get_running_loop().run_in_executor(executor, start, process)
        try:
            await asyncio.shield(starting)
        except BaseException:
            await asyncio.wait([starting])  # a few milliseconds, and the process uses our socket until then
            ours.close()  # which ends the worker, if there is one
            raise
        finally:
            theirs.close()
        try:
            channel = await ServerChannel.open(ours)
        except BaseException:
            ours.close()
            raise
        self = cls(process, channel, executor)
        try:
            frame = await self.channel.receive()
        except asyncio.CancelledError:
            await self.kill()
            raise
        if frame is None or frame[0] is not Kind.READY:
            raise ChildProcessError(f"a query worker could not start: it {how_it_ended(await self.kill())}")
        return self

    def signal_kill(self) -> None:
        """End the process at once, whatever it is doing. `channel.receive` then reports the end."""
        with contextlib.suppress(ValueError):  # it is buried
            self._process.kill()

    async def kill(self) -> int | None:
        """End the process and wait for its end. Returns its exit code; None when the system does not let it go."""
        self.signal_kill()
        return await self.bury()

    async def bury(self) -> int | None:
        """Wait for a process that is ending. Returns its exit code; None when it has not ended in time."""
        self.channel.close()
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._join)

    def private_memory(self) -> int:
        """Bytes that are this process' alone, about: without the store's shared segments where the system tells them
        apart. 0 when it is gone."""
        try:
            self._memory = self._memory or psutil.Process(self.pid)
            memory = self._memory.memory_info()
        except psutil.Error:
            return 0
        if sys.platform == "win32":
            return int(getattr(memory, "private", memory.rss))
        return int(memory.rss - getattr(memory, "shared", 0))

    def _join(self) -> int | None:
        with contextlib.suppress(ValueError):  # buried before
            self._process.join(_JOIN_SECONDS)
            code = self._process.exitcode
            if code is not None:
                self._process.close()
            return code
        return None


class WorkerStarter:
    """Starts worker processes, some of them before there is a pool that asks for one. `close` it."""

    def __init__(self, preload: tuple[str, ...] = (), memory_limit: int | None = None) -> None:
        """memory_limit: bytes of private memory of one worker."""
        self.memory_limit = memory_limit or min(MEMORY_LIMIT, psutil.virtual_memory().total // 2)
        self._settings = WorkerSettings(self.memory_limit, preload)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="query-processes")
        self._ahead: list[asyncio.Task[WorkerProcess]] = []

    def start_ahead(self, number: int) -> None:
        """Begin to start so many, which are given to who asks next."""
        self._ahead += [asyncio.create_task(self._start(), name="query-process") for _ in range(number)]

    async def start(self) -> WorkerProcess:
        """A worker that is ready. Raises ChildProcessError when it ends before that."""
        if not self._ahead:
            return await self._start()
        starting = self._ahead.pop(0)
        try:
            return await starting
        except asyncio.CancelledError:
            if starting.done() and not starting.cancelled() and starting.exception() is None:
                await starting.result().kill()  # it was ready in the moment in which nobody wanted it any more
            raise

    async def close(self) -> None:
        """End those that nobody asked for. No other may be running any more."""
        ahead, self._ahead = self._ahead, []
        for task in ahead:
            task.cancel()
        for process in await asyncio.gather(*ahead, return_exceptions=True):
            if isinstance(process, WorkerProcess):
                await process.kill()
        await asyncio.to_thread(self._executor.shutdown)

    async def _start(self) -> WorkerProcess:
        return await WorkerProcess.start(self._settings, self._executor)


def how_it_ended(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "does not end"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = "; most likely the machine ran out of memory" if name == "SIGKILL" else ""
    return f"was ended by signal {name}{hint}"
