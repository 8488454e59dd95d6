"""The labels of many series as text, a range of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, chain, groupby, repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Int32s, Int64s
from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame, used_values
from streamgauge.query.text import join, join_present, strings

METRIC_NAME = "__name__"

_FEW_VALUES = 16
_FEW_ROWS = 1024
"""Of a label whose texts are put together with others': with more rows the cost of a call does not count any more, and
memory for other codes would."""

_FEWEST_ROWS = 8
"""Which are spelled one label after another: the calls for whole arrays cost more."""

NameSpelling = Callable[[str], str]
ValueSpelling = Callable[[pa.StringArray], pa.StringArray]


class LabelTexts:
    """Labels joined by commas, ordered by name. Each distinct value is spelled once."""

    def __init__(
        self, frame: LabelFrame, name: NameSpelling, value: ValueSpelling, defaults: Mapping[str, str] | None = None
    ) -> None:
        """`name` spells a label's name and what stands between it and the value, `value` what stands between the quotes
        around a value. `defaults` are values of labels for the series that do not have them."""
        self._rows = len(frame)
        defaults = defaults or {}
        self._texts = _few(frame, name, value, defaults) if self._rows <= _FEWEST_ROWS else None
        if self._texts is not None:
            return
        columns = []
        for label in sorted({*frame.columns, *defaults}):
            codes, values = _used(frame.columns.get(label), self._rows)
            if label in defaults:
                codes = np.where(codes == ABSENT, len(values), codes).astype(np.int32)
                values = pa.concat_arrays([values, strings([defaults[label]])])
            columns.append((name(label) + '"', codes, values))
        self._columns = list(_spelled(columns, value))

    def sizes(self) -> Int64s:
        """Bytes of the text of each row, give or take the commas. int64[rows]."""
        if self._texts is not None:
            lengths: Int32s = pc.binary_length(self._texts).to_numpy()
            return lengths.astype(np.int64)
        sizes = np.zeros(self._rows, np.int64)
        measured: pa.StringArray | None = None
        for codes, texts in self._columns:
            if texts is not measured:
                lengths = np.append(pc.binary_length(texts).to_numpy(), 0)  # ABSENT, -1, is the last
                measured = texts
            sizes += lengths[codes]
        return sizes

    def rows(self, first: int, last: int) -> pa.StringArray:
        """The texts of the rows from `first` up to `last`."""
        if self._texts is not None:
            return self._texts.slice(first, last - first)
        labeled = np.zeros(last - first, np.bool_)
        for codes, _ in self._columns:
            labeled |= codes[first:last] != ABSENT
        rows = np.flatnonzero(labeled)
        if len(rows) == last - first and len(rows):
            return join_present(self._at(slice(first, last)), ",")
        empty = strings([""])
        if not len(rows):
            return empty.take(np.zeros(last - first, np.int64))
        joined = join_present(self._at(first + rows), ",")
        places = np.full(last - first, len(rows))
        places[rows] = np.arange(len(rows))
        return pa.concat_arrays([joined, empty]).take(places)

    def _at(self, rows: slice | Int64s) -> Iterator[pa.StringArray]:
        """The texts of each label at some rows, null where it is absent."""
        for _, group in groupby(self._columns, key=lambda column: id(column[1])):
            shared = list(group)
            codes = np.concatenate([codes[rows] for codes, _ in shared])
            texts, count = _texts_at(codes, shared[0][1]), len(codes) // len(shared)
            yield from (texts.slice(label * count, count) for label in range(len(shared)))


def _few(frame: LabelFrame, name: NameSpelling, value: ValueSpelling, defaults: Mapping[str, str]) -> pa.StringArray:
    """The texts of all rows."""
    labels = [(label, name(label), frame.columns.get(label)) for label in sorted({*frame.columns, *defaults})]
    starts: list[list[str]] = []
    values: list[str] = []
    for row in range(len(frame)):
        starts.append([])
        for label, start, column in labels:
            text = defaults.get(label) if column is None or column.codes[row] == ABSENT else column.text(row)
            if text is not None:
                starts[-1].append(start)
                values.append(text)
    spelled: Iterator[str] = iter(value(strings(values)).to_pylist())  # type: ignore[arg-type]
    return strings(",".join([f'{start}"{next(spelled)}"' for start in row]) for row in starts)


def _spelled(
    columns: Iterable[tuple[str, Int32s, pa.StringArray]], value: ValueSpelling
) -> Iterator[tuple[Int32s, pa.StringArray]]:
    """For each column its codes and the texts that they mean. Small neighbours share one array of texts: what a step
    costs, whatever it has to do, then counts once and not for each label."""
    for few, group in groupby(
        columns, key=lambda column: len(column[2]) <= _FEW_VALUES and len(column[1]) <= _FEW_ROWS
    ):
        if not few:
            yield from ((codes, join(prefix, value(values), '"')) for prefix, codes, values in group)
            continue
        prefixes, all_codes, all_values = zip(*group, strict=True)
        counts = [len(values) for values in all_values]
        spelled = value(pa.concat_arrays(all_values))
        texts = join(strings(chain.from_iterable(map(repeat, prefixes, counts))), spelled, '"')
        for codes, first in zip(all_codes, accumulate(counts, initial=0), strict=False):
            yield np.where(codes == ABSENT, codes, codes + np.int32(first)), texts


def used_bytes(column: LabelColumn) -> int:
    """Bytes of the distinct values that a column uses; its dictionary may hold far more."""
    used = np.zeros(len(column.values) + 1, np.bool_)
    used[column.codes] = True  # ABSENT, -1, is the last
    lengths = pc.cast(pc.binary_length(column.values), pa.int64()).to_numpy()
    return int(lengths[used[:-1]].sum())


def column_texts(column: LabelColumn) -> pa.StringArray:
    """The value at each row, null where the label is absent."""
    return _texts_at(column.codes, column.values)


def _texts_at(codes: Int32s, texts: pa.StringArray) -> pa.StringArray:
    indices: Any = pa.array(codes, mask=codes == ABSENT)
    return texts.take(indices)


def _used(column: LabelColumn | None, rows: int) -> tuple[Int32s, pa.StringArray]:
    """Codes and a dictionary that is no longer than there are rows: that of a store may be far longer."""
    if column is None:
        return np.full(rows, ABSENT, np.int32), strings(())
    if len(column.values) <= rows:
        return column.codes, column.values
    return used_values(column.codes, column.values)


def label_order(frame: LabelFrame) -> Int64s:
    """The rows in the order in which Prometheus has series: pair after pair by name and value, the shorter first."""
    later = np.zeros(len(frame), np.bool_)  # whether a row has a label behind the present one
    keys: list[tuple[Int64s, int]] = []
    for name in sorted(frame.columns, reverse=True):
        codes, values = _used(frame.columns[name], len(frame))
        absent = codes == ABSENT
        rank = np.empty(len(values) + 1, np.int64)
        rank[pc.sort_indices(values).to_numpy()] = np.arange(1, len(values) + 1)
        key = rank[codes]
        key[absent] = np.where(later[absent], len(values) + 1, 0)  # its next label comes later, or it has ended
        later |= ~absent
        keys.append((key, len(values) + 2))
    combined, radix = np.zeros(len(frame), np.int64), 1
    for key, width in reversed(keys):
        if radix > (1 << 62) // width:
            distinct, combined = np.unique(combined, return_inverse=True)
            radix = len(distinct)
        combined = combined * width + key
        radix *= width
    return np.argsort(combined, kind="stable")
