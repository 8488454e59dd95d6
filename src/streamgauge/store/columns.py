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

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from streamgauge.errors import IndexFull, LabelFull, MetricFull
from streamgauge.model.frame import ABSENT
from streamgauge.model.labels import NAME, SEPARATOR
from streamgauge.model.series_limits import SeriesLimits
from streamgauge.store.shared_arrays import GrowingArray
from streamgauge.store.shm import SharedMemory

PAGE_SHIFT = 11
PAGE_ROWS = 1 << PAGE_SHIFT
"""8 KiB a page: a label of few series costs little, and a column of a million rows is 489 pages."""
PAGE_MASK = PAGE_ROWS - 1

NAMES = 0
FILLER = -1
UNBOUNDED = 1 << 62

_FORGOTTEN_AT_ONCE = 8192
_SPELLED = 1024
_SPELLED_BYTES = 512
"""What a series has beside its metric's name is remembered, since the other metrics of the same target come next and
have the same: so many of them, at most so many bytes each; a megabyte and a half in all. Those that are remembered are
of living series."""
_SHOWN = 60
"""Characters of a name that an error repeats: what stands behind it, the limit, must fit an answer's line."""


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

    __slots__ = ("codes", "number", "open_page", "page", "series", "text_bytes", "used")

    def __init__(self, number: int) -> None:
        self.number = number
        self.codes: dict[bytes, int] = {}
        self.series = array("I")  # living series that have the value, by its code
        self.used = 0  # values that some living series has
        self.text_bytes = 0  # of its distinct values
        self.open_page = -1  # the page that `page` is
        self.page = memoryview(b"")

    def series_with(self, value: bytes) -> int:
        code = self.codes.get(value)
        return 0 if code is None else self.series[code]


Codes = Sequence[tuple[_Label, int]]
"""Labels of a series and their codes."""


