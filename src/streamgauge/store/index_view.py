"""The series index as query workers see it: matchers to rows, rows to labels, ids and keys.

A worker keeps one `ViewCache`. It maps segments and builds dictionaries once, and extends them with each snapshot.
Rows are int64 and ascending throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int32s, Int64s, UInt32s
from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame, used_values
from streamgauge.model.labels import NAME, SEPARATOR
from streamgauge.model.source import Matcher, Meter, NoMeter
from streamgauge.store import arrow
from streamgauge.store.columns import NAMES, PAGE_MASK, PAGE_ROWS, PAGE_SHIFT, IndexSnapshot
from streamgauge.store.dictionary import Dictionary, Texts
from streamgauge.store.match import Check, condition_of
from streamgauge.store.shared_arrays import GrownArray

_UNMETERED = NoMeter()
_CODE_BYTES = 4
_KEY_ROWS = 8192
"""Rows whose keys are put together at once: labels that none of them has then cost nothing. They take at most 1 GiB."""


class ViewCache:
    """What a process keeps of the index from one query to the next. Used on one thread at a time."""

    def __init__(self) -> None:
        self._mirror: _Mirror | None = None

    def open(self, snapshot: IndexSnapshot) -> IndexView:
        """The index as it was when the snapshot was made. Raises StorageError if the snapshot's lease has ended."""
        if self._mirror is None or self._mirror.base != snapshot.base:
            self._mirror = None  # unmap the old one first
            self._mirror = _Mirror(snapshot.base)
        self._mirror.extend(snapshot)
        return IndexView(snapshot, self._mirror)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where ascending rows are: the distinct pages, ascending; which of these each row is on; and its place there."""

    touched: Int64s
    pages: Int64s
    slots: Int64s


@dataclass(frozen=True, slots=True)
class _Column:
    """One label's pages: page pages[i] of its rows is page numbers[i] of the codes. Both ascend."""

    mirror: _Mirror
    number: int
    pages: Int64s
    numbers: Int64s

    @property
    def dictionary(self) -> Dictionary:
        return self.mirror.dictionary(self.number)

    def codes(self, places: _Places) -> Int32s | None:
        """The codes of ascending rows; None when none of them is on a page of this label."""
        at = np.minimum(np.searchsorted(self.pages, places.touched), len(self.pages) - 1)
        there = self.pages[at] == places.touched
        if not there.any():
            return None
        numbers = self.numbers[at] << PAGE_SHIFT
        if there.all():
            return self.mirror.codes.take(numbers[places.pages] + places.slots)
        rows = np.flatnonzero(there[places.pages])
        codes = np.full(len(places.pages), ABSENT, np.int32)
        codes[rows] = self.mirror.codes.take(numbers[places.pages[rows]] + places.slots[rows])
        return codes

    def all_codes(self, rows: int) -> Int32s:
        """The codes of the first `rows` rows."""
        codes = np.full((-(-rows // PAGE_ROWS), PAGE_ROWS), ABSENT, np.int32)
        for pages, block in self._blocks(rows):
            codes[pages] = block
        return codes.reshape(-1)[:rows]

    def scan(self, check: Check, rows: int) -> Int64s:
        """Which of the first `rows` rows pass a check."""
        if check.absent:
            return np.flatnonzero(check.passes(self.all_codes(rows)))
        found = [np.empty(0, np.int64)]
        for pages, block in self._blocks(rows):
            hits = np.flatnonzero(check.passes(block.reshape(-1)))
            found.append((pages[hits >> PAGE_SHIFT] << PAGE_SHIFT) + (hits & PAGE_MASK))
        return np.concatenate(found)

    def _blocks(self, rows: int) -> Iterator[tuple[Int64s, Int32s]]:
        """The label's pages of the first `rows` rows, some at a time, as (pages, [pages, PAGE_ROWS] codes)."""
        known = self.pages[: np.searchsorted(self.pages << PAGE_SHIFT, rows)]
        for start, block in self.mirror.codes.blocks(self.numbers[: len(known)], PAGE_ROWS):
            pages = known[start : start + len(block)]
            if (pages[-1] + 1) << PAGE_SHIFT > rows:
                block[-1, rows & PAGE_MASK :] = ABSENT  # the writer may be writing there
            yield pages, block


class _Mirror:
    """One generation of the index, mapped as far as any snapshot so far needed. Being ahead of a snapshot is harmless:
    what a snapshot's rows use never changes."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.ids = GrownArray(base, "i", np.uint32)
        self.dead = GrownArray(base, "d", np.uint32)
        self.codes = GrownArray(base, "c", np.int32)
        self._pages = GrownArray(base, "p", np.int64)
        self._texts = Texts(base)
        self._text_count = 0
        self._page_count = 0
        self._names = Dictionary(self._texts, NAMES)
        self._dictionaries: dict[int, Dictionary] = {}
        self.columns: dict[str, _Column] = {}

    def extend(self, snapshot: IndexSnapshot) -> None:
        self.ids.map(snapshot.rows)
        self.dead.map(snapshot.dead)
        self._texts.map(snapshot.texts)
        self._text_count = max(self._text_count, snapshot.texts)
        if snapshot.pages > self._page_count:
            self._pages.map(snapshot.pages)
            self.codes.map(snapshot.pages * PAGE_ROWS)
            self._page_count = snapshot.pages
            self._names.extend(self._text_count)
            self.columns = dict(self._read_columns())

    def _read_columns(self) -> Iterator[tuple[str, _Column]]:
        records = self._pages.read(0, self._page_count)
        labels = records >> 32
        by_label = np.argsort(labels, kind="stable")
        cuts = np.searchsorted(labels[by_label], np.arange(1, len(self._names.values) + 2))
        for at, name in enumerate(cast("list[str]", self._names.values.to_pylist())):
            numbers = by_label[cuts[at] : cuts[at + 1]]
            if len(numbers):  # a label has no page when the first series that had it could not be added
                yield name, _Column(self, at + 1, records[numbers] & 0xFFFF_FFFF, numbers)

    def dictionary(self, number: int) -> Dictionary:
        found = self._dictionaries.get(number)
        if found is None:
            found = self._dictionaries[number] = Dictionary(self._texts, number)
        found.extend(self._text_count)
        return found


class IndexView:
    """One state of the index. Used on one thread at a time, like the cache that it came from."""

    def __init__(self, snapshot: IndexSnapshot, mirror: _Mirror) -> None:
        self._snapshot = snapshot
        self._mirror = mirror

    @property
    def rows(self) -> int:
        """Rows there are, dead ones counted."""
        return self._snapshot.rows

    @property
    def label_names(self) -> list[str]:
        """Names that some series has, or had."""
        return list(self._mirror.columns)

    def match(self, matchers: Sequence[Matcher]) -> Int64s:
        """The rows of living series that fulfil every matcher. Raises BadInput for an invalid regular expression."""
        checks: list[tuple[_Column, Check]] = []
        for matcher in matchers:
            condition = condition_of(matcher)
            if condition is None:
                continue
            column = self._mirror.columns.get(matcher.name)
            if column is not None:
                checks.append((column, Check.of(condition, column.dictionary)))
            elif not condition.absent:
                return np.empty(0, np.int64)
        if not checks:
            return self._living(np.arange(self.rows))
        checks.sort(key=lambda pair: pair[1].share)
        (column, check), *others = checks
        found = column.scan(check, self.rows)
        for column, check in others:
            codes = column.codes(_places(found))
            if codes is not None:
                found = found[check.passes(codes)]
            elif not check.absent:
                return np.empty(0, np.int64)
        return self._living(found)

    def ids(self, rows: Int64s) -> UInt32s:
        """The series ids of rows, ascending."""
        return self._mirror.ids.take(rows)

    def rows_of(self, ids: UInt32s) -> Int64s:
        """The rows of those of the ids (ascending) that are in the index, be they of dead series or not."""
        known = self._mirror.ids.read(0, self.rows)
        rows = np.searchsorted(known, ids)
        rows, ids = rows[rows < len(known)], ids[rows < len(known)]
        found: Int64s = rows[known[rows] == ids]
        return found

    def frame(self, rows: Int64s, names: Iterable[str] | None = None, meter: Meter = _UNMETERED) -> LabelFrame:
        """The labels of rows: all that any of them has, or of those only the named ones. They stay charged."""
        columns = {}
        places = _places(rows)
        everything = len(rows) == self.rows
        for name in self._mirror.columns if names is None else names:
            column = self._mirror.columns.get(name)
            if column is None:
                continue
            meter.charge(0, _CODE_BYTES * len(rows))
            codes = column.all_codes(self.rows) if everything else column.codes(places)
            if codes is not None and codes.max(initial=ABSENT) > ABSENT:
                columns[name] = _compact(codes, column.dictionary.values)
            else:
                meter.release(0, _CODE_BYTES * len(rows))
        return LabelFrame(len(rows), columns)

    def keys(self, rows: Int64s) -> arrow.Keys:
        """The canonical keys (`model.labels`) of rows."""
        return arrow.keys_of([self._keys(rows[start : start + _KEY_ROWS]) for start in range(0, len(rows), _KEY_ROWS)])

    def _keys(self, rows: Int64s) -> pa.BinaryArray:
        labels = {name.encode(): column for name, column in self.frame(rows).columns.items()}
        metric = labels.pop(NAME, None)
        join = arrow.compute.binary_join_element_wise
        separator = pa.scalar(SEPARATOR, pa.binary())
        nothing = pa.scalar(b"", pa.binary())
        parts: list[object] = [] if metric is None else [_texts_of(metric)]
        parts.append(pa.repeat(separator, len(rows)))
        for name in sorted(labels):
            prefix = pa.scalar(name + SEPARATOR, pa.binary())
            # Null where the label is absent, and so left out of the key.
            parts.append(join(prefix, _texts_of(labels[name]), separator, nothing))
        return cast("pa.BinaryArray", join(*parts, nothing, null_handling="skip"))

    def _living(self, rows: Int64s) -> Int64s:
        dead = self._snapshot.dead
        if not dead:
            return rows
        alive = np.ones(self.rows, np.bool_)
        alive[self._mirror.dead.read(0, dead)] = False
        return rows[alive[rows]]


def _places(rows: Int64s) -> _Places:
    pages = rows >> PAGE_SHIFT
    begins = np.diff(pages, prepend=-1) != 0
    return _Places(pages[begins], np.cumsum(begins) - 1, rows & PAGE_MASK)


def _texts_of(column: LabelColumn) -> pa.BinaryArray:
    codes: Any = pa.array(column.codes, mask=column.codes == ABSENT)
    return cast("pa.BinaryArray", column.values.take(codes).cast(pa.binary()))


def _compact(codes: Int32s, values: pa.StringArray) -> LabelColumn:
    """A column whose dictionary is not far larger than itself, so that work per value stays in proportion."""
    if len(values) <= 1024 + 4 * len(codes):
        return LabelColumn(codes, values)
    return LabelColumn(*used_values(codes, values))
