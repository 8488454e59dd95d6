"""What was just stored and is not sent yet: in memory, up to a bound; beyond that it is read from the store."""

from __future__ import annotations

import asyncio
from collections import deque

from streamgauge.model.batch import SampleBatch, joined


class SampleQueue:
    """Used on the event loop. It follows, or it does not: commits are then passed over until `follow`."""

    def __init__(self, max_rows: int, enough: int) -> None:
        self._max_rows = max_rows
        self._enough = enough
        self._held: deque[tuple[int, SampleBatch]] = deque()
        self.following = False
        self.rows = 0
        self.last = 0  # the last commit that was held
        self.news = asyncio.Event()  # set while something is held, or it does not follow
        self.crowded = asyncio.Event()  # set while `enough` rows are held, or it does not follow
        self._wake()

    def follow(self) -> None:
        """Hold all commits from the next on."""
        assert not self._held
        self.following = True
        self._wake()

    @property
    def behind(self) -> bool:
        """It holds nothing, and passes commits over."""
        return not self.following and not self._held

    def add(self, commit: int, batch: SampleBatch) -> None:
        if not self.following or not len(batch):
            return
        if self.rows + len(batch) > self._max_rows:
            self.following = False
        else:
            self._held.append((commit, batch))
            self.last = commit
            self.rows += len(batch)
        self._wake()

    def take(self, rows: int) -> tuple[int, SampleBatch]:
        """The oldest commits, until they have so many rows together, and the last of them. At least one."""
        taken = []
        commit, count = 0, 0
        while self._held and count < rows:
            commit, batch = self._held.popleft()
            taken.append(batch)
            count += len(batch)
        self.rows -= count
        self._wake()
        return commit, joined(taken)

    def _wake(self) -> None:
        for event, wanted in ((self.news, 1), (self.crowded, self._enough)):
            if self.rows >= wanted or not self.following:
                event.set()
            else:
                event.clear()
