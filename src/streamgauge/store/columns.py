"""The labels of all series as columns of codes in shared memory: the layout, and its writing side.

A series is a row; rows are in ascending order of series id and are never changed or moved. Each array is append-only
(`shared_arrays`), and what is not shared here is derived from it:

    letter  item    array
    i       uint32  series id of each row
    d       uint32  rows whose series has no data any more
    n       int32   dictionary that each text belongs to, or FILLER
    e       int64   end of each text in the heap; it starts where the one before ends
    h       uint8   the heap: UTF-8. No text lies in two segments; a FILLER text covers the rest of the segment
    p       int64   label << 32 | number of the page's rows, for each page of codes
    c       int32   pages of PAGE_ROWS codes: one a row, an index into the label's dictionary, or ABSENT

Dictionary 0 holds the label names; the label with code k there has dictionary k + 1, which is also its number.
Page n of a label holds rows [n * PAGE_ROWS, (n + 1) * PAGE_ROWS); a label has no page where no series has the label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.model.arrays import Int32s, Int64s, UInt32s
from streamgauge.model.frame import ABSENT
from streamgauge.model.labels import NAME, SEPARATOR
from streamgauge.store import arrow
from streamgauge.store.shared_arrays import GrowingArray
from streamgauge.store.shm import SharedMemory

PAGE_SHIFT = 11
PAGE_ROWS = 1 << PAGE_SHIFT
"""8 KiB a page: a label of few series costs little, and a column of a million rows is 489 pages."""
PAGE_MASK = PAGE_ROWS - 1

NAMES = 0
FILLER = -1

_SEPARATOR_BYTE = SEPARATOR[0]
_BULK_ROWS = 65_536
"""Keys taken apart at once: about 100 MB of intermediate arrays."""


@dataclass(frozen=True, slots=True)
class IndexSnapshot:
    """One state of the index: lengths, valid for as long as a lease on `base` is held."""

    base: str  # of the segments' names; another one after a rebuild
    rows: int
    dead: int
    texts: int
    pages: int

    @property
    def names(self) -> tuple[str, ...]:
        """What to hold a lease on."""
        return (self.base,)


class _Label:
    """What the writer knows of one label name."""

    __slots__ = ("codes", "number", "open_page", "page")

    def __init__(self, number: int) -> None:
        self.number = number
        self.codes: dict[bytes, int] = {}
        self.open_page = -1  # the page that `page` is
        self.page = memoryview(b"")


class LabelColumns:
    """The writing side. Used on one thread at a time."""

    def __init__(self, memory: SharedMemory) -> None:
        self.base = memory.new_name()
        self.rows = 0
        self.text_bytes = 0  # of the dictionaries' texts
        self._ids = GrowingArray(memory, self.base, "i", np.uint32)
        self._dead = GrowingArray(memory, self.base, "d", np.uint32)
        self._text_names = GrowingArray(memory, self.base, "n", np.int32)
        self._text_ends = GrowingArray(memory, self.base, "e", np.int64)
        self._heap = GrowingArray(memory, self.base, "h", np.uint8)
        self._pages = GrowingArray(memory, self.base, "p", np.int64)
        self._codes = GrowingArray(memory, self.base, "c", np.int32)
        self._arrays: tuple[GrowingArray[Any], ...] = (
            *(self._ids, self._dead, self._text_names, self._text_ends),
            *(self._heap, self._pages, self._codes),
        )
        self._labels: dict[bytes, _Label] = {}

    @property
    def allocated(self) -> int:
        """Bytes of shared memory."""
        return sum([array.allocated for array in self._arrays])

    @property
    def texts(self) -> int:
        """Texts in the dictionaries, label names counted."""
        return self._text_ends.length

    @property
    def dead(self) -> int:
        return self._dead.length

    def snapshot(self) -> IndexSnapshot:
        return IndexSnapshot(self.base, self.rows, self._dead.length, self._text_ends.length, self._pages.length)

    def remove(self) -> None:
        """Remove the shared memory."""
        for array in self._arrays:
            array.remove()

    def add(self, series: int, key: bytes) -> None:
        """Add the row of one series. Raises Overloaded when shared memory runs out; the row is then not there."""
        metric, *pieces = key.split(SEPARATOR)
        page = self.rows >> PAGE_SHIFT
        slot = self.rows & PAGE_MASK
        labels = self._labels
        try:
            if metric:
                self._set(NAME, metric, page, slot)
            for at in range(0, len(pieces) - 1, 2):
                name = pieces[at]
                label = labels.get(name)
                if label is not None and label.open_page == page:
                    code = label.codes.get(pieces[at + 1])
                    if code is not None:
                        label.page[slot] = code
                        continue
                self._set(name, pieces[at + 1], page, slot)
            self._ids.append(series)
        except BaseException:
            for label in labels.values():
                if label.open_page == page:
                    label.page[slot] = ABSENT
            raise
        self.rows += 1

    def add_many(self, ids: UInt32s, keys: pa.BinaryArray) -> None:
        """Add the rows of many series, `ids` ascending. Raises Overloaded; the columns are then of no further use."""
        for start in range(0, len(ids), _BULK_ROWS):
            self._add_chunk(ids[start : start + _BULK_ROWS], keys.slice(start, _BULK_ROWS))

    def mark_dead(self, rows: UInt32s) -> None:
        """Leave rows out of every later snapshot. Raises Overloaded."""
        self._dead.extend(rows)

    def _set(self, name: bytes, value: bytes, page: int, slot: int) -> None:
        label = self._labels.get(name) or self._new_label(name)
        code = label.codes.get(value)
        if code is None:
            code = self._new_text(label.number, label.codes, value)
        if label.open_page != page:
            self._open_page(label, page)
        label.page[slot] = code

    def _new_label(self, name: bytes) -> _Label:
        label = _Label(len(self._labels) + 1)
        self._append_text(NAMES, name)
        self._labels[name] = label
        return label

    def _new_text(self, dictionary: int, codes: dict[bytes, int], value: bytes) -> int:
        self._append_text(dictionary, value)
        code = codes[value] = len(codes)
        return code

    def _append_text(self, dictionary: int, text: bytes) -> None:
        room = self._heap.room()
        if 0 < room < len(text):
            self._publish_text(FILLER, room)
        self._publish_text(dictionary, len(text))[:] = np.frombuffer(text, np.uint8)
        self.text_bytes += len(text)

    def _publish_text(self, dictionary: int, size: int) -> npt.NDArray[np.uint8]:
        # What can fail comes first, so that the three arrays stay in step.
        self._text_names.reserve()
        self._text_ends.reserve()
        text = self._heap.allocate(size)
        self._text_names.append(dictionary)
        self._text_ends.append(self._heap.length)
        return text

    def _open_page(self, label: _Label, page: int) -> None:
        self._pages.reserve()
        codes = self._codes.allocate(PAGE_ROWS)
        codes[:] = ABSENT
        self._pages.append(label.number << 32 | page)
        label.page = memoryview(cast("Any", codes))
        label.open_page = page

    def _add_chunk(self, ids: UInt32s, keys: pa.BinaryArray) -> None:
        rows = np.arange(self.rows, self.rows + len(ids))
        for name, series, values in _take_apart(keys):
            label = self._labels.get(name) or self._new_label(name)
            local, texts = arrow.encode(values)
            codes = np.empty(len(texts), np.int32)
            for at, text in enumerate(texts):
                value = text[:-1]
                code = label.codes.get(value)
                codes[at] = self._new_text(label.number, label.codes, value) if code is None else code
            self._set_many(label, rows[series], codes[local])
        self._ids.extend(ids)
        self.rows += len(ids)

    def _set_many(self, label: _Label, rows: Int64s, codes: Int32s) -> None:
        pages = rows >> PAGE_SHIFT
        starts = np.flatnonzero(np.diff(pages, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            page = int(pages[start])
            if label.open_page != page:
                self._open_page(label, page)
            np.asarray(label.page)[rows[start:end] & PAGE_MASK] = codes[start:end]


def _take_apart(keys: pa.BinaryArray) -> Iterator[tuple[bytes, Int64s, pa.BinaryArray]]:
    """Each label of some keys as (name, positions of the keys that have it, their values with a separator behind)."""
    offsets, data = arrow.bounds_and_data(keys)
    ends = np.flatnonzero(data == _SEPARATOR_BYTE) + 1
    # Piece 0 of a key is its metric, then names and values alternate.
    pieces_before = np.searchsorted(ends, offsets, side="right")
    key_of_piece = np.repeat(np.arange(len(keys)), np.diff(pieces_before))
    place = np.arange(len(ends)) - pieces_before[key_of_piece]
    bounds = np.concatenate(([0], ends))
    pieces = arrow.binary_array(bounds, data)

    metrics = np.flatnonzero((place == 0) & (np.diff(bounds) > 1))
    if len(metrics):
        yield NAME, key_of_piece[metrics], arrow.take(pieces, metrics)
    names = np.flatnonzero(place & 1)
    codes, distinct = arrow.encode(arrow.take(pieces, names))
    by_name = names[np.argsort(codes, kind="stable")]
    ends_of_names = np.cumsum(np.bincount(codes, minlength=len(distinct)))
    for name, at in zip(distinct, np.split(by_name, ends_of_names[:-1]), strict=True):
        yield name[:-1], key_of_piece[at], arrow.take(pieces, at + 1)
