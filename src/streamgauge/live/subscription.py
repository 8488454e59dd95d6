"""What one live tail is to be sent: a bounded buffer between the hub and a connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streamgauge.live.messages import Frame

DELIVERY_BYTES = 64 << 10
"""Handed over at once: what the connection takes before it is full."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """lost: messages that are missing before these frames; unchecked: what was not looked at, so that some of it may be
    missing, too. With nothing in it, it is a sign of life."""

    frames: tuple[Frame, ...] = ()
    lost: int = 0
    unchecked: int = 0


class Subscription:
    """Used on the event loop. limit: bytes in the buffer. cut: the last commit stored. left: called at the end."""

    def __init__(self, limit: int, cut: Callable[[], int], left: Callable[[], None]) -> None:
        self.lost_in_all = 0
        self._limit = limit
        self._cut = cut
        self._left: Callable[[], None] | None = left
        self._after: int | None = None  # the commit after which it follows
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._lost = 0
        self._unchecked = 0
        self._beats = False
        self._ended = False
        self._news = asyncio.Event()

    def follow(self) -> None:
        """From now on: what is stored after this step, and nothing that a snapshot taken in this step has."""
        self._after = self._cut()

    async def next(self) -> Delivery | None:
        """What there is, as soon as there is something; None when the server ends the tail."""
        while True:
            await self._news.wait()
            if self._ended:
                return None
            delivery = self._take()
            if not self._frames:
                self._news.clear()
            if delivery is not None:
                return delivery

    def _take(self) -> Delivery | None:
        frames: list[Frame] = []
        size = 0
        while self._frames and (not frames or size + len(self._frames[0].sse) <= DELIVERY_BYTES):
            frames.append(self._frames.popleft())
            size += len(frames[-1].sse)
        self._bytes -= size
        if not (frames or self._lost or self._unchecked or self._beats):
            return None
        delivery = Delivery(tuple(frames), self._lost, self._unchecked)
        self._lost = self._unchecked = 0
        self._beats = False
        return delivery

    def close(self) -> None:
        """The client has gone."""
        left, self._left = self._left, None
        self._frames.clear()
        if left is not None:
            left()

    # ---- from the hub -----------------------------------------------------------------------------------------------

    def give(self, frame: Frame) -> bool:
        """Whether it is one that this tail gets, now or never."""
        if self._after is None or frame.commit <= self._after:
            return False
        self._frames.append(frame)
        self._bytes += len(frame.sse)
        while self._bytes > self._limit and len(self._frames) > 1:
            oldest = self._frames.popleft()
            self._bytes -= len(oldest.sse)
            self._lost += oldest.messages
            self.lost_in_all += oldest.messages
        self._news.set()
        return True

    def miss(self, commit: int, count: int) -> None:
        if self._after is not None and commit > self._after:
            self._unchecked += count
            self._news.set()

    def beat(self) -> None:
        self._beats = True
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()
