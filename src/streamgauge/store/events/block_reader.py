"""Reading one block of events: of its columns those that are asked for, each checked before it is decoded."""

from __future__ import annotations

import pathlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamgauge.errors import Corrupt
from streamgauge.model.arrays import Int64s
from streamgauge.model.event_source import (
    Column,
    EventRange,
    Fixed,
    Leaf,
    Node,
    OneOf,
    Path,
    Present,
    Rest,
    batch_of_events,
)
from streamgauge.model.events import Stream
from streamgauge.store import names
from streamgauge.store.arrow import compute as pc
from streamgauge.store.block_file import BlockFile, reading
from streamgauge.store.events.assemble import payload_texts
from streamgauge.store.events.block_writer import chunk_range
from streamgauge.store.events.format import (
    FOOTER_KEY,
    PAYLOAD,
    Checksums,
    RowGroup,
    decode_checksums,
    decode_meta,
    decode_mixed,
    streams_of,
)
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.events.selection import FEW, rows_with
from streamgauge.store.events.tree import REST, node_of, with_mixed
from streamgauge.store.failpoints import hit

_FIXED = {Fixed.STREAM: 0, Fixed.INDEX: 1, Fixed.RECEIVED: 2}
"""Where they stand in the file."""
_READER_BYTES, _COLUMN_BYTES, _CHUNK_BYTES = 12_000, 2_500, 950
"""What an open block takes of memory (measured): by itself, for each column, and for each column of a row group."""


def checked_sections(directory: pathlib.Path) -> dict[str, list[tuple[int, int]]]:
    """For each file of a block, by its name: its bytes in stretches, each as where it ends and its CRC-32. Raises
    Corrupt."""
    with EventBlockReader(directory) as reader:
        checksums, at = reader.checksums, 4
        events = [(at, zlib.crc32(b"PAR1"))]
        footer = reader.parquet_metadata
        for group, sums in enumerate(checksums.columns):
            for column, crc in enumerate(sums):
                start, stop = chunk_range(footer.row_group(group).column(column))
                if start != at:
                    raise Corrupt(f"{directory / names.EVENTS} has bytes {at} to {start} that nothing checks")
                events.append((stop, crc))
                at = stop
        raw = checksums.encode()
        return {
            names.EVENTS: [*events, (checksums.events_size, checksums.footer)],
            names.STREAMS: [(checksums.streams_size, checksums.streams)],
            names.CHECKSUMS: [(len(raw), zlib.crc32(raw))],
        }


def read_meta(directory: pathlib.Path) -> EventBlockMeta:
    """What a block's footer says, without reading its rows. Raises Corrupt and FormatTooNew.

    Sizes, footers and streams are checked.
    """
    with EventBlockReader(directory) as reader:
        reader.streams()
        return reader.meta


