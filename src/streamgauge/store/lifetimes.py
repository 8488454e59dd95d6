"""When chosen series had their first and their last sample, gathered from many places."""

from __future__ import annotations

import numpy as np

from streamgauge.model.arrays import Bools, Int64s, UInt32s
from streamgauge.store.head_view import Chosen
from streamgauge.store.ports import FIRST_TIME, LAST_TIME

BYTES_PER_SERIES = 16
"""Of the two times that are kept."""
BYTES_PER_ROW = 64
"""While a place is looked through: of each of its series, and of each chosen one."""


class Bounds:
    """first, last: ms, of each of the chosen series; LAST_TIME and FIRST_TIME for one that nothing is known of."""

    def __init__(self, ids: UInt32s) -> None:
        """ids: the chosen series, ascending, at least one."""
        self._chosen = Chosen(ids)
        self.first: Int64s = np.full(len(ids), LAST_TIME)
        self.last: Int64s = np.full(len(ids), FIRST_TIME)

    def add(self, ids: UInt32s, first: Int64s, last: Int64s) -> None:
        """What one place holds: distinct series in any order, and the first and last time of each."""
        inside = np.flatnonzero((ids >= self._chosen.low) & (ids <= self._chosen.high))
        at = self._chosen.positions(ids[inside])
        inside, at = inside[at >= 0], at[at >= 0]
        self.first[at] = np.minimum(self.first[at], first[inside])
        self.last[at] = np.maximum(self.last[at], last[inside])

    def known(self) -> Bools:
        """Which of the chosen series some place holds."""
        known: Bools = self.first <= self.last
        return known
