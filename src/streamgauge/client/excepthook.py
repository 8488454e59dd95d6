"""Exceptions that nobody caught, as events."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from streamgauge.client.encoding import rfc3339
from streamgauge.client.events import EventWriter, describe_error, with_trace


def install_excepthook(writer: EventWriter, clock: Callable[[], int] = time.time_ns) -> Callable[[], None]:
    """Send an event for each exception that ends the program or a thread, and then do what was done before.

    Returns a function that takes the hooks out again, unless others were put over them.
    """
    before, before_in_threads = sys.excepthook, threading.excepthook

    def send(error: BaseException, trace: TracebackType | None, thread: str) -> None:
        event: dict[str, Any] = {
            "type": "log",
            "time": rfc3339(clock()),
            "level": "CRITICAL",
            "logger": "excepthook",
            "message": f"uncaught {type(error).__qualname__}",
            "thread": thread,
            "exception": describe_error(error, trace),
        }
        writer.write(with_trace(event))

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            if not issubclass(kind, KeyboardInterrupt):
                send(error, trace, threading.current_thread().name)
        finally:
            before(kind, error, trace)

    def thread_hook(args: threading.ExceptHookArgs) -> None:
        try:
            if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
                send(args.exc_value, args.exc_traceback, "" if args.thread is None else args.thread.name)
        finally:
            before_in_threads(args)

    def uninstall() -> None:
        if sys.excepthook is hook:
            sys.excepthook = before
        if threading.excepthook is thread_hook:
            threading.excepthook = before_in_threads

    sys.excepthook, threading.excepthook = hook, thread_hook
    return uninstall
