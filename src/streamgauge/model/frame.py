"""Labels of many series as columns of dictionary codes: the only form in which queries see labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int32s, Int64s

ABSENT = -1
"""The code of a label that a series does not have."""
_FEW = 16
"""Codes up to which Python is quicker than Arrow and NumPy, of which each call takes tens of microseconds."""


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """One label over many series.

    codes: int32, one a row, an index into `values` or ABSENT.
    values: the dictionary: distinct, never null, never "". It may hold values that no row uses.
    """

    codes: Int32s
    values: pa.StringArray

    def take(self, rows: Int64s) -> LabelColumn:
        return LabelColumn(self.codes[rows], self.values)

    def text(self, row: int) -> str:
        """The value at a row, "" where the label is absent."""
        code = int(self.codes[row])
        return "" if code == ABSENT else str(self.values[code].as_py())


def used_values(codes: Int32s, values: pa.StringArray) -> tuple[Int32s, pa.StringArray]:
    """The same labels with a dictionary of those values alone that are used, in the order of the old one."""
    if len(codes) <= _FEW:
        every = codes.tolist()
        used = sorted({*every} - {ABSENT})
        place = {code: at for at, code in enumerate(used)} | {ABSENT: ABSENT}
        texts = pa.array([values[code].as_py() for code in used], pa.string())
        return np.array([place[code] for code in every], np.int32), texts
    distinct, places = np.unique(codes, return_inverse=True)
    absent = int(distinct[0] == ABSENT)
    indices: Any = pa.array(distinct[absent:])
    return (places - absent).astype(np.int32), values.take(indices)


@dataclass(frozen=True, slots=True)
class LabelFrame:
    """Labels of `rows` series. A name that is not in `columns` is absent from every row."""

    rows: int
    columns: Mapping[str, LabelColumn]

    def __len__(self) -> int:
        return self.rows

    def take(self, rows: Int64s) -> LabelFrame:
        """The frame of the given rows, in the given order."""
        return LabelFrame(len(rows), {name: column.take(rows) for name, column in self.columns.items()})

    def only(self, names: Iterable[str]) -> LabelFrame:
        """The same rows with only the named labels."""
        return LabelFrame(self.rows, {name: self.columns[name] for name in names if name in self.columns})

    def without(self, names: Iterable[str]) -> LabelFrame:
        """The same rows without the named labels."""
        dropped = set(names)
        return LabelFrame(self.rows, {name: col for name, col in self.columns.items() if name not in dropped})

    def group(self) -> tuple[Int64s, Int64s]:
        """Number the distinct label sets.

        Returns (group, first): for each row the number of its label set, int64[rows], numbered in order of first
        appearance; and for each group its first row, int64[groups].
        """
        key, radix = np.zeros(self.rows, np.int64), 1
        for column in self.columns.values():
            width = len(column.values) + 1
            if radix > (1 << 62) // width:
                key, first = number_keys(key, radix)
                radix = len(first)
            key = key * width + (column.codes + 1)
            radix *= width
        return number_keys(key, radix)

    def labels(self, row: int) -> dict[str, str]:
        """The labels of one row as text, ordered by name."""
        return {
            name: self.columns[name].text(row) for name in sorted(self.columns) if self.columns[name].codes[row] >= 0
        }

    def __iter__(self) -> Iterator[dict[str, str]]:
        return (self.labels(row) for row in range(self.rows))

    @staticmethod
    def of(label_sets: Sequence[Mapping[str, str]]) -> LabelFrame:
        """A frame from one mapping a row. For small frames and tests."""
        columns: dict[str, LabelColumn] = {}
        names = sorted({name for labels in label_sets for name, value in labels.items() if value})
        for name in names:
            dictionary: dict[str, int] = {}
            codes = np.full(len(label_sets), ABSENT, np.int32)
            for row, labels in enumerate(label_sets):
                if value := labels.get(name, ""):
                    codes[row] = dictionary.setdefault(value, len(dictionary))
            columns[name] = LabelColumn(codes, pa.array(list(dictionary), pa.string()))
        return LabelFrame(len(label_sets), columns)


def number_keys(key: Int64s, radix: int) -> tuple[Int64s, Int64s]:
    """Number the distinct keys, int64 in [0, radix), in order of first appearance.

    Returns (number of each row, first row of each number).
    """
    rows = np.arange(len(key))
    if radix <= 4 * len(key) + 1024:
        first_row = np.empty(radix, np.int64)
        first_row[key[::-1]] = rows[::-1]  # of equal keys the last assignment stays
        leader = first_row[key]
        first = np.flatnonzero(leader == rows)
        number = np.empty(len(key), np.int64)
        number[first] = np.arange(len(first))
        return number[leader], first
    encoded = pa.array(key).dictionary_encode()  # a hash table: np.unique sorts, 8 times slower on a million rows
    group = encoded.indices.to_numpy().astype(np.int64)
    first = np.empty(len(encoded.dictionary), np.int64)
    first[group[::-1]] = rows[::-1]
    return group, first


def empty_frame(rows: int = 0) -> LabelFrame:
    """A frame of `rows` series without labels."""
    return LabelFrame(rows, {})
