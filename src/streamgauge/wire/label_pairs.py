"""The Label messages of many series, a range of series at a time. Each distinct pair is spelled once.

Label   1: name   2: value        0A length { 0A length name 12 length value }
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int32s, Int64s
from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame
from streamgauge.wire.byte_strings import byte_strings, content, joined, lengths_of
from streamgauge.wire.varints import varint_lengths, varints

_NAME, _VALUE = b"\x0a", b"\x12"
_LABELS = b"\x0a"  # the field of the series that they are in


class LabelPairs:
    """Labels as field 1 of a TimeSeries or a ChunkedSeries, ordered by name."""

    def __init__(self, frame: LabelFrame) -> None:
        self._rows = len(frame)
        self._columns = [_spelled(name, frame.columns[name]) for name in sorted(frame.columns)]

    def sizes(self) -> Int64s:
        """Bytes of the labels of each series. int64[rows]."""
        sizes = np.zeros(self._rows, np.int64)
        for codes, pairs in self._columns:
            sizes += np.append(lengths_of(pairs), 0)[codes]  # ABSENT, -1, is the last
        return sizes

    def rows(self, first: int, last: int) -> pa.BinaryArray:
        """The labels of the series from `first` up to `last`."""
        empty = byte_strings(np.empty(0, np.uint8), np.zeros(last - first + 1, np.int64))
        return joined(empty, *(_at(codes[first:last], pairs) for codes, pairs in self._columns), nulls="skip")


def _at(codes: Int32s, pairs: pa.BinaryArray) -> pa.BinaryArray:
    """The message of each code, null where the label is absent."""
    indices: Any = pa.array(codes, mask=codes == ABSENT)
    return pairs.take(indices)


def _spelled(name: str, column: LabelColumn) -> tuple[Int32s, pa.BinaryArray]:
    """Codes and the message of each code. A store's dictionary may be far longer than there are rows."""
    used, codes = np.unique(column.codes, return_inverse=True)
    absent = int(len(used) > 0 and used[0] == ABSENT)
    values: Any = column.values.take(used[absent:]).cast(pa.binary())
    sizes = lengths_of(values)
    named = content(joined(_NAME, varints(np.array([len(name.encode())])))) + name.encode() + _VALUE
    contents = len(named) + varint_lengths(sizes.view(np.uint64)) + sizes
    pairs = joined(_LABELS, varints(contents), named, varints(sizes), values)
    return (codes - absent).astype(np.int32), pairs
