"""Writing the files of a block: rows go in as they come, in the block's order, and no more than a few row groups of
them are held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.model.arrays import Floats, Int64s, UInt32s
from streamgauge.store import arrow, fs, names
from streamgauge.store.aggregates import AGGREGATE_ROW, AGGREGATES_SCHEMA, AGGREGATES_SETTINGS, to_table
from streamgauge.store.block_encodings import BlockEncoding
from streamgauge.store.block_format import (
    FOOTER_KEY,
    MAX_ROW_GROUP,
    MIN_ROW_GROUP,
    SAMPLES_SCHEMA,
    SERIES_SCHEMA,
    TIME,
    Checksums,
    SeriesChecksums,
    encode_meta,
)
from streamgauge.store.block_labels import keys_to_labels
from streamgauge.store.decimals import to_stored
from streamgauge.store.parquet.output import FlatOutput
from streamgauge.store.parquet_output import ParquetOutput
from streamgauge.store.ports import BlockMeta
from streamgauge.store.ranges import starts_of

SERIES_ROW_GROUP = 32_768
SERIES_ROW_GROUP_BYTES = 64 << 20
"""Series of a row group of the series file, and bytes of their keys (one series may pass it), which bounds what
decoding their labels takes. A key can take 128 KiB, and more than 2 GiB of labels do not fit the columns of a group."""


def _series_settings(level: int) -> dict[str, Any]:
    return {
        "use_dictionary": ["labels.key_value.key", "labels.key_value.value"],
        "column_encoding": dict.fromkeys(SERIES_SCHEMA.names[:-1], "DELTA_BINARY_PACKED"),
        "compression_level": level,
        "write_statistics": ["series_id", "min_time", "max_time"],
    }


class BlockWriter:
    """Writes one block into `directory`, which exists and is empty. Publishing the directory is what syncs it.

    `append` rows in the block's order, then `finish`. Always `close`. Raises StorageError when the disk fails; the
    directory is then of no use.
    """

    def __init__(
        self,
        directory: Path,
        meta: BlockMeta,
        encoding: BlockEncoding,
        *,
        series_group_bytes: int = SERIES_ROW_GROUP_BYTES,
    ) -> None:
        self._directory = directory
        self._series_group_bytes = series_group_bytes
        self._meta = meta
        self._encoding = encoding
        self._samples = _samples_output(names.rows_file(directory, meta.resolution), meta, encoding)
        self._pending = _PendingRows(to_table if meta.resolution else _row_group, _dtype(meta))
        self._series = _SeriesColumns()
        self._row_ends: list[int] = []
        self._byte_ends: list[int] = []
        self._checksums: list[int] = []
        self.finished = False

    def append(self, ids: UInt32s, counts: Int64s, times: Int64s, values: npt.NDArray[Any]) -> None:
        """Rows of the series `ids`: counts[i] > 0 of ids[i]. The first may go on with the last series before.

        Values are Floats, or AggregateRows where the block's meta has a resolution."""
        if len(ids) == 0:
            return
        self._series.add(ids, counts, times)
        self._pending.add(ids, counts, times, values)
        for table in self._pending.cut(MAX_ROW_GROUP):
            self._write_group(table)

    def finish(self, keys: arrow.Keys) -> BlockMeta:
        """Write what is left, the series file and the checksums. `keys` are those of all series appended, in order.

        Returns the block's meta with series, samples, bytes and time range filled in.
        """
        for table in self._pending.cut(1):
            self._write_group(table)
        columns = self._series.columns()
        assert len(keys) == len(columns.ids) > 0
        meta = replace(
            self._meta,
            min_time=int(columns.min_times.min()),
            max_time=int(columns.max_times.max()),
            series=len(columns.ids),
            samples=int(columns.counts.sum()),
        )
        self._samples.finish(FOOTER_KEY, encode_meta(meta))
        samples_footer = self._samples.take_checksum()
        series = self._write_series(meta, columns, keys)
        checksums = Checksums(
            row_ends=np.array(self._row_ends, np.int64),
            byte_ends=np.array(self._byte_ends, np.int64),
            row_groups=np.array(self._checksums, np.int64),
            samples_size=self._samples.size,
            samples_footer=samples_footer,
            series=series,
        ).encode()
        fs.write_durably(names.checksums_file(self._directory), checksums)
        self.finished = True
        return replace(meta, bytes=self._samples.size + series.size + len(checksums))

    def close(self) -> None:
        """Close the files, finished or not."""
        self._samples.close()

    def _write_group(self, table: pa.Table) -> None:
        self._samples.write_row_group(table)
        self._row_ends.append(table.num_rows + (self._row_ends[-1] if self._row_ends else 0))
        self._byte_ends.append(self._samples.size)
        self._checksums.append(self._samples.take_checksum())

    def _write_series(self, meta: BlockMeta, series: _Series, keys: arrow.Keys) -> SeriesChecksums:
        with closing(
            ParquetOutput(
                names.series_file(self._directory), SERIES_SCHEMA, _series_settings(self._encoding.series_level)
            )
        ) as output:
            first_rows = starts_of(series.counts)
            for rows in _series_groups(arrow.lengths(keys), self._series_group_bytes):
                columns: list[pa.Array[Any]] = [
                    pa.array(series.ids[rows]),
                    pa.array(first_rows[rows]),
                    pa.array(series.counts[rows]),
                    pa.array(series.min_times[rows]).view(TIME),
                    pa.array(series.max_times[rows]).view(TIME),
                    keys_to_labels(arrow.narrow(keys[rows])),
                ]
                output.write_row_group(pa.Table.from_arrays(columns, schema=SERIES_SCHEMA))
            body_size, body = output.size, output.take_checksum()
            output.finish(FOOTER_KEY, encode_meta(meta))
            return SeriesChecksums(output.size, body_size, body, output.take_checksum())


