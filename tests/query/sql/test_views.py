"""What the views show beside payloads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgauge.errors import BadInput, QueryFailed
from streamgauge.model.arrays import stale_marker
from streamgauge.query.budget import Limits
from streamgauge.query.sql import promoted
from streamgauge.query.sql.schema import SCHEMA
from streamgauge.testing import MemoryEvents, MemorySource

PAGE = (Path(__file__).parents[3] / "docs" / "sql.md").read_text(encoding="utf-8")
SPAN = {
    "type": "trace",
    "name": "GET /",
    "trace": {"traceId": "t", "spanId": "420", "parentSpanId": "69"},
    "duration_ms": 1.5,
    "time": "2026-01-02T03:04:05+01:00",
}


def store(*payloads: object) -> MemorySource:
    return MemorySource.of([], MemoryEvents.of(payloads))


def test_promoted_columns_of_a_span(rows):
    query = "SELECT time, kind, severity, trace_id, span_id, parent_span_id, name, duration_ns FROM events"
    assert rows(query, source=store(SPAN)) == [
        ["2026-01-02T02:04:05Z", "trace", None, "t", "420", "69", "GET /", 1_500_000]
    ]


@pytest.mark.parametrize(
    ("payload", "time"),
    [
        ({"time": 1_767_323_045}, "2026-01-02T03:04:05Z"),
        ({"ts": 1_767_323_045.25}, "2026-01-02T03:04:05.25Z"),
        ({"timestamp": 1_767_323_045_250}, "2026-01-02T03:04:05.25Z"),
        ({"ts": 1_767_323_045_250_000}, "2026-01-02T03:04:05.25Z"),
        ({"ts": 1_767_323_045_250_000_000}, "2026-01-02T03:04:05.25Z"),
        ({"@timestamp": "2026-01-02 03:04:05"}, "2026-01-02T03:04:05Z"),
        ({"time": "soon"}, "1970-01-01T00:00:00Z"),
        ({"time": {"at": 1}}, "1970-01-01T00:00:00Z"),
        ({"time": 1e300}, "1970-01-01T00:00:00Z"),
        ({"time": -5}, "1970-01-01T00:00:00Z"),
        ("no object", "1970-01-01T00:00:00Z"),
    ],
)
def test_the_time_of_an_event_is_its_own_if_it_can_be_read(rows, payload: object, time: str):
    assert rows("SELECT time FROM events", source=store(payload)) == [[time]]


def test_logs_and_spans_share_the_events_between_them(rows):
    source = store(
        SPAN, {"level": "error", "msg": "it broke"}, {"type": "metric", "value": 1}, "a line", {"type": "odd"}
    )
    assert rows("SELECT severity, message FROM logs", source=source) == [
        ["ERROR", "it broke"],
        [None, "a line"],
        [None, None],
    ]
    assert rows("SELECT name, span_id, payload.type FROM spans WHERE payload.trace.traceId = 't'", source=source) == [
        ["GET /", "420", "trace"]
    ]


def test_the_queries_of_the_reference_run_unchanged(rows):
    assert rows("select json_pretty(headers) from streams;") == [['{\n    "host": "here"\n}']]
    pretty = rows("select json_pretty(payload) from events;", source=store({"a": [1]}))
    assert pretty == [['{\n    "a": [\n        1\n    ]\n}']]
    assert len(rows("select * from events where payload->'type' <> 'metric'")) == 4


def test_streams(rows):
    assert rows("SELECT stream_id, start_datetime, transport, headers.host FROM streams") == [
        [1, "1970-01-01T00:00:00Z", "http", "here"]
    ]


def test_series_samples_and_metrics_are_the_same_data(rows):
    assert rows("SELECT name, labels, time, value FROM metrics WHERE labels['job'] = 'b' ORDER BY time") == [
        ["up", {"job": "b"}, "1970-01-01T00:00:00Z", 1],
        ["up", {"job": "b"}, "1970-01-01T00:01:00Z", 1],
    ]
    joined = "SELECT name, labels, time, value FROM samples JOIN series USING (series_id) ORDER BY ALL"
    assert rows(joined) == rows("SELECT * FROM metrics ORDER BY ALL")
    assert rows("SELECT name, count(*), sum(value) FROM metrics GROUP BY name ORDER BY 1") == [
        ["requests_total", 1, 7],
        ["up", 5, 4],
    ]


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("name = 'up'", 5),
        ("name IN ('up', 'requests_total')", 6),
        ("labels['job'] = 'a' AND time >= '1970-01-01 00:01:00Z'::TIMESTAMPTZ", 2),
        ("time BETWEEN to_timestamp(30) AND to_timestamp(60)", 3),
        ("time > to_timestamp(60)", 1),
        ("time < to_timestamp(60) AND name <> 'down'", 2),
        ("labels['job'] IS NULL", 1),
        ("name = 'down'", 0),
    ],
)
def test_conditions_on_samples_find_the_same_whether_or_not_they_are_pushed_down(rows, where: str, count: int):
    assert rows(f"SELECT count(*) FROM metrics WHERE {where}") == [[count]]
    assert rows(f"SELECT count(*) FROM (SELECT *, 1 FROM metrics) WHERE ({where}) IS TRUE") == [[count]]


def test_conditions_narrow_what_is_charged(rows):
    limits = Limits(samples=2)
    with pytest.raises(QueryFailed, match="--query-max-samples"):
        rows("SELECT count(*) FROM samples", limits=limits)
    assert rows("SELECT count(*) FROM metrics WHERE labels['job'] = 'b'", limits=limits) == [[2]]
    assert rows("SELECT count(*) FROM samples WHERE time = to_timestamp(0)", limits=limits) == [[2]]


def test_stale_markers_are_hidden(rows):
    source = MemorySource.of(
        [({"__name__": "up"}, [0, 1_000], stale_marker(2)), ({"__name__": "b"}, [0], [float("nan")])]
    )
    assert rows("SELECT name, value FROM metrics", source=source) == [["b", "nan"]]


def test_promql_within_sql(rows):
    matrix = "SELECT labels['job'], time, value FROM promql('sum by (job) (up)', to_timestamp(0), to_timestamp(60), {})"
    for step in ("60", "INTERVAL '1 minute'", "'1m'"):
        assert rows(matrix.format(step) + " ORDER BY ALL") == [
            ["a", "1970-01-01T00:00:00Z", 1],
            ["a", "1970-01-01T00:01:00Z", 0],
            ["b", "1970-01-01T00:00:00Z", 1],
            ["b", "1970-01-01T00:01:00Z", 1],
        ]
    assert rows("SELECT value FROM promql('1 + 1')") == [[2]]
    assert rows("SELECT labels FROM promql('up{job=\"a\"}', to_timestamp(0))") == [[{"__name__": "up", "job": "a"}]]
    assert rows("SELECT value FROM promql('up{job=\"a\"}[2m]', to_timestamp(119)) ORDER BY time") == [[1], [0]]


def test_promql_and_events_join(rows):
    query = """
        SELECT e.payload.level, p.value FROM events e JOIN promql($1, to_timestamp(0), to_timestamp(10), '1s') p
        ON p.time = e.insert_datetime WHERE e.payload.http.status = 500
    """
    assert rows(query, "sum(up)") == [["ERROR", 2]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("promql()", "promql takes"),
        ("promql('up', now(), now())", "promql takes"),
        ("promql(1)", "the expression is a string"),
        ("promql('up{')", "parse error"),
        ("promql('up', 'soon')", "times are TIMESTAMPTZ"),
        ("promql('up', to_timestamp(1), to_timestamp(0), 1)", "the end is before the start"),
        ("promql('up', to_timestamp(0), to_timestamp(1), 0)", "a step is at least 1 ms"),
        ("promql('up', to_timestamp(0), to_timestamp(1000000), 1)", "more than 11,000 points"),
        ("promql('\"text\"')", "makes no table"),
    ],
)
def test_promql_says_what_is_wrong(rows, call: str, words: str):
    with pytest.raises(BadInput, match=re.escape(words)):
        rows(f"SELECT * FROM {call}")


def test_parameters(rows):
    assert rows("SELECT ?, $2, $3, $4, $5", "a'b", 1, 2.5, True, None) == [["a'b", 1, 2.5, True, None]]
    assert rows("SELECT count(*) FROM events WHERE payload.http.status >= ? AND payload.level = ?", 500, "ERROR") == [
        [2]
    ]
    with pytest.raises(BadInput, match=r"\$2, and no value for it"):
        rows("SELECT $2", 1)
    with pytest.raises(BadInput, match=r"\$2, and the query has no such parameter"):
        rows("SELECT $1", 1, 2)


def test_the_documentation_names_every_column_and_where_it_comes_from():
    for view, columns in SCHEMA.items():
        assert f"| `{view}` | {' '.join(f'`{name}`' for name in columns)} |" in PAGE
    sources = {
        **promoted.TEXTS,
        "time": promoted.TIME,
        "severity": promoted.SEVERITY,
        "message": promoted.MESSAGE,
        "duration_ns": tuple(promoted.DURATIONS),
    }
    for column, members in sources.items():
        assert f"| `{column}` | {' '.join(f'`{name}`' for name in members)} |" in PAGE
