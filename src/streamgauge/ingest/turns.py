"""Turns on the event loop for whatever decodes: a pass of it has room for a few, however many senders there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from streamgauge.clock import Clock, SystemClock
from streamgauge.errors import StreamgaugeError

T = TypeVar("T")

PASS_SECONDS = 0.002
"""Of steps in a row, until others have their turn. A step takes a millisecond at most and mostly a tenth, and a pass of
the loop costs as much as a small one."""


class Turns:
    """Without it, a pass of the loop decodes a batch of every request that is ready: with twenty senders, each with a
    batch of a millisecond, everybody else waits for twenty.

    seconds: that steps may take in a pass of the loop; the last of them may go beyond it.
    """

    def __init__(self, clock: Clock | None = None, seconds: float = PASS_SECONDS) -> None:
        self.expected = 0  # how many are within `expecting`
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._spent = 0.0  # since the last pass that is known of
        self._waiting = 0
        self._lock = asyncio.Lock()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Within it somebody fetches or decodes what is then appended."""
        self.expected += 1
        try:
            yield
        finally:
            self.expected -= 1

    def free(self) -> bool:
        """Whether a step would have its turn at once."""
        return not self._waiting and self._spent < self._seconds

    def at_once(self, step: Callable[[], T]) -> T | None:
        """What `step` returns, where it has its turn at once. None where it would have to wait, or raises a
        StreamgaugeError: who then takes the usual way is told there what is wrong."""
        if not self.free():
            return None
        try:
            return self._run(step)
        except StreamgaugeError:
            return None

    async def take(self, step: Callable[[], T]) -> T:
        """What `step` returns or raises, when it was this caller's turn; first come, first served."""
        if self.free():
            return self._run(step)
        self._waiting += 1
        try:
            async with self._lock:
                if self._spent >= self._seconds:
                    await asyncio.sleep(0)
                    self._spent = 0.0
                return self._run(step)
        finally:
            self._waiting -= 1

    def _run(self, step: Callable[[], T]) -> T:
        began = self._clock.monotonic()
        try:
            return step()
        finally:
            self._spent += self._clock.monotonic() - began
            if self._spent >= self._seconds:
                asyncio.get_running_loop().call_soon(self._begin_pass)

    def _begin_pass(self) -> None:
        self._spent = 0.0
