"""Protobuf's variable-length numbers, whole columns at a time.

Encoding: https://protobuf.dev/programming-guides/encoding/#varints
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int64s, UInt8s, UInt64s
from streamgauge.wire.byte_strings import byte_strings

_LIMITS = 1 << np.arange(7, 64, 7, dtype=np.uint64)
"""The smallest number of two bytes, of three, …, of ten."""


def varint_lengths(numbers: UInt64s) -> Int64s:
    """How many bytes each number takes, 1 to 10."""
    if not len(numbers):
        return np.empty(0, np.int64)
    shortest, longest = np.searchsorted(_LIMITS, [numbers.min(), numbers.max()], side="right") + 1
    if shortest == longest:
        return np.full(len(numbers), shortest, np.int64)
    lengths: Int64s = np.searchsorted(_LIMITS, numbers, side="right") + 1
    return lengths


def varint_matrix(numbers: UInt64s, lengths: Int64s) -> UInt8s:
    """The bytes of each number, uint8[numbers, longest]; what is beyond a number's length means nothing."""
    longest = int(lengths.max(initial=1))
    matrix = np.empty((len(numbers), longest), np.uint8)
    for at in range(longest):
        matrix[:, at] = (numbers >> np.uint64(7 * at)) & np.uint64(0x7F)
        matrix[:, at] |= (lengths > at + 1).view(np.uint8) << 7
    return matrix


def varints(numbers: Int64s) -> pa.BinaryArray:
    """Each number, taken as unsigned, as a byte string."""
    unsigned = numbers.astype(np.int64).view(np.uint64)
    lengths = varint_lengths(unsigned)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return byte_strings(ragged(varint_matrix(unsigned, lengths), lengths), offsets)


def ragged(matrix: UInt8s, lengths: Int64s) -> UInt8s:
    """The first `lengths` bytes of each row, one behind the other."""
    longest = matrix.shape[1]
    if len(lengths) and int(lengths.min()) == longest:
        return matrix.reshape(-1)
    chosen: UInt8s = matrix[np.arange(longest) < lengths[:, None]]
    return chosen
