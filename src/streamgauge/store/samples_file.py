"""Reading samples.parquet by rows. Every byte is checked before it is decoded."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from streamgauge.model.arrays import Floats, Int64s, UInt32s
from streamgauge.model.source import AggregateKind
from streamgauge.store.aggregates import columns_of, values_of
from streamgauge.store.block_file import BlockFile, reading
from streamgauge.store.block_format import Checksums
from streamgauge.store.decimals import from_stored
from streamgauge.store.failpoints import hit

_THREADS_FROM = 4
"""Row groups from which it pays to decode the two columns at the same time."""


class SamplesFile:
    """An open samples.parquet. One thread uses it at a time; decoding itself may use Arrow's."""

    def __init__(self, path: Path, checksums: Checksums, resolution: int = 0) -> None:
        self.of_aggregates = resolution > 0
        self.row_ends = checksums.row_ends
        self.row_starts = np.concatenate((np.zeros(1, np.int64), self.row_ends[:-1]))
        self._byte_ends = checksums.byte_ends
        self._byte_starts = np.concatenate((np.zeros(1, np.int64), self._byte_ends[:-1]))
        self._checksums = checksums
        self._path = path
        self._file = BlockFile(path, checksums.samples_size)
        with reading(path):
            self._file.opened()
        self._parquet: pq.ParquetFile | None = None
        self._number_columns: dict[str, int] | None = None

    def groups_of(self, rows: Int64s) -> Int64s:
        """The row group that each row lies in."""
        groups: Int64s = np.searchsorted(self.row_ends, rows, "right")
        return groups

    def decode(self, first: int, stop: int, aggregate: AggregateKind | None = None) -> tuple[Int64s, npt.NDArray[Any]]:
        """Times and values of the row groups first <= group < stop, as read-only arrays. Raises Corrupt.

        Where rows are aggregates, the values are one of them, or, without a choice, all: as AggregateRows.
        """
        with reading(self._path):
            hit("fs.read")
            parquet = self._open()
            self._verify(first, stop)
            table = parquet.read_row_groups(
                list(range(first, stop)),
                columns=["time", *self._columns(parquet.metadata, first, stop, aggregate)],
                use_threads=stop - first >= _THREADS_FROM,
            )
            expected = int(self.row_ends[stop - 1] - self.row_starts[first])
            if table.num_rows != expected:
                raise ValueError(f"it has {table.num_rows} rows in row groups {first} to {stop}, not {expected}")
            values = values_of(table, aggregate) if self.of_aggregates else _values(table)
            return _numpy(table.column("time"), pa.int64()), values

    def rows(self, start: int, stop: int) -> tuple[Int64s, npt.NDArray[Any]]:
        """Times and values of the rows start <= row < stop; at least one. Raises Corrupt."""
        first, last = self.groups_of(np.array([start, stop - 1])).tolist()
        times, values = self.decode(first, last + 1)
        cut = slice(start - int(self.row_starts[first]), stop - int(self.row_starts[first]))
        return times[cut], values[cut]

    def series_ids(self, first: int, stop: int) -> UInt32s:
        """The series_id column of row groups, which only a check needs: the series file says the same."""
        with reading(self._path):
            column = self._open().read_row_groups(list(range(first, stop)), columns=["series_id"]).column(0)
        return _numpy(column, pa.uint32())

    def rest(self) -> None:
        """Close it until it is read again."""
        self._parquet = None
        self._file.rest()

    def close(self) -> None:
        self._parquet = None
        self._file.close()

    def _open(self) -> pq.ParquetFile:
        """The footer is parsed when the first rows are wanted, as many blocks are open for their series only."""
        if self._parquet is None:
            start = int(self._byte_ends[-1])
            footer = self._file.read(start, self._checksums.samples_size)
            if zlib.crc32(footer) != self._checksums.samples_footer:
                raise ValueError("its footer is damaged")
            self._parquet = pq.ParquetFile(self._file.opened())
        return self._parquet

    def _columns(self, metadata: pq.FileMetaData, first: int, stop: int, aggregate: AggregateKind | None) -> list[str]:
        return columns_of(aggregate) if self.of_aggregates else self._value_columns(metadata, first, stop)

    def _value_columns(self, metadata: pq.FileMetaData, first: int, stop: int) -> list[str]:
        """Those of the columns that make up values that have any in these row groups."""
        if self._number_columns is None:
            self._number_columns = {
                name: column
                for column in range(metadata.num_columns)
                if (name := metadata.schema.column(column).name) in ("value", "unscaled", "scale")
            }
        return [
            name
            for name, column in self._number_columns.items()
            if any(_has_any(metadata.row_group(group).column(column)) for group in range(first, stop))
        ]

    def _verify(self, first: int, stop: int) -> None:
        start = int(self._byte_starts[first])
        content = memoryview(self._file.read(start, int(self._byte_ends[stop - 1])))
        for group in range(first, stop):
            piece = content[int(self._byte_starts[group]) - start : int(self._byte_ends[group]) - start]
            if zlib.crc32(piece) != self._checksums.row_groups[group]:
                raise ValueError(f"row group {group} is damaged")


def _has_any(chunk: pq.ColumnChunkMetaData) -> bool:
    """Whether a column of a row group holds anything but nulls, or zeros. True where its statistics do not say."""
    statistics: Any = chunk.statistics  # the stubs lack has_null_count
    if statistics is None:
        return True
    if statistics.has_null_count and statistics.null_count == chunk.num_values:
        return False
    return not (chunk.path_in_schema == "scale" and statistics.has_min_max and statistics.max == 0)


def _values(table: pa.Table) -> Floats:
    names_here = table.column_names
    chunks = [
        from_stored(
            batch.column("value") if "value" in names_here else None,
            batch.column("unscaled") if "unscaled" in names_here else None,
            batch.column("scale").to_numpy() if "scale" in names_here else None,
        )
        for batch in table.to_batches()
    ]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _numpy(column: pa.ChunkedArray[Any], physical: pa.DataType) -> npt.NDArray[Any]:
    chunks = [chunk.view(physical).to_numpy() for chunk in column.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
