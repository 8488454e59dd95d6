"""Values as a block stores them: as decimal numbers where that loses nothing, and as doubles otherwise.

Most telemetry is counts, bytes, or seconds with a few decimals. As doubles these look like noise to a compressor; as
integers they do not, and they are quicker to decode, too: counters that grow by up to 200 take 1.4 bytes and 4 ns
instead of 1.9 bytes and 16 ns, recorded scrapes 0.22 instead of 0.34 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.store.ranges import ranges

UInt8s = npt.NDArray[np.uint8]

MAX_SCALE = 15
"""A double has about that many decimal digits; the powers of ten up to 22 are exact."""
_POWERS = 10.0 ** np.arange(MAX_SCALE + 1)
_LIMIT = 2.0**53
"""Below it doubles hold every integer, so that unscaled / 10^scale rounds once and gives what any correct reader of the
decimal number gets."""
_NEGATIVE_ZERO = np.iinfo(np.int64).min
"""The bits of -0.0, which integers do not have."""
_NOT_DECIMAL = -1
_PROBES = 4
"""Rows of a series that say which scale is worth a try on all its rows."""


@dataclass(frozen=True, slots=True)
class StoredValues:
    """Three columns of one length. A row has either a value, or an unscaled integer with value = unscaled / 10^scale;
    what it does not have is null, and its scale is then 0."""

    value: pa.Array[Any]  # double
    unscaled: pa.Array[Any]  # int64
    scale: UInt8s


def to_stored(values: Floats, starts: Int64s) -> StoredValues:
    """`starts` are the rows at which a series begins, the first one 0. A series is stored one way, with one scale."""
    counts = np.diff(starts, append=len(values))
    scales = _scales(values, starts, counts)
    decimal = np.repeat(scales != _NOT_DECIMAL, counts)
    row_scales = np.repeat(np.maximum(scales, 0), counts).astype(np.uint8)
    if not decimal.any():
        return StoredValues(pa.array(values), pa.nulls(len(values), pa.int64()), row_scales)
    with np.errstate(invalid="ignore", over="ignore"):
        unscaled = np.rint(values * _POWERS[row_scales] if row_scales.any() else values).astype(np.int64)
    if decimal.all():
        return StoredValues(pa.nulls(len(values), pa.float64()), pa.array(unscaled), row_scales)
    return StoredValues(pa.array(values, mask=decimal), pa.array(unscaled, mask=~decimal), row_scales)


def _scales(values: Floats, starts: Int64s, counts: Int64s) -> Int64s:
    """The smallest scale of each series at which all its values are decimal numbers, or _NOT_DECIMAL."""
    scales = np.where(np.logical_and.reduceat(_decimal(values, 0), starts), 0, _NOT_DECIMAL)
    open_ = np.flatnonzero(scales == _NOT_DECIMAL)
    least = _least_scales(values, starts[open_], counts[open_])
    for scale in range(1, MAX_SCALE + 1):
        tried = open_[least <= scale]
        if len(tried) == 0:
            continue
        rows = ranges(starts[tried], counts[tried])
        edges = np.cumsum(counts[tried]) - counts[tried]
        fits = np.logical_and.reduceat(_decimal(values[rows], scale), edges)
        scales[tried[fits]] = scale
        still = scales[open_] == _NOT_DECIMAL
        open_, least = open_[still], least[still]
    return scales


def _least_scales(values: Floats, starts: Int64s, counts: Int64s) -> Int64s:
    """The smallest scale that a few rows of each series allow; above MAX_SCALE for none."""
    rows = starts + (counts - 1) * np.arange(_PROBES)[:, None] // (_PROBES - 1)
    least = np.full(len(starts), MAX_SCALE + 1)
    for scale in range(MAX_SCALE, 0, -1):
        least[_decimal(values[rows], scale).all(axis=0)] = scale
    return least


def _decimal(values: Floats, scale: int) -> Bools:
    """Where a value is exactly an integer below 2^53, divided by 10^scale."""
    with np.errstate(invalid="ignore", over="ignore"):
        unscaled = np.rint(values * _POWERS[scale]) if scale else np.rint(values)
        same = (unscaled / _POWERS[scale] if scale else unscaled) == values
        same &= np.abs(unscaled) < _LIMIT
    same &= values.view(np.int64) != _NEGATIVE_ZERO
    decimal: Bools = same
    return decimal


def from_stored(value: pa.Array[Any] | None, unscaled: pa.Array[Any] | None, scale: UInt8s | None) -> Floats:
    """The opposite of `to_stored`. A column that is null (or, of scales, zero) in every row may be None.

    Raises ValueError where the number of rows is not that of values, or a scale is unknown. The array may be read-only.
    """
    rows = len(value) if value is not None else len(unscaled) if unscaled is not None else 0
    held = sum(rows - column.null_count for column in (value, unscaled) if column is not None)
    if held != rows:
        raise ValueError(f"{rows} rows have {held} values")
    if unscaled is None or unscaled.null_count == rows:
        return _buffer(value, np.float64)
    numbers = _buffer(unscaled, np.int64).astype(np.float64)
    if scale is not None and (largest := scale.max(initial=0)):
        if largest > MAX_SCALE:
            raise ValueError(f"it has a scale of {largest}; the largest is {MAX_SCALE}")
        numbers /= _POWERS[scale]
    if value is not None and value.null_count < rows:
        np.copyto(numbers, _buffer(value, np.float64), where=value.is_valid().to_numpy(zero_copy_only=False))
    return numbers


def _buffer(column: pa.Array[Any] | None, dtype: type[Any]) -> npt.NDArray[Any]:
    """The numbers of a column, anything where it is null."""
    if column is None or len(column) == 0:
        return np.empty(0, dtype)
    data: Any = column.buffers()[1]
    numbers: npt.NDArray[Any] = np.frombuffer(data, dtype, len(column), column.offset * np.dtype(dtype).itemsize)
    return numbers
