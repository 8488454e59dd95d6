"""Series of remote write 2.0 by their rows: the codes of a series' label names and values in turn, and of its metadata.

A sender keeps the order of its series, wherever the boundaries between its requests fall. So rows are kept in the order
in which they were first seen, and a batch of rows is compared with the stretch that begins with its first one: as
exact as to look up each, at a fraction of the cost.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Int64s, UInt32s

_OVERHEAD = 160
"""Bytes of a row beside its codes, which are there twice, with room for as many again (measured)."""
_FIRST_ROWS = 8
_TRIED = 32
"""Rows that are compared before the rest of a stretch is."""
_MOST_STRETCHES = 8
"""Of a batch; what is in no order at all is looked up row by row."""

UNKNOWN = -1


class _Order:
    """Rows of one width, numbered (`slots`) in the order in which they were first seen."""

    def __init__(self, width: int) -> None:
        self.slots: dict[bytes, int] = {}
        self._codes: npt.NDArray[np.uint32] = np.empty((_FIRST_ROWS, width), np.uint32)
        self._ids: Int64s = np.empty(_FIRST_ROWS, np.int64)

    def add(self, row: bytes, series: int) -> None:
        slot = self.slots[row] = len(self.slots)
        if slot == len(self._ids):
            self._codes = np.concatenate((self._codes, np.empty_like(self._codes)))
            self._ids = np.concatenate((self._ids, np.empty_like(self._ids)))
        self._codes[slot] = np.frombuffer(row, np.uint32)
        self._ids[slot] = series

    def id_of(self, row: bytes) -> int | None:
        slot = self.slots.get(row)
        return None if slot is None else int(self._ids[slot])

    def ids_of(self, rows: UInt32s) -> Int64s:
        """The id of each of the rows, uint32[rows, width]; UNKNOWN where there is none."""
        ids = np.full(len(rows), UNKNOWN)
        at = 0
        for _ in range(_MOST_STRETCHES):
            slot = self.slots.get(rows[at].tobytes())
            length = 1 if slot is None else self._stretch(rows[at:], slot)
            if slot is not None:
                ids[at : at + length] = self._ids[slot : slot + length]
            at += length
            if at == len(rows):
                return ids
        raw, size = rows[at:].tobytes(), rows.shape[1] * rows.itemsize
        found = map(self.slots.get, (raw[begin : begin + size] for begin in range(0, len(raw), size)))
        slots = np.array([UNKNOWN if slot is None else slot for slot in found], np.int64)
        ids[at:] = np.where(slots == UNKNOWN, UNKNOWN, self._ids[slots])
        return ids

    def _stretch(self, rows: UInt32s, slot: int) -> int:
        """How many rows are those from `slot` on; at least one is."""
        most = min(len(rows), len(self.slots) - slot)
        for tried in (min(_TRIED, most), most):
            expected = self._codes[slot : slot + tried]
            if not np.array_equal(rows[:tried], expected):
                return int((rows[:tried] != expected).any(axis=1).argmax())
        return most


class RowCache:
    """Row to series id, in two generations, as `SpellingCache`.

    size: bytes held by the young one.
    """

    def __init__(self) -> None:
        self._young: dict[int, _Order] = {}  # by width
        self._old: dict[int, _Order] = {}
        self.size = 0

    def ids_of(self, rows: UInt32s) -> Int64s:
        """The id of each of the rows, uint32[rows, width], at least one; UNKNOWN where only `get` may know it."""
        order = self._young.get(rows.shape[1])
        return np.full(len(rows), UNKNOWN) if order is None else order.ids_of(rows)

    def get(self, row: bytes) -> int | None:
        """The id of the row with these bytes."""
        width = len(row) // 4
        young, old = self._young.get(width), self._old.get(width)
        known = young.id_of(row) if young is not None else None
        if known is None and old is not None and (known := old.id_of(row)) is not None:
            self.put(row, known)
        return known

    def put(self, row: bytes, series: int) -> None:
        """Note a row that is not known."""
        width = len(row) // 4
        if width not in self._young:
            self._young[width] = _Order(width)
        self._young[width].add(row, series)
        self.size += 3 * len(row) + _OVERHEAD

    def rotate(self) -> None:
        self._old, self._young, self.size = self._young, {}, 0
