"""Append-only arrays in shared memory: one writer, readers that know how long an array was when they were sent.

An array is spread over segments named `<base><letter><number>`. Segments start at 64 KiB and double up to 4 MiB, so
that an empty array costs little and the creation of a segment never holds the event loop for more than about 1.3 ms.
Nothing that lies below a published length ever changes, and both sides derive names and sizes from the schedule: a
length is all that a reader needs to be told.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Int64s
from streamgauge.store.shm import SharedMemory, attach

FIRST_BYTES = 64 << 10
LARGEST_BYTES = 4 << 20
_DOUBLINGS = (LARGEST_BYTES // FIRST_BYTES).bit_length() - 1
_BEFORE_LARGEST = LARGEST_BYTES - FIRST_BYTES

Item = TypeVar("Item", bound=np.generic)


def segment_bytes(number: int) -> int:
    """The size of an array's segment."""
    return FIRST_BYTES << min(number, _DOUBLINGS)


def segment_start(number: int) -> int:
    """The first byte of an array that lies in the segment."""
    if number <= _DOUBLINGS:
        return FIRST_BYTES * ((1 << number) - 1)
    return _BEFORE_LARGEST + LARGEST_BYTES * (number - _DOUBLINGS)


def segments_for(size: int) -> int:
    """How many segments hold the first `size` bytes of an array."""
    if size <= _BEFORE_LARGEST:
        return (size // FIRST_BYTES + (size % FIRST_BYTES > 0)).bit_length()
    return _DOUBLINGS + -(-(size - _BEFORE_LARGEST) // LARGEST_BYTES)


def segment_name(base: str, letter: str, number: int) -> str:
    return f"{base}{letter}{number}"


class GrowingArray(Generic[Item]):
    """The writing side. Used on one thread at a time."""

    def __init__(self, memory: SharedMemory, base: str, letter: str, dtype: type[Item]) -> None:
        self._memory = memory
        self._base = base
        self._letter = letter
        self._dtype = np.dtype(dtype)
        self._segments = 0
        self._current: npt.NDArray[Item] = np.empty(0, dtype)
        self._items = _items_of(self._current)  # setting one item is faster than through NumPy
        self._start = 0  # index of the current segment's first item
        self._room = 0  # items that the current segment holds
        self.length = 0
        self.allocated = 0  # bytes of shared memory

    def reserve(self) -> None:
        """Make sure that one more item fits. Raises Overloaded when there is no shared memory left."""
        if self.length - self._start == self._room:
            self._grow()

    def append(self, item: int) -> None:
        """Append one item. Raises Overloaded like `reserve`; the array is then unchanged."""
        if self.length - self._start == self._room:
            self._grow()
        self._items[self.length - self._start] = item
        self.length += 1

    def room(self) -> int:
        """Items that still fit the current segment."""
        return self._start + self._room - self.length

    def allocate(self, count: int) -> npt.NDArray[Item]:
        """Append `count` items that lie in one segment, and return them to be filled in.

        They must fit: a segment that has `room` for fewer must be filled first. Raises Overloaded like `reserve`.
        """
        self.reserve()
        assert count <= self.room()
        used = self.length - self._start
        self.length += count
        return self._current[used : used + count]

    def extend(self, items: bytes) -> None:
        """Append as many items as there are bytes to an array of bytes. They must fit, as in `allocate`."""
        self.reserve()
        assert len(items) <= self.room()
        used = self.length - self._start
        self._items[used : used + len(items)] = items
        self.length += len(items)

    def _grow(self) -> None:
        name = segment_name(self._base, self._letter, self._segments)
        segment = self._memory.create(segment_bytes(self._segments), name)
        self._start += self._room
        self._room = segment.size // self._dtype.itemsize
        self._current = cast("npt.NDArray[Item]", segment.array(self._dtype, 0, self._room))
        self._items = _items_of(self._current)
        self._segments += 1
        self.allocated += segment.size

    def remove(self) -> None:
        """Remove the segments; nothing may be appended any more. Readers that have mapped them can go on."""
        self._current = np.empty(0, self._dtype)
        self._items = _items_of(self._current)
        for number in range(self._segments):
            self._memory.remove(segment_name(self._base, self._letter, number))


def _items_of(items: npt.NDArray[Item]) -> memoryview:
    return memoryview(cast("Any", items))


class GrownArray(Generic[Item]):
    """The reading side: maps segments as the lengths it is asked for need them, and keeps them."""

    def __init__(self, base: str, letter: str, dtype: type[Item]) -> None:
        self._base = base
        self._letter = letter
        self._dtype = np.dtype(dtype)
        self._segments: list[npt.NDArray[Item]] = []
        self.starts: list[int] = []
        """Index of each mapped segment's first item."""

    def map(self, length: int) -> None:
        """Map what the first `length` items lie in. Raises StorageError."""
        for number in range(len(self._segments), segments_for(length * self._dtype.itemsize)):
            size = segment_bytes(number)
            segment = attach(segment_name(self._base, self._letter, number), size)
            items = segment.array(self._dtype, 0, size // self._dtype.itemsize)
            self._segments.append(cast("npt.NDArray[Item]", items))
            self.starts.append(segment_start(number) // self._dtype.itemsize)

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, npt.NDArray[Item]]]:
        """The mapped items [start, end) as (index of the first, view), in order."""
        while start < end:
            number = bisect_right(self.starts, start) - 1
            offset = start - self.starts[number]
            view = self._segments[number][offset : offset + end - start]
            yield start, view
            start += len(view)

    def read(self, start: int, end: int) -> npt.NDArray[Item]:
        """The items [start, end), a view where they lie in one segment."""
        views = [view for _, view in self.pieces(start, end)]
        if len(views) == 1:
            return views[0]
        return np.concatenate(views) if views else np.empty(0, self._dtype)

    def take(self, indices: Int64s) -> npt.NDArray[Item]:
        """The items at `indices`, which ascend."""
        if not len(indices):
            return np.empty(0, self._dtype)
        number = bisect_right(self.starts, int(indices[0])) - 1
        if bisect_right(self.starts, int(indices[-1])) - 1 == number:
            return self._segments[number][indices - self.starts[number]]
        cuts = np.searchsorted(indices, [*self.starts, np.iinfo(np.int64).max])
        taken = np.empty(len(indices), self._dtype)
        for segment, first, low, high in zip(self._segments, self.starts, cuts[:-1], cuts[1:], strict=True):
            if high > low:
                np.take(segment, indices[low:high] - first, out=taken[low:high], mode="clip")
        return taken

    def blocks(self, numbers: Int64s, size: int) -> Iterator[tuple[int, npt.NDArray[Item]]]:
        """The blocks of `size` items with the given ascending numbers, as (position in `numbers`, [n, size] copy)."""
        cuts = np.searchsorted(numbers * size, [*self.starts, np.iinfo(np.int64).max])
        for segment, first, low, high in zip(self._segments, self.starts, cuts[:-1], cuts[1:], strict=True):
            if high > low:
                yield int(low), segment.reshape(-1, size)[numbers[low:high] - first // size]