def _series_groups(sizes: Int64s, limit: int) -> Iterator[slice]:
    """The row groups of the series file, by the bytes of each key."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(ends):
        stop = int(np.searchsorted(ends, ends[start] - sizes[start] + limit, "right"))
        stop = min(max(stop, start + 1), start + SERIES_ROW_GROUP)
        yield slice(start, stop)
        start = stop


def _dtype(meta: BlockMeta) -> np.dtype[Any]:
    return AGGREGATE_ROW if meta.resolution else np.dtype(np.float64)


def _samples_output(path: Path, meta: BlockMeta, encoding: BlockEncoding) -> ParquetOutput | FlatOutput:
    if meta.resolution:
        return ParquetOutput(path, AGGREGATES_SCHEMA, AGGREGATES_SETTINGS)
    return FlatOutput(path, SAMPLES_SCHEMA, encoding.columns)


class _PendingRows:
    """Rows that wait until they fill a row group: fewer than MAX_ROW_GROUP between two appends."""

    def __init__(
        self, row_group: Callable[[UInt32s, Int64s, npt.NDArray[Any]], pa.Table], dtype: np.dtype[Any]
    ) -> None:
        self._row_group = row_group
        self._ids = np.empty(0, np.uint32)
        self._counts = np.empty(0, np.int64)
        self._times = np.empty(0, np.int64)
        self._values: npt.NDArray[Any] = np.empty(0, dtype)

    def add(self, ids: UInt32s, counts: Int64s, times: Int64s, values: npt.NDArray[Any]) -> None:
        self._ids = np.concatenate((self._ids, ids))
        self._counts = np.concatenate((self._counts, counts))
        self._times = np.concatenate((self._times, times))
        self._values = np.concatenate((self._values, values))

    def cut(self, least: int) -> Iterator[pa.Table]:
        """Row groups, for as long as at least `least` rows wait."""
        ends = np.cumsum(self._counts)
        series_ids = np.repeat(self._ids, self._counts)
        start = 0
        while len(series_ids) - start >= least:
            stop = _group_end(ends, start, len(series_ids))
            rows = slice(start, stop)
            yield self._row_group(series_ids[rows], self._times[rows], self._values[rows])
            start = stop
        first = int(np.searchsorted(ends, start, "right"))
        self._counts = np.diff(ends[first:], prepend=start)
        self._ids = self._ids[first:].copy()
        self._times = self._times[start:].copy()
        self._values = self._values[start:].copy()


def _row_group(series_ids: UInt32s, times: Int64s, values: Floats) -> pa.Table:
    stored = to_stored(values, _series_starts(series_ids))
    return pa.Table.from_arrays(
        [pa.array(series_ids), pa.array(times).view(TIME), stored.value, stored.unscaled, pa.array(stored.scale)],
        schema=SAMPLES_SCHEMA,
    )


def _series_starts(series_ids: UInt32s) -> Int64s:
    """The rows at which another series begins than in the row before, 0 included."""
    changes: Int64s = np.flatnonzero(series_ids[1:] != series_ids[:-1]) + 1
    return np.concatenate((np.zeros(1, np.int64), changes))


def _group_end(series_ends: Int64s, start: int, rows: int) -> int:
    """Where the row group that begins at `start` ends: with a series, if one ends between the two sizes of a group."""
    if rows - start <= MAX_ROW_GROUP:
        return rows
    latest = int(np.searchsorted(series_ends, start + MAX_ROW_GROUP, "right")) - 1
    if latest >= 0 and series_ends[latest] >= start + MIN_ROW_GROUP:
        return int(series_ends[latest])
    return start + MAX_ROW_GROUP


@dataclass(frozen=True, slots=True)
class _Series:
    """What the series file says beside the labels."""

    ids: UInt32s
    counts: Int64s
    min_times: Int64s
    max_times: Int64s


class _SeriesColumns:
    """Gathers the columns of the series file while rows pass by."""

    def __init__(self) -> None:
        self._parts: list[_Series] = []

    def add(self, ids: UInt32s, counts: Int64s, times: Int64s) -> None:
        starts = starts_of(counts)
        part = _Series(ids.copy(), counts.astype(np.int64), times[starts], times[starts + counts - 1])
        if self._parts and self._parts[-1].ids[-1] == ids[0]:
            last = self._parts[-1]
            last.counts[-1] += counts[0]
            last.max_times[-1] = part.max_times[0]
            part = _Series(part.ids[1:], part.counts[1:], part.min_times[1:], part.max_times[1:])
        if len(part.ids):
            self._parts.append(part)

    def columns(self) -> _Series:
        return _Series(
            np.concatenate([part.ids for part in self._parts]),
            np.concatenate([part.counts for part in self._parts]),
            np.concatenate([part.min_times for part in self._parts]),
            np.concatenate([part.max_times for part in self._parts]),
        )
