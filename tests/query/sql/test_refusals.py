"""What is no query, or none that may be answered, is refused with a sentence that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamgauge.errors import BadInput, TooLarge
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.run import run_sql
from streamgauge.testing import MemoryEvents, MemorySource

KEPT: dict[str, object] = {}
STORE = MemorySource.of([], MemoryEvents.of([{"a": 1}]))


def answer(query: str) -> list[list[object]]:
    rows: list[list[object]] = json.loads(b"".join(run_sql(SqlQuery(query), STORE, Budget(Limits()), KEPT)))["data"][
        "rows"
    ]
    return rows


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("COPY events TO 'out.csv'", "COPY"),
        ("COPY (SELECT 1) TO 'out.csv'", "COPY"),
        ("WITH a AS (COPY (SELECT 1) TO 'out.csv') SELECT 1", "COPY"),
        ("SELECT * FROM (WITH a AS (COPY (SELECT 1) TO 'out.csv') SELECT 1)", "COPY"),
        ("SELECT (WITH a AS (COPY (SELECT 1) TO 'out.csv') SELECT 1)", "COPY"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'", "EXPLAIN"),
        ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN"),
        ("-- first\nATTACH 'other.db'", "ATTACH"),
        ("ATTACH ':memory:' AS other", "ATTACH"),
        ("DETACH memory", "DETACH"),
        ("SET memory_limit = '100GB'", "SET"),
        ("RESET memory_limit", "RESET"),
        ("PRAGMA version", "PRAGMA"),
        ("CALL pragma_version()", "CALL"),
        ("INSTALL httpfs", "INSTALL"),
        ("LOAD httpfs", "LOAD"),
        ("INSERT INTO events VALUES (1)", "INSERT"),
        ("WITH a AS (INSERT INTO events VALUES (1) RETURNING *) SELECT * FROM a", "INSERT"),
        ("UPDATE events SET a = 1", "UPDATE"),
        ("DELETE FROM events", "DELETE"),
        ("WITH a AS (DELETE FROM events RETURNING *) SELECT * FROM a", "DELETE"),
        ("CREATE TABLE a (b INT)", "CREATE"),
        ("CREATE VIEW a AS SELECT 1", "CREATE"),
        ("CREATE MACRO a() AS 1", "CREATE"),
        ("DROP VIEW events", "DROP"),
        ("EXPORT DATABASE 'there'", "EXPORT"),
        ("IMPORT DATABASE 'there'", "IMPORT"),
        ("CHECKPOINT", "CHECKPOINT"),
        ("BEGIN TRANSACTION", "BEGIN"),
        ("USE memory", "USE"),
        ("SHOW TABLES", "SHOW"),
        ("SHOW ALL TABLES", "SHOW"),
    ],
)
def test_only_a_select_is_answered(query: str, named: str) -> None:
    with pytest.raises(BadInput, match=f"^{named} is not answered here"):
        answer(query)


@pytest.mark.parametrize(
    "function",
    [
        "read_csv('/etc/passwd')",
        "read_csv_auto('/etc/passwd')",
        "read_json('/etc/passwd')",
        "read_ndjson_objects('/etc/passwd')",
        "read_text('/etc/passwd')",
        "read_blob('/etc/passwd')",
        "read_parquet('block.parquet')",
        "parquet_scan('block.parquet')",
        "parquet_metadata('block.parquet')",
        "sniff_csv('/etc/passwd')",
        "glob('*')",
        "query('SELECT 1')",
        "query_table('events')",
        "json_execute_serialized_sql('{}')",
        "duckdb_settings()",
        "duckdb_views()",
        "duckdb_secrets()",
        "pragma_table_info('events')",
        "arrow_scan(1, 2, 3)",
        "python_map_function(1)",
        "histogram('events', 'a')",
    ],
)
def test_table_functions_that_look_elsewhere_are_refused(function: str) -> None:
    name = function.partition("(")[0]
    for query in (f"SELECT * FROM {function}", f"SELECT (SELECT count(*) FROM {function})"):
        with pytest.raises(BadInput, match=f"^the table function {name} is not answered here"):
            answer(query)


@pytest.mark.parametrize(
    "call",
    [
        "getenv('HOME')",
        "current_setting('memory_limit')",
        "getvariable('a')",
        "json_serialize_sql('SELECT 1')",
        "pg_typeof(1)",
        "write_log('a')",
        "nextval('a')",
        "current_query()",
    ],
)
def test_functions_that_look_at_the_database_are_refused(call: str) -> None:
    with pytest.raises(BadInput, match=f"^the function {call.partition('(')[0]} looks at the database"):
        answer(f"SELECT {call}")


@pytest.mark.parametrize(
    "table",
    [
        "'/etc/passwd'",
        "'block.parquet'",
        "information_schema.tables",
        "duckdb_settings",
        "pg_catalog.pg_class",
        "pg_class",
        "sqlite_master",
        "STORE",
        "main.events",
        "system.events",
        "_events_0",
    ],
)
def test_only_our_views_are_tables(table: str) -> None:
    with pytest.raises(BadInput, match=r"^there is no table .*; the views are events, "):
        answer(f"SELECT * FROM {table}")


def test_one_request_holds_one_statement() -> None:
    assert answer("SELECT 1;") == [[1]]
    with pytest.raises(BadInput, match="holds 2 statements"):
        answer("SELECT 1; SELECT 2")
    for nothing in ("", " ; ", "-- nothing"):
        with pytest.raises(BadInput, match="holds no statement"):
            answer(nothing)


def test_a_statement_behind_a_select_is_not_reached() -> None:
    with pytest.raises(BadInput):
        answer("SELECT 1; COPY (SELECT 1) TO 'out.csv'")
    assert not Path("out.csv").exists()


def test_an_error_of_syntax_says_where() -> None:
    with pytest.raises(BadInput, match=r'syntax error at or near "FROM" \(at character 18\)'):
        answer("SELECT 'é', FROM FROM")


def test_what_cannot_be_had_here_is_not_proposed() -> None:
    with pytest.raises(BadInput, match=r"in the spatial extension\.$"):
        answer("SELECT ST_Point(1, 2)")
    with pytest.raises(BadInput, match=r"^this SELECT has a part that is not answered here: a PIVOT"):
        answer("SELECT * FROM (PIVOT events ON kind USING count(*))")
    assert answer("SELECT * FROM (PIVOT events ON kind IN ('x') USING count(*) GROUP BY stream_id)") == [[1, 0]]


def test_a_query_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(BadInput, match="nested too deeply"):
        answer("SELECT * FROM (" * 2000 + "events" + ")" * 2000)


def test_a_query_that_is_too_long_is_refused() -> None:
    with pytest.raises(TooLarge, match="131072 bytes"):
        answer("SELECT '" + "x" * (128 << 10) + "'")


def test_what_a_query_cannot_be_made_of() -> None:
    with pytest.raises(BadInput, match="zero byte"):
        answer("SELECT '\0'")
    with pytest.raises(BadInput, match="not UTF-8"):
        answer("SELECT '\ud800'")


def test_nothing_of_a_query_is_left_for_the_next() -> None:
    assert answer("SELECT count(*) FROM events") == [[1]]
    with pytest.raises(BadInput):
        answer("SELECT * FROM _events_0")
    with pytest.raises(BadInput):
        answer("SELECT * FROM _events_0_0")
