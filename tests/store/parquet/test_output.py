"""pyarrow, Polars and DuckDB read from a file exactly what was written, whatever it is and however it is encoded."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.store.parquet.encodings import PageEncoding
from streamgauge.store.parquet.output import ColumnEncoding, FlatOutput
from streamgauge.testing.thorough import examples

TIME = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("id", pa.uint32(), nullable=False),
        pa.field("time", TIME, nullable=False),
        pa.field("number", pa.float64()),
        pa.field("integer", pa.int64()),
        pa.field("small", pa.uint8(), nullable=False),
    ]
)
PLAIN, SPLIT, DELTA = PageEncoding.PLAIN, PageEncoding.BYTE_STREAM_SPLIT, PageEncoding.DELTA_BINARY_PACKED
NAN, STALE = 0x7FF8000000000000, 0x7FF0000000000002


def write(path: Path, groups: Sequence[pa.Table], integers: tuple[PageEncoding, ...]) -> None:
    doubles = tuple(encoding for encoding in integers if encoding != DELTA) or (PLAIN,)
    encodings = {field.name: ColumnEncoding(integers, 1) for field in SCHEMA}
    output = FlatOutput(path, SCHEMA, {**encodings, "number": ColumnEncoding(doubles, 1)})
    try:
        for group in groups:
            output.write_row_group(group)
        output.finish("key", "wörd")
    finally:
        output.close()


def doubles_of(bits: Sequence[int | None]) -> pa.Array[Any]:
    numbers = np.array([bit or 0 for bit in bits], np.int64).view(np.float64)
    return pa.array(numbers, mask=np.array([bit is None for bit in bits], np.bool_))


def table_of(rows: Sequence[tuple[int, int, int | None, int | None, int]]) -> pa.Table:
    ids, times, numbers, integers, smalls = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [
            pa.array(ids, pa.uint32()),
            pa.array(times, pa.int64()).view(TIME),
            doubles_of(numbers),
            pa.array(integers, pa.int64()),
            pa.array(smalls, pa.uint8()),
        ],
        schema=SCHEMA,
    )


def bits_of(table: pa.Table) -> list[list[int | None]]:
    """Every value of a table as an integer, doubles by their bits."""
    columns = []
    for field, column in zip(SCHEMA, table.columns, strict=True):
        values = column.cast(field.type).combine_chunks()
        columns.append((values if pa.types.is_integer(field.type) else values.view(pa.int64())).to_pylist())
    return columns


def assert_read_by_all(path: Path, written: pa.Table) -> None:
    expected = bits_of(written)
    file = pq.ParquetFile(path, page_checksum_verification=True)
    assert file.schema_arrow.equals(SCHEMA)
    assert bits_of(file.read()) == expected
    assert bits_of(polars.read_parquet(path).to_arrow()) == expected
    assert bits_of(duckdb.sql(f"FROM '{path}'").to_arrow_table()) == expected


def around(low: int, high: int) -> st.SearchStrategy[int]:
    """Integers of a range, often its ends, zero and small ones, so that differences overflow and repeat."""
    near = st.sampled_from([low, low + 1, high - 1, high, 0, 1]) | st.integers(max(low, -300), min(high, 300))
    return near | st.integers(low, high)


INT64 = (-(2**63), 2**63 - 1)
TIMES = (-9_000_000_000_000_000, 9_000_000_000_000_000)
"""DuckDB holds microseconds."""
ROWS = st.lists(
    st.tuples(
        around(0, 2**32 - 1),
        around(*TIMES),
        st.none() | around(*INT64) | st.sampled_from([NAN, STALE]),
        st.none() | around(*INT64),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=150,
)


@settings(max_examples=examples(60), deadline=None)
@given(groups=st.lists(ROWS, min_size=1, max_size=3), integers=st.sampled_from([(PLAIN,), (SPLIT,), (DELTA,)]))
def test_any_rows_are_read_by_anyone(
    groups: list[list[tuple[int, int, int | None, int | None, int]]], integers: tuple[PageEncoding, ...]
) -> None:
    tables = [table_of(rows) for rows in groups]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.parquet"
        write(path, tables, integers)
        assert_read_by_all(path, pa.concat_tables(tables))


@pytest.mark.parametrize("integers", [(DELTA,), (DELTA, SPLIT, PLAIN)])
@pytest.mark.parametrize("rows", [64, 65, 128, 129, 65_537, 98_304, 140_000])
def test_pages_of_several_blocks_and_miniblocks_are_read_by_anyone(
    tmp_path: Path, rows: int, integers: tuple[PageEncoding, ...]
) -> None:
    """Also where a whole column is null, or has no difference at all."""
    random = np.random.default_rng(rows)
    wide = random.integers(0, 2**63, rows) >> random.integers(0, 63, rows)
    columns = [
        pa.array(np.repeat(np.arange(rows // 60 + 1, dtype=np.uint32)[::-1] * 3_000_000, 60)[:rows]),
        pa.array(np.arange(rows) % 900 * 1000 + random.integers(0, 2, rows)).view(TIME),
        pa.nulls(rows, pa.float64()),
        pa.array(wide, mask=random.random(rows) < 0.1),
        pa.array(np.zeros(rows, np.uint8)),
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    write(tmp_path / "f.parquet", [table, table.slice(rows // 2)], integers)
    assert_read_by_all(tmp_path / "f.parquet", pa.concat_tables([table, table.slice(rows // 2)]))


def test_each_page_has_the_encoding_that_makes_it_smallest_and_noise_the_quickest(tmp_path: Path) -> None:
    """Also where deltas of noise, here of steps up to 60, would be smaller."""
    random = np.random.default_rng(1)
    columns = [np.arange(5000) // 7, random.integers(0, 8, 5000), np.cumsum(random.integers(0, 60, 5000))]
    groups = [
        table_of([(1, time, None, integer, 0) for time, integer in enumerate(integers.tolist())])
        for integers in columns
    ]
    write(tmp_path / "f.parquet", groups, (DELTA, SPLIT))
    metadata = pq.read_metadata(tmp_path / "f.parquet")
    assert [metadata.row_group(group).column(3).encodings[1] for group in range(3)] == [
        "DELTA_BINARY_PACKED",
        "BYTE_STREAM_SPLIT",
        "BYTE_STREAM_SPLIT",
    ]
    write(tmp_path / "deltas.parquet", groups[2:], (DELTA,))
    split, deltas = metadata.row_group(2), pq.read_metadata(tmp_path / "deltas.parquet").row_group(0)
    assert deltas.column(3).total_compressed_size < split.column(3).total_compressed_size


def test_the_footer_tells_what_is_in_a_column(tmp_path: Path) -> None:
    """Unsigned ids by their own order; of doubles NaN do not count, and a bound that is zero may be either."""
    negative_zero = -(2**63)
    rows = [(2**31, 5, negative_zero, -7, 3), (1, -5, None, 2**40, 3), (7, 0, NAN, None, 3), (2, 1, STALE, 1, 3)]
    write(tmp_path / "f.parquet", [table_of(rows), table_of([(1, 0, NAN, None, 0)])], (DELTA,))
    metadata = pq.read_metadata(tmp_path / "f.parquet")
    first, second = ([metadata.row_group(group).column(i).statistics for i in range(5)] for group in range(2))
    assert [(s.min, s.max) for s in (first[0], first[3], first[4])] == [(1, 2**31), (-7, 2**40), (3, 3)]
    assert [s.null_count for s in first] == [0, 0, 1, 1, 0]
    assert (np.signbit(first[2].min), np.signbit(first[2].max)) == (True, False)
    assert [s.has_min_max for s in second] == [True, True, False, False, True]
    assert second[3].null_count == 1
    assert metadata.metadata == {b"key": "wörd".encode()}
    assert duckdb.sql(f"SELECT integer FROM '{tmp_path}/f.parquet' WHERE id > 2000000000").fetchall() == [(-7,)]
    assert duckdb.sql(f"SELECT id FROM '{tmp_path}/f.parquet' WHERE number = 0").fetchall() == [(2**31,)]
