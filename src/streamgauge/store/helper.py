"""A process beside the server for flushing and compacting, so that neither holds up the event loop.

It is started when there is work; what it took of memory goes with it when it is closed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar, cast

from streamgauge.errors import StorageError, StreamgaugeError
from streamgauge.spawn import end_with_the_server, leave_signals_to_the_server, start
from streamgauge.store import failpoints

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Runner(Protocol):
    """Runs a pure, picklable function somewhere that does not hold up the event loop."""

    async def run(self, function: Callable[..., T], *arguments: Any) -> T: ...

    async def close(self) -> None:
        """Give back what a run that may come later does not need."""


class HelperProcess:
    """Runs one function at a time in a spawned process. Used on the event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "helper")  # starts the process, talks to it and buries it
        self._process: BaseProcess | None = None  # the thread's own, as is the next
        self._connection: Connection | None = None
        self._stopping = False

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """The function's result, or its exception. StorageError when the process died or could not start."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, function, arguments)

    async def close(self) -> None:
        """End the process, after what runs; the next run starts another."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)

    async def stop(self) -> None:
        """End the process at once, for good. What runs fails."""
        self._stopping = True
        self._kill()
        await self.close()
        self._thread.shutdown()

    def _run(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        try:
            if self._connection is None:
                self._start()
            assert self._connection is not None
            if self._stopping:
                raise EOFError("the server is stopping")
            self._connection.send((function, arguments))
            worked, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._end()
            raise StorageError(
                f"the helper process that writes blocks died (killed, or out of memory) or could not start: {error!r}; "
                "nothing is lost, it is tried again"
            ) from None
        if worked:
            return cast("T", answer)
        failure, trace = answer
        if not isinstance(failure, StreamgaugeError):
            LOG.error("the helper process failed unexpectedly:\n%s", trace)
        raise failure

    def _start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        try:
            process = multiprocessing.get_context("spawn").Process(
                target=_serve, args=(theirs,), name="streamgauge-helper", daemon=True
            )
            start(process)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._process, self._connection = process, ours
        atexit.register(self._kill)

    def _kill(self) -> None:
        """Also for an interpreter that ends without `stop`: it would wait for the process for ever."""
        process = self._process
        if process is not None:
            with contextlib.suppress(ValueError):  # it has just been buried
                process.kill()

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None
            atexit.unregister(self._kill)


class InThread:
    """A runner without a process of its own, for work on a folder that no server holds."""

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(function, *arguments)

    async def close(self) -> None:
        pass


def _serve(connection: Connection) -> None:
    """The life of a helper: it ends when the server does, or lets it go."""
    leave_signals_to_the_server()
    end_with_the_server()
    failpoints.arm_from_environment()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_watch, args=(parent.sentinel,), name="parent watch", daemon=True).start()
    with contextlib.suppress(EOFError):
        while True:
            _answer(connection, *connection.recv())


def _answer(connection: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        answer: tuple[bool, object] = (True, function(*arguments))
    except Exception as error:
        answer = (False, (error, traceback.format_exc()))
    try:
        connection.send(answer)
    except (TypeError, AttributeError, ValueError) as error:  # that cannot be pickled
        connection.send((False, (StorageError(f"the helper process has no word for {answer!r}: {error}"), "")))


def _watch(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
