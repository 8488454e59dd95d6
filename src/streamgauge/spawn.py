"""Starting the processes that belong to the server: those that run queries and those that write blocks."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from types import ModuleType

_starting = threading.Lock()
"""What a start changes for its length belongs to the whole process."""


def start(process: BaseProcess) -> None:
    """Start a process made for spawn, with SIGINT and SIGTERM blocked: a child inherits that, and it is to call
    `leave_signals_to_the_server` before anything else.

    Takes milliseconds, as the page tables of the server are copied: not for the event loop's thread.
    """
    with _starting:
        if sys.platform == "win32":
            with _bare_main():
                process.start()
            return
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # it would be started on the way and take the block away
        blocked = {signal.SIGINT, signal.SIGTERM}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            with _bare_main():
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_the_server() -> None:
    """In a child: a terminal or a service manager signals all processes; the server decides when its children end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # blocked by who started us


def end_with_the_server() -> None:
    """In a child: let the kernel end this process when the server's does, even within a call that keeps the
    interpreter lock, where no thread gets a turn. Linux only.

    The server holds the other end of the sentinel, a pipe into which nothing is written: its only event is its end.
    """
    parent = multiprocessing.parent_process()
    if sys.platform != "linux" or parent is None:
        return
    import fcntl
    import os

    sentinel = int(parent.sentinel)
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)


@contextlib.contextmanager
def _bare_main() -> Iterator[None]:
    """While this lasts, a spawned process does not find the program's main module.

    It would run it again, which costs the imports of the whole server, and recurses where the module is not guarded.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
