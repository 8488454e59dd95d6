"""Calls that another thread wants the event loop to make."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable


class Mailbox:
    """Makes the calls in the order in which one thread posts them.

    asyncio's own way wakes the loop by a socket that it reads twice, with a handle and a context for each call. Where
    there is an event counter (Linux), a write and a read of that are all: a twentieth of what a small append costs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Loop thread."""
        self._loop = loop
        self._calls: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._event: int | None = None
        if sys.platform == "linux":
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            loop.add_reader(self._event, self._collect)

    def post(self, function: Callable[..., None], *arguments: object) -> None:
        """The other thread. What is posted to a loop that was closed is lost."""
        self._calls.append((function, arguments))
        if sys.platform == "linux" and self._event is not None:
            os.eventfd_write(self._event, 1)
            return
        try:
            self._loop.call_soon_threadsafe(self._make_calls)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def close(self) -> None:
        """Loop thread, when the other one has ended: make the calls that are left."""
        self._make_calls()
        if self._event is not None:
            self._loop.remove_reader(self._event)
            os.close(self._event)
            self._event = None

    def _collect(self) -> None:
        if sys.platform == "linux" and self._event is not None:
            os.eventfd_read(self._event)
        self._make_calls()

    def _make_calls(self) -> None:
        while self._calls:
            function, arguments = self._calls.popleft()
            try:
                function(*arguments)
            except Exception as error:  # a bug, which is to hold up none of the calls behind it
                self._loop.call_exception_handler({"message": f"{function!r} failed", "exception": error})
