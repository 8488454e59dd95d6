"""Labels of many series as columns of dictionary codes: the only form in which queries see labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int32s, Int64s

ABSENT = -1
"""The code of a label that a series does not have."""


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
        key = np.zeros(self.rows, np.int64)
        radix = 1
        for column in self.columns.values():
            width = len(column.values) + 1
            if radix > (1 << 62) // width:
                uniques, key = np.unique(key, return_inverse=True)
                radix = len(uniques)
            key = key * width + (column.codes.astype(np.int64) + 1)
            radix *= width
        if radix == 1:
            return key, np.zeros(min(self.rows, 1), np.int64)
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return rank[group], first[order]

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


def empty_frame(rows: int = 0) -> LabelFrame:
    """A frame of `rows` series without labels."""
    return LabelFrame(rows, {})
