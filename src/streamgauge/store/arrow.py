"""Arrow arrays to and from NumPy without copies, where PyArrow's own types say less than is known here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from streamgauge.model.arrays import Bools, Int32s, Int64s

compute: Any = pyarrow.compute
"""PyArrow's kernels; their type stubs refuse plain Python scalars."""

UInt8s = npt.NDArray[np.uint8]

Keys: TypeAlias = pa.LargeBinaryArray
"""Keys of any number of series. A BinaryArray ends at 2 GiB: those of a million series of 2 KiB."""


def binary_array(bounds: npt.NDArray[np.integer[Any]], data: UInt8s) -> pa.BinaryArray:
    """Texts i = data[bounds[i]:bounds[i + 1]]; below 2 GiB. Shares the memory of `data`, and of `bounds` if int32."""
    offsets: Any = np.ascontiguousarray(bounds, np.int32)
    content: Any = np.ascontiguousarray(data)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    return cast("pa.BinaryArray", pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers))


def string_array(bounds: npt.NDArray[np.integer[Any]], data: UInt8s) -> pa.StringArray:
    """`binary_array` of UTF-8, which is not checked."""
    return cast("pa.StringArray", binary_array(bounds, data).view(pa.string()))


def bounds_and_data(texts: pa.BinaryArray | pa.StringArray) -> tuple[Int32s, UInt8s]:
    """The inverse of `binary_array` for texts without nulls: bounds start at 0."""
    if not len(texts):
        return np.zeros(1, np.int32), np.empty(0, np.uint8)
    _, offsets, content = cast("list[Any]", texts.buffers())
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(content, np.uint8) if content.size else np.empty(0, np.uint8)
    return bounds - bounds[0], data[bounds[0] : bounds[-1]]


def take(texts: pa.BinaryArray, at: Int64s) -> pa.BinaryArray:
    """The texts at the given positions; below 2 GiB."""
    indices: Any = pa.array(at)
    return texts.take(indices)


def take_keys(keys: Keys, at: Int64s) -> Keys:
    """The keys at the given positions."""
    indices: Any = pa.array(at)
    return keys.take(indices)


def keys_of(parts: Sequence[pa.BinaryArray | Keys]) -> Keys:
    """All keys, one part behind the other."""
    if not parts:
        return pa.array([], pa.large_binary())
    return cast("Keys", pa.concat_arrays([part.cast(pa.large_binary()) for part in parts]))


def narrow(keys: Keys) -> pa.BinaryArray:
    """Keys that take less than 2 GiB, though they may be a slice of far more. Shares their memory."""
    if not len(keys):
        return pa.array([], pa.binary())
    _, offsets, content = cast("list[Any]", keys.buffers())
    bounds = np.frombuffer(offsets, np.int64)[keys.offset : keys.offset + len(keys) + 1]
    data = np.frombuffer(content, np.uint8) if content.size else np.empty(0, np.uint8)
    return binary_array(bounds - bounds[0], data[bounds[0] : bounds[-1]])


def lengths(keys: Keys) -> Int64s:
    """Bytes of each key."""
    found: Int64s = compute.binary_length(keys).to_numpy(zero_copy_only=False)
    return found


def booleans(mask: pa.BooleanArray) -> Bools:
    """A mask without nulls."""
    return cast("Bools", mask.to_numpy(zero_copy_only=False))
