"""Aggregates of samples: rows of which each stands for all samples of a series within some minutes or hours.

They are computed for whole columns of rows at once; nothing loops over series or buckets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.model.arrays import STALE_BITS, Bools, Floats, Int64s, UInt32s, stale_marker, stale_mask
from streamgauge.model.source import AggregateKind
from streamgauge.store.block_format import TIME
from streamgauge.store.ports import Rows
from streamgauge.store.ranges import starts_of

AggregateRows = npt.NDArray[np.void]
"""Rows of AGGREGATE_ROW."""

NUMBERS = ("sum", "min", "max", "last", "increase")

AGGREGATE_ROW: np.dtype[Any] = np.dtype(
    [("count", np.int64), *((name, np.float64) for name in NUMBERS), ("stale", np.bool_)]
)
"""count: samples that are no stale marker; the numbers are of these, and stale markers where there are none.
min, max: of those that are not NaN, if any is not. last: the latest of them.
increase: what they add to a counter: each its difference to the one before it in the series, or itself where it is
smaller than that, since the counter then began anew. The first of a series adds nothing, nor does a NaN.
stale: whether the latest sample of all is a stale marker."""

_FIELDS: list[pa.Field[Any]] = [
    pa.field("series_id", pa.uint32(), nullable=False),
    pa.field("time", TIME, nullable=False),
    pa.field("count", pa.int64(), nullable=False),
    *(pa.field(name, pa.float64(), nullable=False) for name in NUMBERS),
    pa.field("stale", pa.bool_(), nullable=False),
]
AGGREGATES_SCHEMA = pa.schema(_FIELDS)

_LEVEL = 9
AGGREGATES_SETTINGS: dict[str, Any] = {
    "use_dictionary": False,
    "column_encoding": {
        "series_id": "DELTA_BINARY_PACKED",
        "time": "BYTE_STREAM_SPLIT",
        "count": "DELTA_BINARY_PACKED",
        **dict.fromkeys(NUMBERS, "BYTE_STREAM_SPLIT"),
        "stale": "RLE",
    },
    "compression_level": _LEVEL,
    "write_statistics": True,
}


def to_table(series_ids: UInt32s, times: Int64s, rows: AggregateRows) -> pa.Table:
    """A row group of aggregates.parquet."""
    columns = [pa.array(np.ascontiguousarray(rows[name])) for name in AGGREGATE_ROW.names or ()]
    return pa.Table.from_arrays([pa.array(series_ids), pa.array(times).view(TIME), *columns], schema=AGGREGATES_SCHEMA)


def columns_of(aggregate: AggregateKind | None) -> list[str]:
    """The columns of the file that `rows_of` needs."""
    match aggregate:
        case None:
            return list(AGGREGATE_ROW.names or ())
        case AggregateKind.LAST:
            return ["last", "stale"]
        case AggregateKind.LAST_NUMBER:
            return ["last"]
        case _:
            return [aggregate.value]


def values_of(table: pa.Table, aggregate: AggregateKind | None) -> npt.NDArray[Any]:
    """One of the aggregates in each row of a table that has `columns_of` it, float64; all of them for None, as
    AggregateRows."""
    if aggregate is None:
        rows = np.empty(table.num_rows, AGGREGATE_ROW)
        for name in AGGREGATE_ROW.names or ():
            rows[name] = table.column(name).to_numpy()
        return rows
    column = columns_of(aggregate)[0]
    if aggregate is AggregateKind.COUNT:
        counts = table.column(column).to_numpy()
        return np.where(counts == 0, stale_marker(), counts.astype(np.float64))
    values: Floats = table.column(column).to_numpy()
    if aggregate is AggregateKind.LAST:
        stale = table.column("stale").to_numpy()
        return np.where(stale, stale_marker(), values) if stale.any() else values
    return values


def bucket_times(times: Int64s, resolution: int) -> Int64s:
    """The last millisecond of the bucket that each time lies in."""
    return times - times % resolution + (resolution - 1)


def aggregated(rows: Rows, resolution: int, before: Floats) -> tuple[Rows, Floats]:
    """Samples in buckets of `resolution` ms. Every series has some.

    before: the latest number of each series before these rows, NaN where there is none. Returned beside the aggregates
    is what that is behind them.
    """
    values, counts = rows.values, rows.counts
    series = np.repeat(np.arange(len(counts)), counts)
    times = bucket_times(rows.times, resolution)
    starts, per_series = _buckets(series, times)
    ends = np.append(starts[1:], len(values)) - 1
    stale = stale_mask(values)
    increase, after = _increase(values, series, starts_of(counts), before)
    out = np.empty(len(starts), AGGREGATE_ROW)
    with np.errstate(all="ignore"):
        out["count"] = np.add.reduceat(~stale, starts, dtype=np.int64)
        out["sum"] = np.add.reduceat(np.where(stale, 0.0, values), starts)
        numbers = np.where(stale, np.nan, values)
        out["min"] = np.fmin.reduceat(numbers, starts)
        out["max"] = np.fmax.reduceat(numbers, starts)
    out["increase"] = np.add.reduceat(increase, starts)
    out["stale"] = stale[ends]
    at = np.maximum.reduceat(np.where(stale, -1, np.arange(len(values))), starts)
    out["last"] = values[np.maximum(at, 0)]
    _mark_empty(out)
    return Rows(per_series, times[starts], out), after


def coarser(rows: Rows, resolution: int) -> Rows:
    """Aggregates in larger buckets, of `resolution` ms: a multiple of theirs. Every series has some."""
    values = rows.values
    series = np.repeat(np.arange(len(rows.counts)), rows.counts)
    times = bucket_times(rows.times, resolution)
    starts, per_series = _buckets(series, times)
    if len(starts) == len(values):
        return Rows(rows.counts, times, values)
    ends = np.append(starts[1:], len(values)) - 1
    empty = values["count"] == 0
    out = np.empty(len(starts), AGGREGATE_ROW)
    with np.errstate(all="ignore"):
        out["count"] = np.add.reduceat(values["count"], starts)
        out["sum"] = np.add.reduceat(np.where(empty, 0.0, values["sum"]), starts)
        out["min"] = np.fmin.reduceat(np.where(empty, np.nan, values["min"]), starts)
        out["max"] = np.fmax.reduceat(np.where(empty, np.nan, values["max"]), starts)
        out["increase"] = np.add.reduceat(np.where(empty, 0.0, values["increase"]), starts)
    out["stale"] = values["stale"][ends]
    at = np.maximum.reduceat(np.where(empty, -1, np.arange(len(values))), starts)
    out["last"] = values["last"][np.maximum(at, 0)]
    _mark_empty(out)
    return Rows(per_series, times[starts], out)


def sample_increases(values: Floats, counts: Int64s, before: Floats) -> Floats:
    """What each sample adds to a counter, as AGGREGATE_ROW says; a stale marker stays one."""
    if not len(values):
        return values
    filled = np.flatnonzero(counts)
    series = np.repeat(np.arange(len(filled)), counts[filled])
    increase, _ = _increase(values, series, starts_of(counts[filled]), before[filled])
    return np.where(stale_mask(values), stale_marker(), increase)


def _buckets(series: Int64s, times: Int64s) -> tuple[Int64s, Int64s]:
    """The first row of each bucket, and how many buckets each series has."""
    begins = np.ones(len(times), np.bool_)
    begins[1:] = (times[1:] != times[:-1]) | (series[1:] != series[:-1])
    starts = np.flatnonzero(begins)
    return starts, np.bincount(series[starts])


def _increase(values: Floats, series: Int64s, starts: Int64s, before: Floats) -> tuple[Floats, Floats]:
    """What each row adds to its counter, and the latest number of each series, or what it was before."""
    number: Bools = ~np.isnan(values)
    place = np.maximum.accumulate(np.where(number, np.arange(len(values)), -1))
    previous_at = np.concatenate(([-1], place[:-1]))
    inside = previous_at >= starts[series]
    previous = np.where(inside, values[previous_at], before[series])
    with np.errstate(all="ignore"):
        gain = np.where(values < previous, values, values - previous)
    gain[~np.isfinite(gain)] = 0.0  # a NaN on either side, or infinities
    last_at = place[np.append(starts[1:], len(values)) - 1]
    return gain, np.where(last_at >= starts, values[last_at], before)


def _mark_empty(rows: AggregateRows) -> None:
    """Rows that stand for stale markers alone: no value of theirs may count for a sample."""
    empty = rows["count"] == 0
    if empty.any():
        for name in NUMBERS:
            rows[name].view(np.int64)[empty] = STALE_BITS
