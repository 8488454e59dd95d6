"""Byte strings of many rows in Arrow arrays: joined, taken apart, and made of columns, all of them at a time."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Int64s, UInt8s

_EMPTY = pa.scalar(b"", pa.binary())


def byte_strings(data: UInt8s, offsets: Int64s) -> pa.BinaryArray:
    """data[offsets[i]:offsets[i + 1]] as byte strings, without copying. Below 2 GiB together."""
    places = pa.py_buffer(offsets.astype(np.int32).data)
    bytes_ = pa.py_buffer(np.ascontiguousarray(data).data)
    return cast(pa.BinaryArray, pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, places, bytes_]))


def joined(*parts: pa.BinaryArray | bytes, nulls: str = "emit_null") -> pa.BinaryArray:
    """Byte strings of arrays of one length, and constants, one behind the other, element by element."""
    arguments: list[Any] = [pa.scalar(part, pa.binary()) if isinstance(part, bytes) else part for part in parts]
    compute: Any = pc.binary_join_element_wise
    result: pa.BinaryArray = compute(*arguments, _EMPTY, null_handling=nulls)
    return result


def parts(strings: pa.BinaryArray) -> tuple[UInt8s, Int64s]:
    """The bytes of all strings, one behind the other, and where each begins and the last one ends; the first at 0."""
    _, places, data = strings.buffers()
    if places is None or data is None or not len(strings):
        return np.empty(0, np.uint8), np.zeros(len(strings) + 1, np.int64)
    offsets = np.frombuffer(memoryview(places), np.int32)[strings.offset :][: len(strings) + 1].astype(np.int64)
    return np.frombuffer(memoryview(data), np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]


def content(strings: pa.BinaryArray) -> bytes:
    """All the strings, one behind the other."""
    return parts(strings)[0].tobytes()


def lengths_of(strings: pa.BinaryArray | pa.StringArray) -> Int64s:
    """Bytes of each string."""
    lengths: Int64s = pc.cast(pc.binary_length(strings), pa.int64()).to_numpy()
    return lengths