class EventBlockReader:
    """A block on the local disk; `event_source.EventPart`. One thread uses it at a time.

    Every method raises Corrupt for bytes that are not what was written.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._path = names.events_file(directory)
        self._checksums = _read_checksums(directory)
        self._file = BlockFile(self._path, self._checksums.events_size)
        self._plain: pq.ParquetFile | None = None
        self._by_number: pq.ParquetFile | None = None
        try:
            with reading(self._path):
                self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        checksums = self._checksums
        if zlib.crc32(self._file.read(checksums.footer_start, checksums.events_size)) != checksums.footer:
            raise ValueError("its footer is damaged")
        footer = self._footer = pq.read_metadata(self._file.opened())
        size = checksums.events_size + checksums.streams_size + names.checksums_file(self._directory).stat().st_size
        entry = (footer.metadata or {}).get(FOOTER_KEY.encode())
        self.meta = decode_meta(entry, size)
        if self.meta.id != self._directory.name:
            raise ValueError(f"its footer names block {self.meta.id}")
        schema = footer.schema.to_arrow_schema()
        self._payload_type = schema.field(PAYLOAD).type
        self._leaf_paths: list[Path] = [(name,) for name in schema.names[:-1]]
        self._leaf_paths += [(PAYLOAD, *path) for path in _leaf_paths(self._payload_type)]
        self._numbers = {path: number for number, path in enumerate(self._leaf_paths)}
        mixed = None if entry is None else decode_mixed(entry)
        node = self._without_empty_rests(node_of(self._payload_type), ())
        self._node = node if mixed is None else with_mixed(node, mixed)
        self._groups = _Groups(footer)

    def __enter__(self) -> EventBlockReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def checksums(self) -> Checksums:
        return self._checksums

    @property
    def parquet_metadata(self) -> pq.FileMetaData:
        return self._footer

    @property
    def rows(self) -> int:
        return int(self._groups.rows.sum())

    @property
    def node(self) -> Node:
        return self._node

    def streams(self) -> list[Stream]:
        """In order of their ids."""
        path = names.streams_file(self._directory)
        with reading(path):
            hit("fs.read")
            content = path.read_bytes()
            if len(content) != self._checksums.streams_size or zlib.crc32(content) != self._checksums.streams:
                raise ValueError("it is damaged")
            return streams_of(pq.read_table(pa.BufferReader(content)))

    def read(self, columns: Sequence[Column], wanted: EventRange) -> Iterator[pa.RecordBatch]:
        """A batch for each row group that may have such events."""
        for group in self.groups(wanted):
            yield from self.selected(columns, group, wanted.one_of)

    def payloads(self, wanted: EventRange) -> Iterator[pa.RecordBatch]:
        """Whole events, with the columns EVENT_COLUMNS: a batch for each row group that may have such events."""
        for group in self.groups(wanted):
            yield self.events(group)

    def groups(self, wanted: EventRange) -> list[int]:
        """The row groups that may have such events."""
        return self._groups.chosen(wanted)

    @cached_property
    def _numbered_type(self) -> pa.StructType:
        """Of payloads as `batch` gives parts of them."""
        with reading(self._path):
            return cast("pa.StructType", self._texts_by_number().schema_arrow.field(PAYLOAD).type)

    def schema(self, columns: Sequence[Column]) -> pa.Schema:
        return pa.schema([pa.field(str(number), self._type_of(column)) for number, column in enumerate(columns)])

    def batch(self, columns: Sequence[Column], group: int) -> pa.RecordBatch:
        """Columns of a row group, as `schema` says. Texts that the file has in a dictionary come in one."""
        table = self._read_group(self._texts_by_number, group, [self._leaf_of(column) for column in columns])
        names = [str(number) for number in range(len(columns))]
        return pa.RecordBatch.from_arrays(_extracted(table, columns), names)

    def selected(self, columns: Sequence[Column], group: int, one_of: Sequence[OneOf]) -> Iterator[pa.RecordBatch]:
        """Columns of those rows of a row group that fulfil the conditions, and maybe of others.

        Conditions are looked at first, as far as that is less work than to read the other columns."""
        known = [each for each in one_of if self._node.has_text_alone(each.path)]
        sought: list[Column] = [Leaf(each.path) for each in known]
        others = [column for column in columns if column not in sought]
        if not known:
            yield self.batch(columns, group)
            return
        found = self.batch(sought, group).columns
        rows = rows_with(found, [each.texts for each in known])
        if not len(rows):
            return
        more = self.batch(others, group).columns if others else []
        arrays = dict(zip([*sought, *others], [*found, *more], strict=True))
        numbers = [str(number) for number in range(len(columns))]
        batch = pa.RecordBatch.from_arrays([arrays[column] for column in columns], numbers)
        yield batch.take(pa.array(rows, pa.int64())) if len(rows) < FEW * batch.num_rows else batch

    def events(self, group: int) -> pa.RecordBatch:
        """The events of a row group, with the columns EVENT_COLUMNS."""
        rows = self.row_group(group)
        fixed = (pa.array(rows.streams), pa.array(rows.indexes), pa.array(rows.times))
        return batch_of_events(*fixed, payload_texts(rows.payloads))

    def row_group(self, group: int) -> RowGroup:
        """All columns of a row group."""
        table = self._read_group(self._texts, group, self._leaf_paths)
        payloads = cast("pa.StructArray", _in_one(table.column(PAYLOAD)))
        streams, indexes, times = (values.to_numpy() for values in _extracted(table, list(Fixed)))
        return RowGroup(streams, indexes, times, payloads, self.text_bytes[group])

    @property
    def group_rows(self) -> Int64s:
        """Rows of each row group."""
        return self._groups.rows

    @property
    def text_bytes(self) -> Sequence[int]:
        """What the payloads of each row group take as JSON, about."""
        return self._checksums.text_bytes

    def values_of(self, path: Path) -> int:
        """How many values a leaf or, with REST behind its path, a rest has in all rows."""
        number = self._numbers[(PAYLOAD, *path)]
        footer = self._footer
        chunks: list[Any] = [footer.row_group(group).column(number) for group in range(footer.num_row_groups)]
        return sum(chunk.num_values - (chunk.statistics.null_count if chunk.statistics else 0) for chunk in chunks)

    @property
    def held_bytes(self) -> int:
        """Roughly the memory that the open block takes."""
        columns, groups = len(self._leaf_paths), len(self._groups.rows)
        return _READER_BYTES + columns * (_COLUMN_BYTES + groups * _CHUNK_BYTES)

    def rest(self) -> None:
        """Close its file, which is opened again when it is read."""
        self._by_number = self._plain = None
        self._file.rest()

    def close(self) -> None:
        self.rest()
        self._file.close()

    def _leaf_of(self, column: Column) -> Path:
        """What of the file has to be read for a column."""
        if isinstance(column, Fixed):
            return self._leaf_paths[_FIXED[column]]
        if isinstance(column, Leaf):
            return (PAYLOAD, *column.path)
        path = (PAYLOAD, *column.path)
        if isinstance(column, Rest) or (*path, REST) in self._numbers:
            return (*path, REST)
        return next(leaf for leaf in self._leaf_paths if leaf[: len(path)] == path)

    def _type_of(self, column: Column) -> pa.DataType:
        if isinstance(column, Fixed):
            return pa.int64()
        if isinstance(column, Present):
            return pa.bool_()
        found = _type_at(self._numbered_type, (*column.path, REST) if isinstance(column, Rest) else column.path)
        assert found is not None, "a column of another block"
        return found

    def _without_empty_rests(self, node: Node, path: Path) -> Node:
        children = {name: self._without_empty_rests(child, (*path, name)) for name, child in node.children.items()}
        return Node(node.leaves, children, rest=node.rest and self.values_of((*path, REST)) > 0)

    @cached_property
    def _dictionaries(self) -> list[str]:
        """Columns of texts that are in a dictionary in every row group, by their names in the file."""
        footer = self._footer
        counts = Counter(map(".".join, self._leaf_paths))  # names with dots may make one of two
        return [
            ".".join(path)
            for path, number in self._numbers.items()
            if _type_at(self._payload_type, path[1:]) == pa.string()
            and counts[".".join(path)] == 1
            and _in_dictionaries(footer, number)
        ]

    def _texts(self) -> pq.ParquetFile:
        if self._plain is None:
            self._plain = pq.ParquetFile(self._file.opened(), metadata=self._footer)
        return self._plain

    def _texts_by_number(self) -> pq.ParquetFile:
        if self._by_number is None:
            opened = self._file.opened()
            self._by_number = pq.ParquetFile(opened, metadata=self._footer, read_dictionary=self._dictionaries)
        return self._by_number

    def _read_group(self, parquet: Callable[[], pq.ParquetFile], group: int, leaves: Sequence[Path]) -> pa.Table:
        with reading(self._path):
            hit("fs.read")
            for leaf in set(leaves):
                self._verify(group, self._numbers[leaf])
            table = parquet().read_row_group(group, columns=[".".join(leaf) for leaf in leaves], use_threads=False)
            if table.num_rows != self._groups.rows[group]:
                raise ValueError(f"row group {group} has {table.num_rows} rows, not {self._groups.rows[group]}")
            return table

    def _verify(self, group: int, column: int) -> None:
        start, stop = chunk_range(self._footer.row_group(group).column(column))
        if zlib.crc32(self._file.read(start, stop)) != self._checksums.columns[group][column]:
            raise ValueError(f"column {'.'.join(self._leaf_paths[column])} of row group {group} is damaged")


class _Groups:
    """What the footer says about row groups."""

    def __init__(self, footer: pq.FileMetaData) -> None:
        groups: list[Any] = [footer.row_group(group) for group in range(footer.num_row_groups)]
        streams = [group.column(0).statistics for group in groups]
        times = [group.column(2).statistics for group in groups]
        self.rows = np.array([group.num_rows for group in groups], np.int64)
        self._first_stream = np.array([found.min_raw for found in streams], np.int64)
        self._last_stream = np.array([found.max_raw for found in streams], np.int64)
        self._first_time = np.array([found.min_raw for found in times], np.int64)
        self._last_time = np.array([found.max_raw for found in times], np.int64)

    def chosen(self, wanted: EventRange) -> list[int]:
        found = (
            (self._first_stream <= wanted.last_stream)
            & (self._last_stream >= wanted.first_stream)
            & (self._first_time <= wanted.last_received)
            & (self._last_time >= wanted.first_received)
        )
        return np.flatnonzero(found).tolist()


def _read_checksums(directory: pathlib.Path) -> Checksums:
    path = names.checksums_file(directory)
    with reading(path):
        hit("fs.read")
        return decode_checksums(path.read_bytes())


def _leaf_paths(type_: pa.StructType) -> Iterator[Path]:
    """Of all columns below a struct, in the order in which Parquet stores them."""
    for column in type_:
        if isinstance(column.type, pa.StructType):
            for path in _leaf_paths(column.type):
                yield (column.name, *path)
        else:
            yield (column.name,)


def _type_at(type_: pa.DataType, path: Path) -> pa.DataType | None:
    for name in path:
        if not isinstance(type_, pa.StructType):
            return None
        type_ = type_.field(name).type
    return type_


def _in_dictionaries(footer: pq.FileMetaData, column: int) -> bool:
    groups = [footer.row_group(group).column(column) for group in range(footer.num_row_groups)]
    return all(chunk.has_dictionary_page for chunk in groups)


def _extracted(table: pa.Table, columns: Sequence[Column]) -> list[pa.Array[Any]]:
    """Columns out of what was read for all of them."""
    payloads = _in_one(table.column(PAYLOAD)) if PAYLOAD in table.column_names else None
    return [
        _in_one(table.column(column.value)).view(pa.int64())
        if isinstance(column, Fixed)
        else _of_payloads(payloads, column)
        for column in columns
    ]


def _of_payloads(values: Any, column: Leaf | Present | Rest) -> pa.Array[Any]:
    for name in (*column.path, REST) if isinstance(column, Rest) else column.path:
        values = pc.struct_field(values, values.type.get_field_index(name))
    return cast("pa.Array[Any]", values.is_valid() if isinstance(column, Present) else values)


def _in_one(column: Any) -> Any:
    """Of its chunks, which would be copied, there is nearly always one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
