"""Names for the NumPy array types that flow through the package."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
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
