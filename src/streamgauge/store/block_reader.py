"""Reading one block: its series are held as NumPy columns, its rows are decoded by row group as they are asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from streamgauge.model.arrays import Bools, Floats, Int64s, UInt32s
from streamgauge.model.source import AggregateKind, Meter
from streamgauge.store import arrow, names
from streamgauge.store.aggregates import AGGREGATE_ROW
from streamgauge.store.block_file import reading
from streamgauge.store.block_format import FOOTER_KEY, Checksums, decode_checksums, decode_meta
from streamgauge.store.block_labels import Labels, labels_to_keys
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import SAMPLE_BYTES, BlockMeta, Part, part_bytes
from streamgauge.store.ranges import lower_bound, ranges, starts_of, take_ranges
from streamgauge.store.samples_file import SamplesFile

_GROUPS_AT_ONCE = 32
"""Row groups decoded in one go: some 3 million rows, 50 MB."""


def read_meta(directory: Path) -> BlockMeta:
    """What a block's footer says, without reading its rows or series. Raises Corrupt and FormatTooNew.

    Sizes and footers of both files are checked.
    """
    checksums = _read_checksums(directory)
    series = names.series_file(directory)
    _verify_tail(series, checksums.series.size, checksums.series.footer_start, checksums.series.footer)
    with reading(series):
        meta = _meta(directory, pq.read_metadata(series), checksums)
    rows = names.rows_file(directory, meta.resolution)
    _verify_tail(rows, checksums.samples_size, int(checksums.byte_ends[-1]), checksums.samples_footer)
    return meta


def _read_checksums(directory: Path) -> Checksums:
    path = names.checksums_file(directory)
    with reading(path):
        hit("fs.read")
        return decode_checksums(path.read_bytes())


def _verify_tail(path: Path, size: int, start: int, checksum: int) -> None:
    with reading(path), pa.OSFile(str(path), "r") as file:
        if file.size() != size:
            raise ValueError(f"it has {file.size()} bytes, not {size}")
        file.seek(start)
        if zlib.crc32(file.read(size - start)) != checksum:
            raise ValueError("its footer is damaged")


def _meta(directory: Path, footer: pq.FileMetaData, checksums: Checksums) -> BlockMeta:
    size = checksums.samples_size + checksums.series.size + names.checksums_file(directory).stat().st_size
    meta = decode_meta((footer.metadata or {}).get(FOOTER_KEY.encode()), size)
    if meta.id != directory.name:
        raise ValueError(f"its footer names block {meta.id}")
    return meta


class LocalBlockReader:
    """A block on the local disk; `ports.BlockReader`. One thread uses it at a time.

    Every method that touches the disk raises Corrupt for bytes that are not what was written.
    """

    def __init__(self, directory: Path) -> None:
        checksums = _read_checksums(directory)
        self._series_path = names.series_file(directory)
        self._series_checksums = checksums.series
        file = self._read_series_file()
        with reading(self._series_path):
            self.meta = _meta(directory, file.metadata, checksums)
            table = file.read(columns=["series_id", "first_row", "rows", "min_time", "max_time"])
        self._ids: UInt32s = table.column(0).to_numpy()
        self.first_rows: Int64s = table.column(1).to_numpy()
        self.rows: Int64s = table.column(2).to_numpy()
        self._min_times: Int64s = table.column(3).cast(pa.int64()).to_numpy()
        self._max_times: Int64s = table.column(4).cast(pa.int64()).to_numpy()
        self._by_id = np.argsort(self._ids, kind="stable").astype(np.int32)
        self._sorted_ids = self._ids[self._by_id]
        resolution = self.meta.resolution
        self.samples = SamplesFile(names.rows_file(directory, resolution), checksums, resolution)

    def __enter__(self) -> LocalBlockReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def series_ids(self) -> UInt32s:
        return self._ids

    def keys(self) -> arrow.Keys:
        """Not kept: each call decodes the labels."""
        file = self._read_series_file()
        with reading(self._series_path):
            groups = [file.read_row_group(group, columns=["labels"]) for group in range(file.num_row_groups)]
        chunks = [labels_to_keys(cast(Labels, chunk)) for group in groups for chunk in group.column(0).chunks]
        return arrow.keys_of(chunks)

    def time_bounds(self) -> tuple[Int64s, Int64s]:
        return self._min_times, self._max_times

    def read(
        self, ids: UInt32s, start: int, end: int, meter: Meter, aggregate: AggregateKind = AggregateKind.LAST
    ) -> Part:
        chosen, series = self._find(ids, start, end)
        first, rows = self.first_rows[series], self.rows[series]
        inside = (self._min_times[series] >= start) & (self._max_times[series] <= end)
        pieces = self._pieces(first, rows, inside, start, end, meter, aggregate)
        counts, held = np.zeros(len(ids), np.int64), 0
        if not inside.all():  # how many rows are in range is known when they are decoded
            decoded = []
            for piece in pieces:
                counts[chosen[piece.series]] += piece.rows
                meter.charge(0, piece.size)
                held += piece.size
                decoded.append(piece)
            pieces = iter(decoded)
        else:
            counts[chosen] = rows
        total = int(counts.sum())
        meter.charge(total, part_bytes(len(ids), total))
        part = Part(counts, np.empty(total, np.int64), np.empty(total, np.float64))
        to = starts_of(counts)[chosen]
        for piece in pieces:
            piece.place(part, to[piece.series])
            to[piece.series] += piece.rows
        meter.release(0, held)
        return part

    def cursor(self) -> RowCursor:
        """Reads all rows from first to last."""
        return RowCursor(self.samples)

    def last_numbers(self) -> Floats:
        """Of a block of aggregates: the latest number of each series, in the block's order, NaN where it has none."""
        found = np.full(len(self._ids), np.nan)
        ends = self.first_rows + self.rows
        for group in range(len(self.samples.row_ends)):
            _, values = self.samples.decode(group, group + 1, AggregateKind.LAST_NUMBER)
            rows = np.flatnonzero(~np.isnan(values))
            found[np.searchsorted(ends, rows + self.samples.row_starts[group], "right")] = values[rows]
        return found

    @property
    def held_bytes(self) -> int:
        """Roughly the memory that the open block takes."""
        per_series = sum(column.nbytes for column in (self._ids, self.rows, self.first_rows, *self.time_bounds()))
        return per_series + self._by_id.nbytes + self._sorted_ids.nbytes + 300 * len(self.samples.row_ends) + 20_000

    def rest(self) -> None:
        """Close its file, which is opened again when it is read."""
        self.samples.rest()

    def close(self) -> None:
        self.samples.close()

    def _read_series_file(self) -> pq.ParquetFile:
        """Whole and checked. It is small beside the samples, and two opens of a file may see two states of a disk."""
        checksums = self._series_checksums
        with reading(self._series_path):
            hit("fs.read")
            content = self._series_path.read_bytes()
            view = memoryview(content)
            if (
                len(content) != checksums.size
                or zlib.crc32(view[: checksums.footer_start]) != checksums.body
                or zlib.crc32(view[checksums.footer_start :]) != checksums.footer
            ):
                raise ValueError("it is damaged")
            return pq.ParquetFile(pa.BufferReader(content))

    def _find(self, ids: UInt32s, start: int, end: int) -> tuple[Int64s, Int64s]:
        """Which of `ids` have rows that may be in the time range, as (index into `ids`, series of the block), ordered
        as the block is."""
        at = np.searchsorted(self._sorted_ids, ids)
        at[at == len(self._sorted_ids)] = 0
        series = self._by_id[at].astype(np.int64)
        found = (self._ids[series] == ids) & (self._min_times[series] <= end) & (self._max_times[series] >= start)
        chosen = np.flatnonzero(found)
        series = series[chosen]
        order = np.argsort(series, kind="stable")
        return chosen[order], series[order]

    def _pieces(
        self,
        first: Int64s,
        rows: Int64s,
        inside: Bools,
        start: int,
        end: int,
        meter: Meter,
        aggregate: AggregateKind,
    ) -> Iterator[_Piece]:
        """The rows of chosen series that are in the time range. `inside` marks series that are so altogether.

        Decoded row groups are charged to the meter until the next piece is asked for, pieces are not.
        """
        for group, stop in self._runs_of_groups(first, rows):
            begin, finish = int(self.samples.row_starts[group]), int(self.samples.row_ends[stop - 1])
            meter.charge(0, (finish - begin) * SAMPLE_BYTES)
            columns = self.samples.decode(group, stop, aggregate)
            series = slice(
                int(np.searchsorted(first + rows, begin, "right")), int(np.searchsorted(first, finish, "left"))
            )
            low = np.maximum(first[series], begin) - begin
            count = np.minimum(first[series] + rows[series], finish) - begin - low
            low, count = _within(columns[0], low, count, inside[series], start, end)
            yield _Piece(series, count, *take_ranges(columns, low, count))
            meter.release(0, (finish - begin) * SAMPLE_BYTES)

    def _runs_of_groups(self, first: Int64s, rows: Int64s) -> Iterator[tuple[int, int]]:
        """The row groups that hold the given rows, as runs [group, stop)."""
        if len(first) == 0:
            return
        groups = len(self.samples.row_ends)
        edges = np.bincount(self.samples.groups_of(first), minlength=groups + 1)
        edges -= np.bincount(self.samples.groups_of(first + rows - 1) + 1, minlength=groups + 1)
        wanted = np.cumsum(edges) > 0
        changes = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
        for group, stop in changes.reshape(-1, 2).tolist():
            for begin in range(group, stop, _GROUPS_AT_ONCE):
                yield begin, min(begin + _GROUPS_AT_ONCE, stop)


