"""Waking the background thread, which waits for its socket or for this, whichever comes first."""

from __future__ import annotations

import contextlib
import selectors
import socket


class Waker:
    """`wake` may be called from any thread, at any time, and never blocks; all else is for the thread that waits, which
    opens it first and then looks for what there is to do."""

    def __init__(self) -> None:
        self._inner: socket.socket | None = None
        self._outer: socket.socket | None = None

    def open(self) -> None:
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)

    def wake(self) -> None:
        if (outer := self._outer) is not None:
            with contextlib.suppress(OSError):  # when it is full it wakes anyway, and when it is closed nobody waits
                outer.send(b"w")

    def fileno(self) -> int:
        assert self._inner is not None
        return self._inner.fileno()

    def clear(self) -> None:
        assert self._inner is not None
        with contextlib.suppress(OSError):
            self._inner.recv(4096)

    def wait(self, seconds: float | None) -> None:
        """Until it is woken, or for so long."""
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.select(seconds)
        self.clear()

    def close(self) -> None:
        for end in (self._inner, self._outer):
            if end is not None:
                end.close()


def is_readable(connection: socket.socket) -> bool:
    """Whether something, or its end, has come."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(0))
