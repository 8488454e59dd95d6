"""Headers of pages and the footer of a Parquet file of flat columns, each of which is one page a row group.

The source is Apache Parquet's parquet.thrift: the numbers are those of its fields, whose names stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.store.parquet.encodings import PageEncoding
from streamgauge.store.parquet.thrift import Encoded, array, binary, flag, i8, i32, i64, struct, text

MAGIC = b"PAR1"
_VERSION = 2
_ZSTD = 6
_DATA_PAGE = 0
_CREATED_BY = "streamgauge"


@dataclass(frozen=True, slots=True)
class PhysicalType:
    """How Parquet stores an Arrow type."""

    number: int  # of the type
    dtype: np.dtype[Any]
    converted: int | None = None  # what old readers know in the place of `logical`
    logical: Encoded | None = None


def physical_type(type_: pa.DataType) -> PhysicalType:
    """Raises KeyError for a type that is not among these."""
    utc_milliseconds = struct({8: struct({1: flag(True), 2: struct({1: struct({})})})})  # TIMESTAMP: adjusted, unit
    return {
        pa.uint8(): PhysicalType(1, np.dtype(np.int32), 11, _unsigned(8)),
        pa.uint32(): PhysicalType(1, np.dtype(np.int32), 13, _unsigned(32)),
        pa.int64(): PhysicalType(2, np.dtype(np.int64)),
        pa.timestamp("ms", tz="UTC"): PhysicalType(2, np.dtype(np.int64), 9, utc_milliseconds),
        pa.float64(): PhysicalType(5, np.dtype(np.float64)),
    }[type_]


def _unsigned(bits: int) -> Encoded:
    return struct({10: struct({1: i8(bits), 2: flag(False)})})  # INTEGER: bit width, signed


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column of a row group, as the footer tells of it."""

    name: str
    type: PhysicalType
    encoding: PageEncoding
    offset: int  # of its page's header in the file
    size: int  # in the file, bytes, with the header
    uncompressed: int  # bytes, with the header
    rows: int
    nulls: int
    bounds: tuple[bytes, bytes] | None  # the least and the largest value, as PLAIN has them


def bounds(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> tuple[bytes, bytes] | None:
    """The least and the largest value, stored as `dtype`. None where there is none but NaN, which do not count."""
    if values.dtype.kind == "f":
        values = values[~np.isnan(values)]
    if len(values) == 0:
        return None
    ends = np.array([values.min(), values.max()])
    if values.dtype.kind == "f":
        ends = np.where(ends == 0, [-0.0, 0.0], ends)  # as the standard wants it: -0 and 0 are equal, but may be either
    least, largest = ends.astype(dtype)
    return least.tobytes(), largest.tobytes()


def page_header(encoding: PageEncoding, rows: int, uncompressed: int, compressed: int, checksum: int) -> bytes:
    """Sizes in bytes, without the header. `checksum` is the CRC-32 of what follows it."""
    data_page = {1: i32(rows), 2: i32(encoding), 3: i32(PageEncoding.RLE), 4: i32(PageEncoding.RLE)}
    signed = checksum - (checksum >> 31 << 32)
    header = {1: i32(_DATA_PAGE), 2: i32(uncompressed), 3: i32(compressed), 4: i32(signed), 5: struct(data_page)}
    return struct(header).content


def footer(schema: pa.Schema, row_groups: Sequence[Sequence[Chunk]], metadata: Mapping[str, str]) -> bytes:
    """All that stands behind the last row group of a file."""
    entries = [struct({1: text(key), 2: text(value)}) for key, value in metadata.items()]
    content = struct(
        {
            1: i32(_VERSION),
            2: array([struct({4: text("schema"), 5: i32(len(schema))}), *map(_element, schema)]),
            3: i64(sum(chunks[0].rows for chunks in row_groups)),
            4: array([_row_group(chunks) for chunks in row_groups]),
            5: array(entries) if entries else None,
            6: text(_CREATED_BY),
            7: array([struct({1: struct({})})] * len(schema)),  # column_orders: that of each type
        }
    ).content
    return content + len(content).to_bytes(4, "little") + MAGIC


def _element(field: pa.Field[Any]) -> Encoded:
    physical = physical_type(field.type)
    return struct(
        {
            1: i32(physical.number),
            3: i32(int(field.nullable)),  # repetition_type: required or optional
            4: text(field.name),
            6: None if physical.converted is None else i32(physical.converted),
            10: physical.logical,
        }
    )


def _row_group(chunks: Sequence[Chunk]) -> Encoded:
    return struct(
        {
            1: array([_column_chunk(chunk) for chunk in chunks]),
            2: i64(sum(chunk.uncompressed for chunk in chunks)),
            3: i64(chunks[0].rows),
            5: i64(chunks[0].offset),
            6: i64(sum(chunk.size for chunk in chunks)),
        }
    )


def _column_chunk(chunk: Chunk) -> Encoded:
    least, largest = chunk.bounds or (None, None)
    statistics = {
        3: i64(chunk.nulls),
        5: None if largest is None else binary(largest),
        6: None if least is None else binary(least),
    }
    metadata = {
        1: i32(chunk.type.number),
        2: array([i32(PageEncoding.RLE), i32(chunk.encoding)]),
        3: array([text(chunk.name)]),  # path_in_schema
        4: i32(_ZSTD),
        5: i64(chunk.rows),
        6: i64(chunk.uncompressed),
        7: i64(chunk.size),
        9: i64(chunk.offset),
        12: struct(statistics),
    }
    return struct({2: i64(0), 3: struct(metadata)})  # file_offset, which is of no use and is to be 0
