"""Names for the NumPy array types that flow through the package, and what is done with them everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]
UInt8s = npt.NDArray[np.uint8]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

STALE_BITS = 0x7FF0000000000002
"""The bits of Prometheus' stale marker: a signalling NaN, so it is only ever compared as an integer."""


def stale_mask(values: Floats) -> Bools:
    """True where a value is a stale marker. Any shape."""
    mask: Bools = values.view(np.int64) == STALE_BITS
    return mask


def stale_marker(count: int = 1) -> Floats:
    """An array of `count` stale markers."""
    return np.full(count, STALE_BITS, np.int64).view(np.float64)


def cut(sizes: Int64s, limit: int) -> Iterator[tuple[int, int]]:
    """Cut rows into ranges [first, last) whose sizes add up to `limit` at most, or of one row."""
    ends = np.cumsum(sizes)
    first, done = 0, 0
    while first < len(ends):
        last = max(int(np.searchsorted(ends, done + limit, side="right")), first + 1)
        yield first, last
        first, done = last, int(ends[last - 1])


def keep_freed(size: int) -> None:
    """Have malloc reuse what arrays of up to `size` bytes, at most 32 MiB less 64 KiB, give back.

    glibc returns large blocks to the kernel at once and takes fresh pages for the next array, which made evaluation of
    queries up to four times slower. It stops doing so for blocks up to the size of the largest that it has seen freed.
    This one is never touched, so it costs no memory.
    """
    np.empty(size, np.uint8)
