"""Rows go out in each format as what they are."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamgauge.errors import QueryFailed
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.requests import SqlFormat, SqlQuery
from streamgauge.query.sql.run import run_sql
from streamgauge.testing import MemorySource

QUERY = """
    SELECT 1 AS a, 'é"' AS "b,c", NULL AS a, 1.5::DOUBLE AS d, 'nan'::DOUBLE AS e, true AS f, [1, 2] AS g,
    {'x': 1} AS h, map {'k': 'v'} AS i, '{"j": [1]}'::JSON AS j, TIMESTAMPTZ '2026-01-02 03:04:05.67+01' AS k,
    10.50::DECIMAL(10, 2) AS l, TIMESTAMPTZ '2026-01-02 03:04:00Z' AS m, 9007199254740993 AS n
"""


def pieces(query: str, form: SqlFormat) -> Iterator[bytes]:
    return run_sql(SqlQuery(query, form), MemorySource.of([]), Budget(Limits()), {})


def whole(query: str, form: SqlFormat) -> bytes:
    return b"".join(pieces(query, form))


def test_json_has_columns_and_rows() -> None:
    data = json.loads(whole(QUERY, SqlFormat.JSON))["data"]
    assert [column["name"] for column in data["columns"]][:4] == ["a", "b,c", "a", "d"]
    assert data["columns"][10] == {"name": "k", "type": "TIMESTAMP WITH TIME ZONE"}
    assert data["rows"] == [
        [
            1,
            'é"',
            None,
            1.5,
            "nan",
            True,
            [1, 2],
            {"x": 1},
            {"k": "v"},
            {"j": [1]},
            "2026-01-02T02:04:05.67Z",
            10.5,
            "2026-01-02T03:04:00Z",
            9007199254740993,
        ]
    ]


def test_no_rows_are_no_rows() -> None:
    assert json.loads(whole("SELECT 1 AS a WHERE false", SqlFormat.JSON))["data"] == {
        "columns": [{"name": "a", "type": "INTEGER"}],
        "rows": [],
    }
    assert whole("SELECT 1 AS a WHERE false", SqlFormat.NDJSON) == b""
    assert whole("SELECT 1 AS a WHERE false", SqlFormat.CSV) == b"a\n"
    assert pq.read_table(io.BytesIO(whole("SELECT 1 AS a WHERE false", SqlFormat.PARQUET))).num_rows == 0


def test_lines_of_json_are_objects() -> None:
    first, second = whole("SELECT range AS n, 'é' AS t FROM range(2)", SqlFormat.NDJSON).splitlines()
    assert (json.loads(first), json.loads(second)) == ({"n": 0, "t": "é"}, {"n": 1, "t": "é"})


def test_csv_quotes_what_needs_it() -> None:
    heading, row = whole(QUERY, SqlFormat.CSV).decode().splitlines()
    assert heading == 'a,"b,c",a,d,e,f,g,h,i,j,k,l,m,n'
    assert row.startswith('1,"é""",,1.5,nan,"true","[1,2]","{""x"":1}","{""k"":""v""}","{""j"": [1]}",')
    assert row.endswith('"2026-01-02T02:04:05.67Z",10.50,"2026-01-02T03:04:00Z",9007199254740993')


@pytest.mark.parametrize("form", [SqlFormat.ARROW, SqlFormat.PARQUET])
def test_arrow_and_parquet_have_types(form: SqlFormat) -> None:
    body = whole("SELECT range AS n, now() AS t, range::VARCHAR AS s, [range] AS l FROM range(100000)", form)
    table = pa.ipc.open_stream(body).read_all() if form is SqlFormat.ARROW else pq.read_table(io.BytesIO(body))
    assert table.num_rows == 100_000
    assert table["n"][99_999].as_py() == 99_999
    assert table.schema.field("s").type == pa.string()
    assert table.schema.field("t").type.unit == "us"
    assert table["l"][7].as_py() == [7]


@pytest.mark.parametrize("form", list(SqlFormat))
def test_an_answer_comes_in_pieces(form: SqlFormat) -> None:
    """A large one is never in memory as a whole."""
    sizes = [len(piece) for piece in pieces("SELECT range AS n, repeat('x', 100) AS t FROM range(500000)", form)]
    assert sum(size > 0 for size in sizes) > 3
    assert max(sizes) < (1 << 20) * (16 if form is SqlFormat.PARQUET else 4)


@pytest.mark.parametrize("form", list(SqlFormat))
def test_an_error_comes_before_the_first_byte_where_it_can(form: SqlFormat) -> None:
    with pytest.raises(QueryFailed, match="Could not convert string 'abc'"):
        next(pieces("SELECT 'abc'::INT FROM range(3)", form))
