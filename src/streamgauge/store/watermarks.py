"""How far each series has come in blocks: what is not newer than that is late."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from streamgauge.model.arrays import Int64s, UInt32s

NO_WATERMARK = np.iinfo(np.int64).min
"""The watermark of a series that no block has."""


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The latest time that is in a block, by series. Two columns: 12 bytes for each series that blocks hold."""

    ids: UInt32s = field(default_factory=lambda: np.empty(0, np.uint32))  # ascending, each once
    latest: Int64s = field(default_factory=lambda: np.empty(0, np.int64))  # ms

    def of(self, ids: UInt32s) -> Int64s:
        """The watermark of each of the ids, or NO_WATERMARK."""
        found = np.full(len(ids), NO_WATERMARK, np.int64)
        at = np.searchsorted(self.ids, ids)
        known = np.flatnonzero(at < len(self.ids))
        known = known[self.ids[at[known]] == ids[known]]
        found[known] = self.latest[at[known]]
        return found

    def raised(self, ids: UInt32s, latest: Int64s) -> Watermarks:
        """These, and what further blocks hold. The ids may come in any order, and more than once."""
        if not len(ids):
            return self
        everything = np.concatenate((self.ids, ids))
        order = np.argsort(everything, kind="stable")  # takes the part that is in order as it is
        everything = everything[order]
        first = np.concatenate(([0], np.flatnonzero(everything[1:] != everything[:-1]) + 1))
        return Watermarks(everything[first], np.maximum.reduceat(np.concatenate((self.latest, latest))[order], first))

    def only(self, ids: UInt32s) -> Watermarks:
        """Those of the ids (ascending) alone."""
        at = np.searchsorted(ids, self.ids)
        known = np.flatnonzero(at < len(ids))
        known = known[ids[at[known]] == self.ids[known]]
        return Watermarks(self.ids[known], self.latest[known])