class LabelColumns:
    """The writing side. Used on one thread at a time."""

    def __init__(self, memory: SharedMemory) -> None:
        self.base = memory.new_name()
        self.rows = 0
        self.text_bytes = 0  # of the dictionaries' texts
        self._name_bytes = 0  # of those, the names of labels
        self._ids = GrowingArray(memory, self.base, "i", np.uint32)
        self._dead = GrowingArray(memory, self.base, "d", np.uint32)
        self._text_names = GrowingArray(memory, self.base, "n", np.int32)
        self._text_ends = GrowingArray(memory, self.base, "e", np.int64)
        self._heap = GrowingArray(memory, self.base, "h", np.uint8)
        self._pages = GrowingArray(memory, self.base, "p", np.int64)
        self._codes = GrowingArray(memory, self.base, "c", np.int32)
        columns = (self._ids, self._dead, self._pages, self._codes)
        self._arrays: tuple[GrowingArray[Any], ...] = (*columns, self._text_names, self._text_ends, self._heap)
        self._labels: dict[bytes, _Label] = {}
        self._spelled: dict[bytes, Codes | None] = {}  # by how a key spells them; None where that came once

    @property
    def allocated(self) -> int:
        """Bytes of shared memory."""
        # Asked for with each new series: a sum over a list would take longer than all that is left to do for it.
        rows = self._ids.allocated + self._dead.allocated + self._pages.allocated + self._codes.allocated
        return rows + self._text_names.allocated + self._text_ends.allocated + self._heap.allocated

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
        """Remove the shared memory; nothing may be added any more."""
        self._spelled.clear()
        for label in self._labels.values():
            label.page = memoryview(b"")
        for shared in self._arrays:
            shared.remove()

    def forget(self) -> Iterator[None]:
        """Free the writer's dictionaries, about 1 ms a step; letting go of a large one at once takes far longer."""
        for label in self._labels.values():
            while label.codes:
                for _ in range(min(_FORGOTTEN_AT_ONCE, len(label.codes))):
                    label.codes.popitem()
                yield

    def add(self, series: int, key: bytes, label_bytes: int = UNBOUNDED, limits: SeriesLimits | None = None) -> None:
        """Add the row of one series. Raises Overloaded when shared memory runs out, IndexFull when the distinct values
        of a label, or all names, would take more than `label_bytes`, and MetricFull or LabelFull when there would be
        more than `limits` allow; the row is then not there."""
        codes = self._codes_of(key, label_bytes, limits)
        page = self.rows >> PAGE_SHIFT
        slot = self.rows & PAGE_MASK
        try:
            self._ids.reserve()
            for label, code in codes:
                if label.open_page != page:
                    self._open_page(label, page)
                label.page[slot] = code
                series_with = label.series[code]
                label.series[code] = series_with + 1
                if not series_with:
                    label.used += 1
        except BaseException:
            self._take_back(codes, page, slot)
            raise
        self._ids.append(series)
        self.rows += 1

    def _take_back(self, codes: Codes, page: int, slot: int) -> None:
        """Undo what was done of a row: those of its labels that have been counted stand in their pages."""
        for label, code in codes:
            if label.open_page == page and label.page[slot] != ABSENT:
                label.page[slot] = ABSENT
                self._discount(label, code)
        self._spelled.clear()  # what was put there may be of values that no living series has

    def _codes_of(self, key: bytes, label_bytes: int, limits: SeriesLimits | None) -> Codes:
        """Label and code of each pair of a key, the metric's name first; new ones are put into dictionaries. Raises as
        `add`, and then nothing has been counted."""
        metric, _, others = key.partition(SEPARATOR)
        codes = self._spelled.get(others)
        if codes is None or not metric:
            return codes or self._look_up(metric, others, label_bytes, limits)
        label = self._labels.get(NAME)
        code = None if label is None else label.codes.get(metric)
        if label is None or code is None or not (series := label.series[code]):
            return self._look_up(metric, others, label_bytes, limits)
        if limits is not None:
            _check_series(metric, series, limits)
        return [(label, code), *codes]

    def _look_up(self, metric: bytes, others: bytes, label_bytes: int, limits: SeriesLimits | None) -> Codes:
        pairs = _pairs(metric, others)
        if limits is not None and metric:
            _check_series(metric, self.series_with(NAME, metric), limits)
        labels = self._labels
        codes: list[tuple[_Label, int]] = []
        for name, value in pairs:
            label = labels.get(name)
            code = None if label is None else label.codes.get(value)
            if label is None or code is None or not label.series[code]:
                if limits is not None:
                    self._check_values(pairs[len(codes) :], limits)
                    limits = None
                label = label or self._new_label(name, label_bytes)
                if code is None:
                    code = self._new_text(name, label, value, label_bytes)
            codes.append((label, code))
        if len(others) <= _SPELLED_BYTES:
            self._note(others, codes[1:] if metric else codes)
        return codes

    def _note(self, others: bytes, codes: Codes) -> None:
        """Remember what a key has beside the metric's name when it comes for the second time."""
        if others in self._spelled:
            self._spelled[others] = codes
            return
        if len(self._spelled) >= _SPELLED:
            self._spelled.clear()
        self._spelled[others] = None

    def mark_dead(self, row: int, key: bytes) -> None:
        """Leave a row, whose series has this key, out of every later snapshot. Raises Overloaded; it then stays."""
        self._dead.append(row)
        metric, _, others = key.partition(SEPARATOR)
        for name, value in _pairs(metric, others):
            label = self._labels[name]
            self._discount(label, label.codes[value])

    def _discount(self, label: _Label, code: int) -> None:
        series_with = label.series[code] - 1
        label.series[code] = series_with
        if not series_with:
            label.used -= 1
            self._spelled.clear()

    def series_with(self, name: bytes, value: bytes) -> int:
        """Living series that have this value of a label."""
        label = self._labels.get(name)
        return 0 if label is None else label.series_with(value)

    def values_of(self, name: bytes) -> int:
        """Distinct values of a label that living series have. The dictionary may hold more."""
        label = self._labels.get(name)
        return 0 if label is None else label.used

    def _check_values(self, pairs: list[tuple[bytes, bytes]], limits: SeriesLimits) -> None:
        """Raise LabelFull when one of the values is one too many. Called before the first of them is put into a
        dictionary: else who is refused again and again would fill those of other labels."""
        for name, value in pairs:
            label = self._labels.get(name)
            if label is None or label.series_with(value) or not (most := limits.label.of(name)):
                continue
            if label.used >= most:
                text = name.decode()
                raise LabelFull(
                    f"label {_shortened(text)} has {label.used} values; the limit is {most} (--max-label-values)", text
                )

    def _new_label(self, name: bytes, limit: int) -> _Label:
        label = _Label(len(self._labels) + 1)
        if self._name_bytes + len(name) > limit:
            raise IndexFull(
                f"the names of all labels take {self._name_bytes} bytes, and {limit} are the most that queries "
                "can read: drop labels whose names never come again"
            )
        self._append_text(NAMES, name)
        self._name_bytes += len(name)
        self._labels[name] = label
        return label

    def _new_text(self, name: bytes, label: _Label, value: bytes, limit: int) -> int:
        if label.text_bytes + len(value) > limit:
            raise IndexFull(
                f"the distinct values of label {name.decode()} take {label.text_bytes} bytes, and {limit} are the most "
                "that a query can read: drop that label, or shorten the retention"
            )
        self._append_text(label.number, value)
        label.text_bytes += len(value)
        code = label.codes[value] = len(label.codes)
        label.series.append(0)
        return code

    def _append_text(self, dictionary: int, text: bytes) -> None:
        room = self._heap.room()
        if 0 < room < len(text):
            self._publish_text(FILLER, bytes(room))
        self._publish_text(dictionary, text)
        self.text_bytes += len(text)

    def _publish_text(self, dictionary: int, text: bytes) -> None:
        # What can fail comes first, so that the three arrays stay in step.
        self._text_names.reserve()
        self._text_ends.reserve()
        self._heap.extend(text)
        self._text_names.append(dictionary)
        self._text_ends.append(self._heap.length)

    def _open_page(self, label: _Label, page: int) -> None:
        self._pages.reserve()
        codes = self._codes.allocate(PAGE_ROWS)
        codes[:] = ABSENT
        self._pages.append(label.number << 32 | page)
        label.page = memoryview(cast("Any", codes))
        label.open_page = page


def _pairs(metric: bytes, others: bytes) -> list[tuple[bytes, bytes]]:
    """The names and values that a key spells, the metric's name first. others: what stands behind its separator."""
    texts = others.split(SEPARATOR)  # what stands behind the last separator is dropped
    pairs = zip(texts[::2], texts[1::2], strict=False)
    return [(NAME, metric), *pairs] if metric else list(pairs)


def _check_series(metric: bytes, series: int, limits: SeriesLimits) -> None:
    """Raise MetricFull when one more series of a metric that has `series` is one too many."""
    if (most := limits.metric.of(metric)) and series >= most:
        name = metric.decode()
        raise MetricFull(
            f"metric {_shortened(name)} has {series} series; the limit is {most} (--max-series-per-metric)", name
        )


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN else name[: _SHOWN - 1] + "…"
