"""Writing the files of a block of events, a row group at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamgauge.model.arrays import Int64s
from streamgauge.model.event_source import Node
from streamgauge.model.events import Stream
from streamgauge.store import fs, names
from streamgauge.store.arrow import lengths, take_keys
from streamgauge.store.events.encodings import FLUSH_LEVEL, Encodings
from streamgauge.store.events.format import (
    FOOTER_KEY,
    MAX_ROW_GROUP,
    MAX_ROW_GROUP_BYTES,
    STREAMS_SCHEMA,
    TIME,
    Checksums,
    RowGroup,
    encode_meta,
    events_schema,
    streams_table,
)
from streamgauge.store.events.mixed import MixedMembers
from streamgauge.store.events.ports import EventBlockMeta, EventRows
from streamgauge.store.events.shred import Shredder, sample
from streamgauge.store.parquet_output import ParquetOutput

_MAGIC_BYTES = 4


class EventBlockWriter:
    """Writes one block into `directory`, which exists and is empty. Publishing the directory is what syncs it.

    `write_row_group` in the block's order, then `finish`. Always `close`. Raises StorageError when the disk fails; the
    directory is then of no use.
    """

    def __init__(self, directory: Path, meta: EventBlockMeta, node: Node, encodings: Encodings) -> None:
        self._directory = directory
        self._meta = meta
        self._schema = events_schema(node)
        self._output = ParquetOutput(names.events_file(directory), self._schema, encodings.settings())
        self._times: list[int] = []
        self._text_bytes: list[int] = []
        self._streams: set[int] = set()
        self._mixed = MixedMembers(node)
        self._rows = 0
        self.finished = False

    def write_row_group(self, rows: RowGroup) -> None:
        """At least one row, behind those before. Payloads are as the node says."""
        columns: list[pa.Array[Any]] = [
            pa.array(rows.streams),
            pa.array(rows.indexes),
            pa.array(rows.times).view(TIME),
            rows.payloads,
        ]
        self._output.write_row_group(pa.Table.from_arrays(columns, schema=self._schema))
        self._mixed.add(rows.payloads)
        self._times += [int(rows.times.min()), int(rows.times.max())]
        self._streams.update(np.unique(rows.streams).tolist())
        self._text_bytes.append(rows.text_bytes)
        self._rows += len(rows)

    def finish(self, streams: Sequence[Stream]) -> EventBlockMeta:
        """Write the footer, the streams and the checksums. `streams` are those of all events, and may be more.

        Returns the block's meta with what was counted filled in.
        """
        if self._rows == 0:  # only streams that nothing has come in yet
            self._times = [stream.started for stream in streams]
            self._streams = {stream.id for stream in streams}
        meta = replace(
            self._meta,
            min_time=min(self._times),
            max_time=max(self._times),
            min_stream=min(self._streams),
            max_stream=max(self._streams),
            events=self._rows,
            streams=len({stream.id for stream in streams}),
        )
        footer_start = self._output.size
        self._output.take_checksum()
        self._output.finish(FOOTER_KEY, encode_meta(meta, self._mixed.paths))
        footer = self._output.take_checksum()
        self._output.close()
        streams_size, streams_checksum = self._write_streams(meta, streams)
        checksums = Checksums(
            events_size=self._output.size,
            footer_start=footer_start,
            footer=footer,
            text_bytes=tuple(self._text_bytes),
            columns=_column_checksums(names.events_file(self._directory)),
            streams_size=streams_size,
            streams=streams_checksum,
        ).encode()
        fs.write_durably(names.checksums_file(self._directory), checksums)
        self.finished = True
        return replace(meta, bytes=self._output.size + streams_size + len(checksums))

    def close(self) -> None:
        """Close the files, finished or not."""
        self._output.close()

    def _write_streams(self, meta: EventBlockMeta, streams: Sequence[Stream]) -> tuple[int, int]:
        settings = {"compression_level": FLUSH_LEVEL}
        with closing(ParquetOutput(names.streams_file(self._directory), STREAMS_SCHEMA, settings)) as output:
            output.write_row_group(streams_table(streams))
            output.finish(FOOTER_KEY, encode_meta(meta))
            return output.size, output.take_checksum()


def chunk_range(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """The bytes (from, to) of a column of a row group."""
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset is not None:
        start = min(start, chunk.dictionary_page_offset)
    return start, start + chunk.total_compressed_size


def _column_checksums(path: Path) -> tuple[tuple[int, ...], ...]:
    """Where columns begin is known when the file is written; reading it again comes out of the system's cache."""
    metadata = pq.read_metadata(path)
    found: list[tuple[int, ...]] = []
    at = _MAGIC_BYTES
    with path.open("rb") as file:
        for group in range(metadata.num_row_groups):
            checksums = []
            for column in range(metadata.num_columns):
                start, stop = chunk_range(metadata.row_group(group).column(column))
                assert start == at, "columns do not follow each other"
                file.seek(start)
                checksums.append(zlib.crc32(file.read(stop - start)))
                at = stop
            found.append(tuple(checksums))
    return tuple(found)


def row_groups(sizes: Int64s) -> Iterator[slice]:
    """Rows for one row group after the other, by the bytes of each payload."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + MAX_ROW_GROUP_BYTES, "right")), start + 1)
        stop = min(stop, start + MAX_ROW_GROUP)
        yield slice(start, stop)
        start = stop


def shred_rows(rows: EventRows) -> tuple[Node, Iterator[RowGroup]]:
    """What a block of these events is made of: its tree, and its row groups in order."""
    shredder = Shredder(sample(rows.payloads))
    return shredder.node, groups_of(rows, shredder.shred)


def groups_of(rows: EventRows, columns_of: Callable[[pa.LargeBinaryArray], pa.StructArray]) -> Iterator[RowGroup]:
    """Row groups in order, with what `columns_of` makes of payloads."""
    order = np.lexsort((rows.indexes, rows.streams))
    sizes = lengths(rows.payloads)
    for part in row_groups(sizes[order]):
        at = order[part]
        payloads = columns_of(take_keys(rows.payloads, at))
        yield RowGroup(rows.streams[at], rows.indexes[at], rows.times[at], payloads, int(sizes[at].sum()))
