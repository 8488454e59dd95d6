"""Paths into payloads, whatever types the values have and wherever a part keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import BadInput, StreamgaugeError
from streamgauge.model.event_source import Column, EventRange, Fixed, Leaf, LeafType, Node, Rest
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.run import run_sql
from streamgauge.testing import MemoryEvents, MemorySource
from streamgauge.testing.events import divided_part, raw_part

from .conftest import DIVIDED, PAYLOADS


def store(*payloads: object) -> MemorySource:
    return MemorySource.of([], MemoryEvents.of(payloads))


def test_a_payload_is_put_together_as_it_was(rows):
    assert [payload for (payload,) in rows("SELECT payload FROM events")] == [*PAYLOADS, *DIVIDED]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # comparisons with constants need no cast, and see values of that kind only
        ("SELECT count(*) FROM events WHERE payload.http.status >= 500", [[2]]),
        ("SELECT count(*) FROM events WHERE 500 <= payload.http.status", [[2]]),
        ("SELECT payload.k FROM events WHERE payload.k = 'x'", [["x"]]),
        ("SELECT payload.k FROM events WHERE payload.k = 5", [["5"]]),
        ("SELECT payload.level FROM events WHERE payload.level = 7", [["7"]]),
        ("SELECT payload.http FROM events WHERE payload.http = 'gone'", [["gone"]]),
        ("SELECT count(*) FROM events WHERE payload.ms BETWEEN 1.5 AND 3.5", [[3]]),
        ("SELECT count(*) FROM events WHERE payload.k IN ('x', 'y')", [[2]]),
        ("SELECT count(*) FROM events WHERE payload.k IN ('x', 5)", [[2]]),
        ("SELECT count(*) FROM events WHERE payload.http.status IN (200, 503)", [[2]]),
        ("SELECT count(*) FROM events WHERE payload.ok", [[1]]),
        ("SELECT count(*) FROM events WHERE payload.ok = true", [[1]]),
        ("SELECT count(*) FROM events WHERE payload.level LIKE 'E%'", [[2]]),
        ("SELECT count(*) FROM events WHERE lower(payload.level) = 'warn'", [[1]]),
        # what nobody sent
        ("SELECT DISTINCT payload.nobody, payload.no.body, payload.level.x FROM events", [[None, None, None]]),
        ("SELECT count(*) FROM events WHERE payload.nobody = 1", [[0]]),
        # the arrow binds as people mean it, and compares by value
        ("SELECT count(*) FROM events WHERE payload->'type' <> 'metric'", [[4]]),
        ("SELECT count(*) FROM events WHERE payload->'type' <> 'metric' AND payload->'level' = 'ERROR'", [[2]]),
        ("SELECT count(*) FROM events WHERE payload->'http'->'status' = 503 OR payload->>'k' = 'x'", [[2]]),
        ("SELECT payload->>'$.http.path' FROM events WHERE payload->>'/http/path' = '/z'", [["/z"]]),
        ("SELECT payload->'tags'->0, payload->'tags'->>1 FROM events LIMIT 1", [["a", "b"]]),
        ("SELECT payload['http']['status'] FROM events WHERE payload['k'] = 'y'", [[503]]),
        # groups
        (
            "SELECT payload.level, count(*) FROM events GROUP BY 1 ORDER BY 1 NULLS LAST",
            [["7", 1], ["ERROR", 2], ["INFO", 1], ["WARN", 1], [None, 4]],
        ),
        (
            "SELECT payload.level FROM events GROUP BY payload.level HAVING payload.level > 'J' ORDER BY payload.level",
            [["WARN"]],
        ),
        (
            "SELECT payload.http.status, count(*) FILTER (WHERE payload.ms > 3) FROM events GROUP BY ALL ORDER BY ALL",
            [[200, 0], [500, 0], [503, 1], [None, 1]],
        ),
        ("SELECT sum(payload.http.status), avg(payload.ms), count(payload.k) FROM events", [[1203, 2.75, 4]]),
        ("SELECT payload.ms + 1, -payload.ms FROM events LIMIT 1", [[2.5, -1.5]]),
        ("SELECT coalesce(payload.ms, 0), coalesce(payload.level, '?') FROM events LIMIT 3 OFFSET 2", [[0, "?"]] * 3),
        ("SELECT payload.ms::INT, payload.k::VARCHAR FROM events LIMIT 2", [[2, "x"], [2, "5"]]),
        # other names
        ("SELECT e.payload.k FROM events e WHERE e.payload.ms = 3.5", [["y"]]),
        ("SELECT p.http.path FROM (SELECT payload p FROM events) WHERE p.http.status = 503", [["/z"]]),
        ("SELECT h.status FROM (SELECT payload.http AS h FROM events) AS t WHERE t.h.path = '/z'", [[503]]),
        ("SELECT s FROM (SELECT payload.http.status AS s FROM events) WHERE s > 500", [[503]]),
        ("WITH a AS (SELECT * FROM events), b AS (SELECT * FROM a) SELECT payload.k FROM b WHERE payload.ms > 3", None),
        ("WITH events AS (SELECT * FROM events WHERE payload.ms > 3) SELECT count(*) FROM events", [[2]]),
        (
            "SELECT a.payload.ms, b.payload.k FROM events a JOIN events b USING (stream_id, stream_event_index)"
            " WHERE a.payload.ms = 3.5",
            [[3.5, "y"]],
        ),
        ("SELECT max(payload.ms) FROM (SELECT DISTINCT payload FROM events) WHERE payload.ms < 3", None),
        ("SELECT payload.k FROM (SELECT payload FROM events UNION ALL FROM events SELECT payload) LIMIT 1", [["x"]]),
        (
            "SELECT (SELECT max(b.payload.ms) FROM events b WHERE b.stream_id = a.stream_id) FROM events a LIMIT 1",
            [[2.0]],
        ),
        (
            "SELECT list_filter(from_json(payload.tags, '[\"VARCHAR\"]'), lambda t: t > 'a') FROM events LIMIT 1",
            [[["b"]]],
        ),
        ("SELECT t.value FROM events, json_each(payload.tags) t ORDER BY 1", [["a"], ["b"]]),
    ],
)
def test_paths(rows, query: str, expected: list[list[Any]] | None):
    if expected is not None:
        assert rows(query) == expected
    else:
        assert len(rows(query)) > 0


def test_a_column_is_called_as_it_was_written(answer):
    columns = answer(
        "SELECT payload.http.status, e.payload->>'k', avg(payload.ms) OVER (), payload.k AS x FROM events e"
    )
    assert [column["name"] for column in columns["columns"]] == [
        "status",
        "e.payload->>'k'",
        "avg(payload.ms) OVER ()",
        "x",
    ]


def test_a_path_has_the_one_type_that_its_values_have(answer):
    types = {
        column["name"]: column["type"]
        for column in answer(
            "SELECT payload.ms, payload.http.status, payload.k, payload.tags, payload.level, payload.no FROM events"
        )["columns"]
    }
    assert types == {
        "ms": "DOUBLE",
        "status": "BIGINT",
        "k": "VARCHAR",
        "tags": "JSON",
        "level": "VARCHAR",
        "no": "VARCHAR",
    }


def test_numbers_that_are_large_keep_their_digits(rows):
    source = store({"n": 9_007_199_254_740_993}, {"n": 18_446_744_073_709_551_615})
    assert rows("SELECT payload.n FROM events", source=source) == [[9007199254740993], [18446744073709551615]]


def test_hidden_columns_are_seen_by_nobody(answer):
    shown = answer(
        "SELECT * FROM (SELECT * FROM events WHERE payload.ms = 2) AS e WHERE e.payload.k = 5 ORDER BY e.payload.ms"
    )
    assert [column["name"] for column in shown["columns"]] == [
        "stream_id",
        "stream_event_index",
        "insert_datetime",
        "time",
        "kind",
        "severity",
        "trace_id",
        "span_id",
        "parent_span_id",
        "name",
        "duration_ns",
        "payload",
    ]
    [row] = shown["rows"]
    assert row[-1] == PAYLOADS[1]
    assert answer("SELECT COLUMNS('.*_id') FROM events WHERE payload.ms = 2")["rows"] == [[1, None, None, None]]


def test_names_are_those_of_json(rows):
    """Upper and lower case are different in JSON, and a name may be anything."""
    odd = 'a "b" \\ .c\'é'
    source = store({"Level": 1, "level": 2, odd: {"": 3, "0": 4}})
    quoted = odd.replace('"', '""')
    assert rows(f'SELECT payload.Level, payload.level, payload."{quoted}"."0" FROM events', source=source) == [
        [1, 2, 4]
    ]
    assert rows("SELECT payload->>? FROM events", odd, source=source) == [['{"":3,"0":4}']]


def test_only_the_columns_that_are_needed_are_read(rows):
    node = Node({"level": LeafType.TEXT, "n": LeafType.INT}, mixed=())
    part = divided_part(
        node, {Leaf(("level",)): pa.array(["E", "I"]), Leaf(("n",)): pa.array([1, 2]), Rest(()): pa.array(["{}", "{}"])}
    )
    source = MemorySource.of([], MemoryEvents([part]))
    assert rows("SELECT count(*) FROM events WHERE payload.level = 'E'", source=source) == [[1]]
    assert set(part.read_columns) == {Leaf(("level",))}
    part.read_columns.clear()
    assert rows("SELECT count(*) FROM events", source=source) == [[2]]
    assert set(part.read_columns) == {Fixed.INDEX}


def test_times_and_streams_in_where_narrow_what_is_read(rows):
    """Also through expressions, parameters and BETWEEN."""
    first, second = raw_part(["1"] * 10, stream=1), raw_part(["2"] * 10, received=1_000_000_000_000, stream=2)
    source = MemorySource.of([], MemoryEvents([first, second]))
    for where, parameters in (
        ("insert_datetime >= TIMESTAMPTZ '1970-01-01 00:16:40Z'", ()),
        ("insert_datetime >= ?::TIMESTAMPTZ - INTERVAL '1 hour'", ("1970-01-01 01:16:40Z",)),
        ("stream_id BETWEEN 2 AND 3", ()),
        ("2 = stream_id", ()),
        ("1 < stream_id AND payload = '2'", ()),
        ("stream_id IN (2, 7)", ()),
    ):
        first.read_rows.clear()
        assert rows(f"SELECT count(*), max(payload::INT) FROM events WHERE {where}", *parameters, source=source) == [
            [10, 2]
        ]
        assert sum(first.read_rows) == 0, where


@pytest.mark.parametrize(
    ("where", "expected"),
    [("> 1.5", [2, 3]), ("< 2.4", [1, 2]), (">= 1.5", [2, 3]), ("<= 2.4", [1, 2]), ("BETWEEN 1.5 AND 2.4", [2])],
)
def test_a_stream_is_compared_with_decimals(rows, where: str, expected: list[int]):
    source = MemorySource.of([], MemoryEvents([raw_part(["1"], stream=stream) for stream in (1, 2, 3)]))
    found = rows(f"SELECT stream_id FROM events WHERE stream_id {where} ORDER BY 1", source=source)
    assert found == [[stream] for stream in expected]


def test_a_condition_leaves_out_no_row_that_a_join_wants(rows):
    """ASOF and POSITIONAL joins choose by what rows there are; only then comes WHERE."""
    first, second = raw_part(['"a"'] * 2, stream=1), raw_part(['"b"'] * 2, received=10_000_000_000, stream=2)
    source = MemorySource.of([], MemoryEvents([first, second]))
    asof = """
        SELECT count(*) FROM (VALUES (TIMESTAMPTZ '1970-01-01 00:01:00Z')) t(moment)
        ASOF JOIN events e ON t.moment >= e.insert_datetime WHERE e.stream_id = 1"""
    assert rows(asof, source=source) == [[0]]
    positional = "SELECT n FROM (VALUES (1), (2), (3), (4)) t(n) POSITIONAL JOIN events e WHERE e.stream_id = 2"
    assert sorted(rows(positional, source=source)) == [[3], [4]]


def test_a_query_that_is_asked_again_sees_what_came_since(rows):
    query = "SELECT sum(payload.n), count(*) FROM events WHERE payload.k = ?"
    before = MemorySource.of([], MemoryEvents([raw_part(['{"n":1,"k":"a"}', '{"n":2,"k":"b"}'])]))
    after = MemorySource.of([], MemoryEvents([raw_part(['{"n":1.5,"k":"a"}', '{"k":"a"}'])]))
    assert rows(query, "a", source=before) == [[1, 1]]
    assert rows(query, "b", source=before) == [[2, 1]]
    assert rows(query, "a", source=after) == [[1.5, 2]]


def test_few_queries_are_kept(answer, kept):
    for number in range(70):
        answer(f"SELECT {number}")
    assert len(kept["sql_prepared"]) == 64
    answer(f"SELECT {'1' * 5000}.0")
    assert len(kept["sql_prepared"]) == 64
    assert all(len(text) < 100 for text, _ in kept["sql_prepared"])


def test_no_events_have_all_columns_too(rows, answer):
    nothing = MemorySource.of([])
    assert rows("SELECT count(*) FROM events WHERE payload.a = 1", source=nothing) == [[0]]
    assert len(answer("SELECT * FROM events", source=nothing)["columns"]) == 12


def test_a_name_that_is_not_there_is_named(rows):
    with pytest.raises(BadInput, match=r'column "levl" not found(.|\n)*"severity"'):
        rows("SELECT levl FROM events WHERE payload.ms = 1")


def test_events_that_come_while_a_path_changes_its_type(rows):
    source = store(*({"v": value} for value in (1, "two", {"three": 3}, [4], None, True, 6.5)))
    assert rows("SELECT payload.v FROM events", source=source) == [
        ["1"],
        ["two"],
        ['{"three":3}'],
        ["[4]"],
        [None],
        ["true"],
        ["6.5"],
    ]
    assert rows("SELECT payload.v.three FROM events WHERE payload.v.three = 3", source=source) == [[3]]
    assert rows("SELECT sum(payload.v) FROM events", source=source) == [[7.5]]


def test_nan_is_no_number_of_json(rows):
    assert json.dumps(rows("SELECT 'nan'::DOUBLE, '-inf'::DOUBLE, 1.5")) == '[["nan", "-inf", 1.5]]'


@pytest.mark.parametrize("order", ["DESC", "", "DESC, stream_event_index"])
def test_the_latest_events_are_found_without_putting_the_others_together(rows, order: str):
    payloads = [{"n": n, "even": n % 2 == 0} for n in range(100)]
    part = raw_part([json.dumps(payload) for payload in payloads])
    source = MemorySource.of([], MemoryEvents([part]))
    latest = payloads[::-1] if order else payloads
    for where, limit, expected in (
        ("", "LIMIT 3", latest[:3]),
        ("", "LIMIT 3 OFFSET 2", latest[2:5]),
        ("WHERE payload.even", "LIMIT 3", [each for each in latest if each["even"]][:3]),
        ("WHERE payload.n < 2", "LIMIT 3", [each for each in latest if each["n"] < 2]),
    ):
        part.read_rows.clear()
        query = (
            f"SELECT e.payload, e.* EXCLUDE (payload) FROM events e {where} ORDER BY e.insert_datetime {order} {limit}"
        )
        assert [row[0] for row in rows(query, source=source)] == expected
        assert part.read_rows[-1] <= (100 if "< 2" in where else 10), "few are read in the end"


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.tuples(st.integers(0, 60), st.lists(st.integers(0, 3), min_size=1, max_size=8)), max_size=6),
    least=st.integers(0, 3),
    limit=st.integers(1, 6),
    offset=st.integers(0, 3),
)
def test_the_latest_events_are_those_of_all(kept, parts, least: int, limit: int, offset: int) -> None:
    """Wherever they are: parts may overlap, and a condition may leave nothing of the newest."""
    made, events = [], []
    for stream, (begin, values) in enumerate(parts, 1):
        texts = [f'{{"n":{value}}}' for value in values]
        made.append(raw_part(texts, received=begin * 1_000_000_000, stream=stream))
        events += [(begin + at, stream, at + 1) for at, value in enumerate(values) if value >= least]
    query = f"""
        SELECT epoch(insert_datetime)::INT, stream_id, stream_event_index FROM events WHERE payload.n >= {least}
        ORDER BY insert_datetime DESC, stream_id DESC, stream_event_index DESC LIMIT {limit} OFFSET {offset}"""
    source = MemorySource.of([], MemoryEvents(made))
    answer = json.loads(b"".join(run_sql(SqlQuery(query), source, Budget(Limits()), kept)))
    expected = sorted(events, reverse=True)[offset : offset + limit]
    assert [tuple(row) for row in answer["data"]["rows"]] == expected


def test_for_the_latest_events_older_parts_are_not_read(rows) -> None:
    parts = [raw_part([f'{{"n":{n}}}'] * 10, received=n * 60_000_000_000, stream=n + 1) for n in range(40)]
    source = MemorySource.of([], MemoryEvents(parts))
    newest = "SELECT payload->>'n' FROM events e WHERE payload.n != 37 ORDER BY e.insert_datetime DESC LIMIT 12"
    assert rows(newest, source=source) == [["39"]] * 10 + [["38"]] * 2
    assert [sum(part.read_rows) > 0 for part in parts] == [False] * 38 + [True] * 2
    rare = "SELECT payload->>'n' FROM events WHERE payload.n = 25 ORDER BY insert_datetime DESC LIMIT 10"
    assert rows(rare, source=source) == [["25"]] * 10
    assert [sum(part.read_rows) > 0 for part in parts][:24] == [False] * 24


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("NOT EXISTS (SELECT 1 FROM events b WHERE b.payload.n = 3)", []),
        ("(SELECT count(*) FROM events) = 400", [["39"], ["39"]]),
        ("stream_id = (SELECT min(stream_id) FROM events)", [["0"], ["0"]]),
        ("stream_id IN (SELECT max(value)::INT FROM promql('vector(5)'))", [["4"], ["4"]]),
    ],
)
def test_subqueries_of_where_look_at_all_events(rows, where: str, expected: list[list[str]]) -> None:
    """Though the latest are looked for among the newest."""
    parts = [raw_part([f'{{"n":{n}}}'] * 10, received=n * 60_000_000_000, stream=n + 1) for n in range(40)]
    query = f"SELECT payload->>'n' FROM events WHERE {where} ORDER BY insert_datetime DESC LIMIT 2"
    assert rows(query, source=MemorySource.of([], MemoryEvents(parts))) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT payload.n FROM events LIMIT 2 OFFSET 3", [[3], [4]]),
        ("SELECT payload.n FROM events WHERE payload.g = 2 LIMIT 2", [[2], [5]]),
        ("SELECT payload.n FROM events ORDER BY payload.g DESC, payload.n DESC LIMIT 2", [[8], [5]]),
        ("SELECT payload.n FROM events ORDER BY n DESC LIMIT 2", [[9], [8]]),
        ("SELECT payload.n AS x, payload.g FROM events ORDER BY g DESC, x LIMIT 2", [[2, 2], [5, 2]]),
        ("SELECT payload.g, payload.n FROM events ORDER BY 1 DESC, 2 LIMIT 1 OFFSET 1", [[2, 5]]),
        ("SELECT -payload.n AS stream_event_index FROM events ORDER BY stream_event_index LIMIT 1", [[-9]]),
        ("SELECT -payload.n AS time, payload.g FROM events ORDER BY time + 1 LIMIT 1", None),
        ("SELECT payload.g FROM events ORDER BY ALL DESC LIMIT 1", [[2]]),
        ("SELECT payload.n FROM events e ORDER BY e.payload.n + 0 DESC LIMIT 1", [[9]]),
        ("SELECT max(payload.n) FROM events LIMIT 3", [[9]]),
        ("SELECT geomean(payload.n) > 0 FROM events WHERE payload.n > 1 LIMIT 3", [[True]]),
        ("SELECT DISTINCT payload.g FROM events ORDER BY 1 LIMIT 2", [[0], [1]]),
        ("SELECT unnest([payload.n, payload.g]) FROM events LIMIT 3", [[0], [0], [1]]),
        ("SELECT payload.n, row_number() OVER (ORDER BY payload.n) FROM events ORDER BY 1 DESC LIMIT 1", [[9, 10]]),
        ("SELECT payload.n FROM events WHERE payload.n > (SELECT avg(payload.n) FROM events) LIMIT 1", [[5]]),
        ("SELECT payload.n FROM events WHERE payload.n > 100 LIMIT 5", []),
        ("SELECT payload.n FROM events LIMIT 0", []),
        ("SELECT payload.n FROM events WHERE random() < 2 ORDER BY random() LIMIT 0 OFFSET 1", []),
        ("SELECT count(*) FROM (SELECT * FROM events ORDER BY time LIMIT 3)", [[3]]),
        ("SELECT payload.n FROM events LIMIT 20%", [[0], [1]]),
        ("FROM logs SELECT message, payload.n ORDER BY time DESC LIMIT 1", [["m9", 9]]),
    ],
)
def test_a_limit_chooses_the_same_events(rows, query: str, expected: list[list[Any]] | None):
    payloads = [{"n": n, "g": n % 3, "msg": f"m{n}"} for n in range(10)]
    divided = divided_part(
        Node({"n": LeafType.INT, "g": LeafType.INT, "msg": LeafType.TEXT}, rest=False),
        {
            Leaf(("n",)): pa.array([each["n"] for each in payloads[6:]]),
            Leaf(("g",)): pa.array([each["g"] for each in payloads[6:]]),
            Leaf(("msg",)): pa.array([each["msg"] for each in payloads[6:]]),
        },
        received=50_000_000_000,
        stream=2,
    )
    source = MemorySource.of([], MemoryEvents([raw_part([json.dumps(each) for each in payloads[:6]]), divided]))
    if expected is not None:
        assert rows(query, source=source) == expected
    else:
        with pytest.raises(StreamgaugeError):
            rows(query, source=source)


def test_the_type_of_a_path_is_that_of_all_its_values_also_of_few_events(answer):
    source = store({"v": 1}, {"v": 2}, {"v": 2.5})
    columns = answer("SELECT payload.v FROM events LIMIT 1", source=source)["columns"]
    assert columns == [{"name": "v", "type": "DOUBLE"}]


def test_what_is_over_all_events_is_not_narrowed(rows):
    source = store(*({"n": n} for n in range(10)))
    over = "SELECT payload, count(*) OVER () FROM events ORDER BY insert_datetime DESC LIMIT 1"
    assert rows(over, source=source) == [[{"n": 9}, 10]]
    ties = MemorySource.of([], MemoryEvents([raw_part(["1", "2", "3", "4"], step=0)]))
    tied = "SELECT payload FROM events ORDER BY insert_datetime DESC, stream_event_index DESC LIMIT 2"
    assert rows(tied, source=ties) == [[4], [3]]


class _Numbered:
    """A part that has texts by number, in batches that number them differently."""

    rows = 4
    node = Node({"level": LeafType.TEXT}, rest=False)

    def schema(self, columns: Sequence[Column]) -> pa.Schema:
        numbered = pa.dictionary(pa.int32(), pa.string())
        types = [numbered if isinstance(each, Leaf) else pa.int64() for each in columns]
        return pa.schema([pa.field(str(number), type_) for number, type_ in enumerate(types)])

    def read(self, columns: Sequence[Column], wanted: EventRange) -> Iterator[pa.RecordBatch]:
        for texts in (["ERROR", "INFO"], ["WARN", "ERROR"]):
            coded = pa.array(texts).dictionary_encode()
            arrays = [coded if isinstance(each, Leaf) else pa.array([1, 2]) for each in columns]
            yield pa.record_batch(arrays, [str(number) for number in range(len(columns))])


def test_texts_by_number_are_texts(rows):
    source = MemorySource.of([], MemoryEvents([_Numbered()]))
    assert rows("SELECT count(*) FROM events WHERE payload.level = 'ERROR'", source=source) == [[2]]
    assert rows("SELECT payload FROM events WHERE payload.level <> 'INFO'", source=source) == [
        [{"level": "ERROR"}],
        [{"level": "WARN"}],
        [{"level": "ERROR"}],
    ]


@pytest.mark.parametrize("path", ["payload.id", "payload->'id'", "payload->>'id'", "payload['id']"])
def test_large_whole_numbers_are_compared_exactly(rows, path: str) -> None:
    ids = [9007199254740992, 9007199254740993, -9223372036854775808, 9223372036854775806, 9223372036854775807]
    source = store(*({"id": each} for each in ids), {"other": 1})
    for each in ids:
        assert rows(f"SELECT payload.id FROM events WHERE {path} = {each}", source=source) == [[each]]
        assert rows(f"SELECT payload.id FROM events WHERE {path} IN (1, {each})", source=source) == [[each]]
        assert rows(f"SELECT payload.id FROM events WHERE {path} = $1", each, source=source) == [[each]]
    assert rows(f"SELECT count(*) FROM events WHERE {path} > 9223372036854775806", source=source) == [[1]]
    mixed = store({"id": ids[0]}, {"id": "text"}, {"id": {"a": 1}})
    assert rows(f"SELECT count(*) FROM events WHERE {path} = {ids[0]}", source=mixed) == [[1]]
