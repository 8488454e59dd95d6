"""A Parquet file of integers and doubles that is being written: each page in the encoding that makes it smallest."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from streamgauge.store.checksummed_file import ChecksummedFile
from streamgauge.store.parquet.encodings import ENCODERS, Numbers, PageEncoding, definition_levels
from streamgauge.store.parquet.metadata import MAGIC, Chunk, PhysicalType, bounds, footer, page_header, physical_type

_TRIAL_LEVEL = 3
"""Of zstd, at which encodings are compared: it takes no time, and ranks them nearly as high levels do."""
_NOISE = 0.7
_NOISE_LEVEL = 15
"""Bytes a value. A page that a trial leaves with more has little that repeats. As differences zstd then finds short
matches, up to 5 % fewer bytes that take four times as long to read; and above the level it saves 3 %, at 3 times the
time."""


@dataclass(frozen=True, slots=True)
class ColumnEncoding:
    """How a column is written."""

    trials: tuple[PageEncoding, ...]  # each page takes the one that makes it smallest
    level: int  # of zstd


class FlatOutput:
    """A new Parquet file. Not synced. Always `close` it; unless `finish` came before, the file is then of no use.

    A column of a row group is one page. Raises StorageError when the disk fails. `schema` has types that
    `physical_type` knows, `encodings` an entry for each column.
    """

    def __init__(self, path: Path, schema: pa.Schema, encodings: Mapping[str, ColumnEncoding]) -> None:
        self._file = ChecksummedFile(path)
        self._schema = schema
        self._columns = [(field, physical_type(field.type), encodings[field.name]) for field in schema]
        self._row_groups: list[list[Chunk]] = []
        self._file.write(MAGIC)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.size

    def write_row_group(self, table: pa.Table) -> None:
        """At least one row."""
        columns = zip(self._columns, table.columns, strict=True)
        self._row_groups.append([self._write_chunk(*how, column.combine_chunks()) for how, column in columns])

    def take_checksum(self) -> int:
        """CRC-32 of what was written since the last call."""
        return self._file.take_checksum()

    def finish(self, key: str, value: str) -> None:
        """Write the footer, with one entry of key-value metadata."""
        self._file.write(footer(self._schema, self._row_groups, {key: value}))

    def close(self) -> None:
        self._file.close()

    def _write_chunk(
        self, field: pa.Field[Any], type_: PhysicalType, encoding: ColumnEncoding, column: pa.Array[Any]
    ) -> Chunk:
        values = _present(column)
        levels = definition_levels(column.is_valid().to_numpy(zero_copy_only=False)) if field.nullable else b""
        page = _smallest(levels, values.astype(type_.dtype, copy=False), encoding)
        checksum = zlib.crc32(page.compressed)
        header = page_header(page.encoding, len(column), len(page.content), len(page.compressed), checksum)
        chunk = Chunk(
            name=field.name,
            type=type_,
            encoding=page.encoding,
            offset=self._file.size,
            size=len(header) + len(page.compressed),
            uncompressed=len(header) + len(page.content),
            rows=len(column),
            nulls=column.null_count,
            bounds=bounds(values, type_.dtype),
        )
        self._file.write(header + page.compressed)
        return chunk


@dataclass(frozen=True, slots=True)
class _Page:
    encoding: PageEncoding
    content: bytes
    compressed: bytes


def _smallest(levels: bytes, values: Numbers, encoding: ColumnEncoding) -> _Page:
    pages = [_compress(trial, levels + ENCODERS[trial](values), _TRIAL_LEVEL) for trial in encoding.trials]
    best, level = min(pages, key=_size), encoding.level
    if _size(best) > _NOISE * len(values):
        others = [page for page in pages if page.encoding != PageEncoding.DELTA_BINARY_PACKED]
        best, level = min(others or pages, key=_size), min(level, _NOISE_LEVEL)
    return best if level == _TRIAL_LEVEL else _compress(best.encoding, best.content, level)


def _size(page: _Page) -> int:
    return len(page.compressed)


def _compress(encoding: PageEncoding, content: bytes, level: int) -> _Page:
    codec = pa.Codec("zstd", compression_level=level)
    return _Page(encoding, content, codec.compress(content, asbytes=True))


def _present(column: pa.Array[Any]) -> npt.NDArray[Any]:
    """The values of a column that are not null, times as int64."""
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    return column.drop_null().to_numpy()
