"""Sets of series ids as pages of flags, since ids are never given again and few of those ever given are in use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Bools, UInt32s

_SHIFT = 8
_PAGE = 1 << _SHIFT
"""Ids of a page, and so bytes that an id far from all others takes. The table of pages has 8 bytes for each page of
ids ever given: 12 MB after a year of a million new series a day, 128 MiB when all 2^32 have been used."""
_MASK = _PAGE - 1


class IdSet:
    """A set of series ids in memory for the ids that were added to it, not for all that were ever given."""

    def __init__(self) -> None:
        # Where the flags of each 256 ids begin. Page 0 has no id in it; the last entry is always 0, and stands for all
        # beyond.
        self._table: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._flags: Bools = np.zeros(_PAGE, np.bool_)
        self._pages = 1
        self._last = (0, 0)  # the page that one was added to last: its first id and where its first flag is

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self._table.nbytes + self._flags.nbytes

    def contains(self, ids: UInt32s) -> Bools:
        """For each of the ids whether it is in the set. About 5 ns each."""
        found: Bools = self._flags[self._places(ids)]
        return found

    def add(self, ids: UInt32s) -> None:
        places = self._places(ids)
        if len(places) and int(places.min()) < _PAGE:
            self._add_pages(np.unique(ids[places < _PAGE] >> _SHIFT))
            places = self._places(ids)
        self._flags[places] = True

    def add_one(self, series: int) -> None:
        first, place = self._last
        if not place or not 0 <= series - first < _PAGE:
            first, place = self._last = series & ~_MASK, self._page_of(series >> _SHIFT)
        self._flags[place + series - first] = True

    def _page_of(self, number: int) -> int:
        """Where the flags of a page begin, which is made if it is not there."""
        if number >= len(self._table) or not self._table[number]:
            self._add_pages(np.array([number], np.uint32))
        return int(self._table[number])

    def discard_one(self, series: int) -> None:
        number = series >> _SHIFT
        if number < len(self._table):
            self._flags[int(self._table[number]) | series & _MASK] = False

    def discard(self, ids: UInt32s) -> None:
        """Take ids out, be they in the set or not. Their pages stay."""
        self._flags[self._places(ids)] = False

    def _places(self, ids: UInt32s) -> npt.NDArray[np.int64]:
        """Where the flag of each id is; in page 0 when its page is not there."""
        places = self._table.take(ids >> _SHIFT, mode="clip")
        places |= ids & _MASK
        return places

    def _add_pages(self, numbers: UInt32s) -> None:
        needed = int(numbers[-1]) + 2
        if needed > len(self._table):
            grown = np.zeros(max(needed, 2 * len(self._table)), np.int64)
            grown[: len(self._table)] = self._table
            self._table = grown
        first, self._pages = self._pages, self._pages + len(numbers)
        if self._pages * _PAGE > len(self._flags):
            flags = np.zeros(max(self._pages * _PAGE, 2 * len(self._flags)), np.bool_)
            flags[: len(self._flags)] = self._flags
            self._flags = flags
        self._table[numbers] = np.arange(first, self._pages) << _SHIFT
