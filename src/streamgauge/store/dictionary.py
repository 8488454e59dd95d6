"""The dictionaries of the series index in a reader: the texts of a label as one Arrow array, built when first used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.model.arrays import Int64s
from streamgauge.store import arrow
from streamgauge.store.shared_arrays import GrownArray, Item


class Texts:
    """The texts of all dictionaries, in shared memory (arrays n, e and h of `columns`)."""

    def __init__(self, base: str) -> None:
        self._names = GrownArray(base, "n", np.int32)
        self._ends = GrownArray(base, "e", np.int64)
        self._heap = GrownArray(base, "h", np.uint8)

    def map(self, count: int) -> None:
        """Make the first `count` texts readable."""
        self._names.map(count)
        self._ends.map(count)
        if count:
            self._heap.map(int(self._ends.read(count - 1, count)[0]))

    def of(self, dictionary: int, start: int, end: int) -> Int64s:
        """Positions of those of the texts [start, end) that belong to a dictionary."""
        found = [first + np.flatnonzero(names == dictionary) for first, names in self._names.pieces(start, end)]
        return np.concatenate([np.empty(0, np.int64), *found])

    def gather(self, positions: Int64s) -> pa.BinaryArray:
        """The texts at ascending positions."""
        if not len(positions):
            return pa.array([], pa.binary())
        first, last = int(positions[0]), int(positions[-1])
        bounds = self._ends.read(max(first - 1, 0), last + 1)
        if first == 0:
            bounds = np.concatenate(([0], bounds))
        # Texts never cross a segment of the heap, so each segment is a binary array as it stands.
        cuts = np.searchsorted(bounds[:-1], [*self._heap.starts, np.iinfo(np.int64).max])
        parts = []
        for segment, low, high in zip(self._heap.starts, cuts[:-1], cuts[1:], strict=True):
            within = positions[np.searchsorted(positions, first + low) : np.searchsorted(positions, first + high)]
            if len(within):
                texts = arrow.binary_array(
                    bounds[low : high + 1] - segment, self._heap.read(segment, int(bounds[high]))
                )
                parts.append(arrow.take(texts, within - (first + low)))
        return pa.concat_arrays(parts)


_KEPT = 256
_KEPT_LENGTH = 256
"""Values whose codes are kept, and characters of one: 100 kB a label at most. The panels of a dashboard ask for the
same ones again and again, and to look through 100,000 takes half a millisecond."""


class Dictionary:
    """One label's texts as a private array that grows in place; arrays handed out before stay valid."""

    def __init__(self, texts: Texts, number: int) -> None:
        self._texts = texts
        self._number = number
        self._seen = 0  # texts of all dictionaries that were looked at
        self._count = 0
        self._codes: dict[str, int] = {}  # of some values that were found
        self._offsets = np.zeros(16, np.int32)
        self._data = np.empty(256, np.uint8)
        self.values = arrow.string_array(self._offsets[:1], self._data)
        """The texts in order of their codes. It may hold more than a snapshot's rows use."""

    def extend(self, texts: int) -> None:
        """Take in what the first `texts` texts of all dictionaries hold for this one."""
        if texts <= self._seen:
            return
        new = self._texts.gather(self._texts.of(self._number, self._seen, texts))
        self._seen = texts
        if not len(new):
            return
        bounds, data = arrow.bounds_and_data(new)
        used = int(self._offsets[self._count])
        count = self._count + len(new)
        self._offsets = _with_room(self._offsets, self._count + 1, count + 1)
        self._data = _with_room(self._data, used, used + len(data))
        self._offsets[self._count + 1 : count + 1] = bounds[1:] + used
        self._data[used : used + len(data)] = data
        self._count = count
        self.values = arrow.string_array(self._offsets[: count + 1], self._data)

    def find(self, value: str) -> int | None:
        """The code of a text, or None."""
        if (code := self._codes.get(value)) is not None:
            return code
        # Without a type pyarrow looks for one, and tries to import dateutil each time.
        wanted = pa.scalar(value, self.values.type)
        found = np.flatnonzero(arrow.booleans(arrow.compute.equal(self.values, wanted)))
        if not len(found):
            return None
        code = int(found[0])
        if len(value) <= _KEPT_LENGTH:
            if len(self._codes) == _KEPT:
                self._codes.clear()
            self._codes[value] = code
        return code


def _with_room(array: npt.NDArray[Item], used: int, needed: int) -> npt.NDArray[Item]:
    if needed <= len(array):
        return array
    grown = np.empty(max(needed, 2 * len(array)), array.dtype)
    grown[:used] = array[:used]
    return grown