def _within(times: Int64s, first: Int64s, count: Int64s, whole: Bools, start: int, end: int) -> tuple[Int64s, Int64s]:
    """The ranges cut to start <= time <= end. `whole` marks those that need no cut."""
    cut = np.flatnonzero(~whole)
    if len(cut) == 0:
        return first, count
    low = lower_bound(times, first[cut], count[cut], start)
    high = lower_bound(times, low, first[cut] + count[cut] - low, end + 1)
    first, count = first.copy(), count.copy()
    first[cut], count[cut] = low, high - low
    return first, count


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of some of the chosen series (`series`, in the block's order), one series behind the other."""

    series: slice
    rows: Int64s
    times: Int64s
    values: Floats

    @property
    def size(self) -> int:
        """Bytes."""
        return SAMPLE_BYTES * len(self.times)

    def place(self, part: Part, to: Int64s) -> None:
        """Copy the rows of each series to the place `to` says."""
        if len(to) == 0:
            return
        if np.array_equal(to[1:], to[:-1] + self.rows[:-1]):
            index: slice | Int64s = slice(int(to[0]), int(to[0]) + len(self.times))
        elif _is_matrix(part.counts, self.rows):  # series scraped together: a row of a matrix moves in one go
            width = int(self.rows[0])
            part.times.reshape(-1, width)[to // width] = self.times.reshape(-1, width)
            part.values.reshape(-1, width)[to // width] = self.values.reshape(-1, width)
            return
        else:
            index = ranges(to, self.rows)
        part.times[index] = self.times
        part.values[index] = self.values


def _is_matrix(counts: Int64s, rows: Int64s) -> bool:
    """Every series has the same number of rows, and the piece has all of them."""
    return bool(rows[0] > 0 and (rows == rows[0]).all() and ((counts == rows[0]) | (counts == 0)).all())


class RowCursor:
    """Reads a block's rows in order, a row group at a time."""

    def __init__(self, samples: SamplesFile) -> None:
        self._samples = samples
        self._next_group = 0
        self._times = np.empty(0, np.int64)
        self._values: npt.NDArray[Any] = np.empty(0, AGGREGATE_ROW if samples.of_aggregates else np.float64)

    def take(self, rows: int) -> tuple[Int64s, npt.NDArray[Any]]:
        """The next `rows` rows; fewer only at the end."""
        groups = len(self._samples.row_ends)
        while len(self._times) < rows and self._next_group < groups:
            stop = self._next_group + 1
            times, values = self._samples.decode(self._next_group, stop)
            self._next_group = stop
            self._times = np.concatenate((self._times, times))
            self._values = np.concatenate((self._values, values))
        taken = self._times[:rows], self._values[:rows]
        self._times, self._values = self._times[rows:], self._values[rows:]
        return taken
