"""A restricted source answers as the whole one would if nothing of others were there: whatever is asked, in every
language."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import StreamgaugeError
from streamgauge.model.event_source import STREAM_COLUMNS, EventRange, Fixed, Leaf, LeafType, Node, Present, Rest
from streamgauge.model.owned import owned_headers
from streamgauge.model.source import Matcher, MatchOp, NoMeter, Selector
from streamgauge.model.view import EVERYTHING, View
from streamgauge.query.budget import Budget
from streamgauge.query.dispatch import execute
from streamgauge.query.requests import (
    CardinalityQuery,
    FederateQuery,
    GroupBy,
    GrowthQuery,
    InstantQuery,
    Job,
    LabelNamesQuery,
    LabelValuesQuery,
    Query,
    RangeQuery,
    RawQuery,
    SeriesQuery,
    SqlFormat,
    SqlQuery,
)
from streamgauge.query.restricted import restricted
from streamgauge.testing import MemorySource
from streamgauge.testing.events import MemoryEvents, MemoryPart
from streamgauge.wire.read_answers import SamplesFormat

VIEW = View((("team", "a"),), "a")
MINUTE = 60_000
OWNERS = ("a", "b", "a,b", 'a"', None)
"""Of streams, by their ids from 1 on; the names of some begin as others do."""
KEPT: dict[str, object] = {}
"""What a worker keeps from one query to the next, whoever asks them."""


def ask(query: Query, source: MemorySource, view: View = EVERYTHING) -> Any:
    job = Job(query, stats=True, view=view)
    try:
        return b"".join(execute(job, source, Budget(job.limits), kept=KEPT).body)
    except StreamgaugeError as error:
        return type(error), error.message


def the_same(query: Query, everything: MemorySource, own: MemorySource) -> None:
    found, expected = ask(query, everything, VIEW), ask(query, own)
    if isinstance(found, bytes) and found.startswith(b"{") and isinstance(expected, bytes):
        found, expected = _plain(json.loads(found)), _plain(json.loads(expected))
    assert found == expected, query


def _plain(value: Any) -> Any:
    """Without what says how long it took, and with JSON texts as what they mean."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if name != "timings"}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


# ---- samples --------------------------------------------------------------------------------------------------------

TEAMS = ("a", "b", "A", "а", "", "a\n", "aa")  # the fourth is Cyrillic
NAMES = ("up", "requests_total", "target_info", "x.y")


@st.composite
def series(draw: st.DrawFn) -> list[Any]:
    labels = st.fixed_dictionaries(
        {"__name__": st.sampled_from(NAMES), "team": st.sampled_from(TEAMS), "job": st.sampled_from(("1", "2"))},
        optional={
            "instance": st.sampled_from(("here", "there")),
            "Team": st.sampled_from(("a", "b")),
            "le": st.sampled_from(("1", "+Inf")),
            "version": st.sampled_from(("8", "9")),
        },
    )
    found = draw(st.lists(labels, max_size=10, unique_by=lambda each: json.dumps(sorted(each.items()))))
    return [
        (each, [n * MINUTE for n in range(5)], [float(draw(st.integers(0, 9))) for _ in range(5)]) for each in found
    ]


SELECTORS = (
    *NAMES[:3],
    "{job=~'.+'}",
    "up{team='b'}",
    "up{team!='a'}",
    "up{team=~'b|A'}",
    "up{team=''}",
    "{team!~'a',job='1'}",
    "{'x.y',team='a'}",
    "{Team='b'}",
)
EXPRESSIONS = (
    "{s}",
    "rate({s}[3m])",
    "sum by (team)({s})",
    "count without (job)({s})",
    "absent({s})",
    "absent_over_time({s}[2m])",
    "label_replace({s}, 'team', 'b', 'job', '.*')",
    "label_replace({s}, 'team', '$1', 'Team', '(.*)') or up",
    "label_join({s}, 'all', '/', 'team', 'Team', 'instance')",
    "info({s})",
    "info({s}, {{version=~'.+', team='b'}})",
    "count_values('team', {s})",
    "topk(2, {s})",
    "quantile by (team)(0.5, {s})",
    "{s} * on (team) group_left up",
    "{s} unless up{{team='b'}}",
    "up or {s}",
    "max_over_time({s}[4m:1m])",
    "sort_by_label({s}, 'team')",
    "histogram_quantile(0.9, {s})",
    "scalar({s})",
    "limitk(1, {s})",
    "timestamp({s})",
    "{s}[3m]",
)


@settings(max_examples=25, deadline=None)
@given(st.data(), series())
def test_promql_sees_nothing_of_others(data: st.DataObject, known: list[Any]) -> None:
    selectors = [data.draw(st.sampled_from(SELECTORS)) for _ in range(3)]
    expressions = [data.draw(st.sampled_from(EXPRESSIONS)).format(s=selector) for selector in selectors]
    everything, own = MemorySource.of(known), MemorySource.of([each for each in known if each[0]["team"] == "a"])
    for expression in expressions:
        the_same(InstantQuery(expression, 4 * MINUTE), everything, own)
        the_same(RangeQuery(expression, 0, 4 * MINUTE, MINUTE), everything, own)


@settings(max_examples=15, deadline=None)
@given(st.data(), series())
def test_labels_and_numbers_of_series_tell_nothing_of_others(data: st.DataObject, known: list[Any]) -> None:
    matches = tuple(data.draw(st.lists(st.sampled_from(SELECTORS), max_size=2)))
    selectors = (Selector((Matcher("team", MatchOp.NOT_EQUAL, "a"),), 0, 5 * MINUTE), Selector((), 0, 5 * MINUTE))
    everything, own = MemorySource.of(known), MemorySource.of([each for each in known if each[0]["team"] == "a"])
    queries: list[Query] = [
        SeriesQuery(matches or ("{job='1'}",), 0, 5 * MINUTE),
        LabelNamesQuery(matches, 0, 5 * MINUTE),
        *(LabelValuesQuery(name, matches, 0, 5 * MINUTE) for name in ("team", "__name__", "Team", "version")),
        FederateQuery(matches or ("up",), 4 * MINUTE, external_labels=(("team", "b"), ("site", "x"))),
        CardinalityQuery(),
        *(GrowthQuery(matches, 0, 5 * MINUTE, MINUTE, by) for by in GroupBy),
        RawQuery(selectors, SamplesFormat(), (("team", "b"),)),
        SqlQuery("SELECT name, labels, time, value FROM metrics ORDER BY ALL"),
        SqlQuery("SELECT count(*), count(DISTINCT series_id) FROM samples"),
        SqlQuery("SELECT count(*) FROM series"),
        SqlQuery("SELECT count(*) FROM metrics WHERE labels['team'] <> 'a'"),
        SqlQuery(
            "SELECT labels, value FROM promql('sum by (team, Team)({job=~\".+\"})', to_timestamp(240)) ORDER BY ALL"
        ),
    ]
    for query in data.draw(st.lists(st.sampled_from(queries), min_size=6, max_size=6, unique_by=repr)):
        the_same(query, everything, own)


def test_dictionaries_of_labels_hold_nothing_of_others() -> None:
    known = [({"__name__": "up", "team": team, "host": f"of-{team}", team: "x"}, [0], [1.0]) for team in ("a", "b")]
    source = restricted(MemorySource.of(known), VIEW)
    frames = [
        source.select([], 0, 1, NoMeter()).labels,
        source.series([], 0, 1, NoMeter()),
        source.lifetimes([], NoMeter()).labels,
    ]
    for frame in frames:
        assert {name: column.values.to_pylist() for name, column in frame.columns.items()} == {
            "__name__": ["up"],
            "team": ["a"],
            "host": ["of-a"],
            "a": ["x"],
        }


def test_who_sees_everything_reads_the_source_itself() -> None:
    source = MemorySource.of([])
    assert restricted(source, EVERYTHING) is source


# ---- events ---------------------------------------------------------------------------------------------------------

Payload = Mapping[str, Any]
VALUES = st.one_of(
    st.integers(0, 3), st.sampled_from(("1", "ours", "")), st.booleans(), st.none(), st.just(1.5), st.just({"z": 1})
)
PAYLOADS = st.dictionaries(st.sampled_from(("x", "y", "level")), VALUES, max_size=3)
PLAN = st.lists(st.tuples(st.integers(1, len(OWNERS)), PAYLOADS, st.booleans()), max_size=12)
"""Stream, payload, and whether it is in a block."""
LEAVES = {"x": LeafType.INT, "level": LeafType.TEXT}
_PYTHON = {LeafType.INT: int, LeafType.TEXT: str}


def events_of(rows: Sequence[tuple[int, Payload, bool]]) -> MemoryEvents:
    """Half of them undivided, the others with some members in columns, and those in dictionaries."""
    numbered = [(number, stream, payload) for number, (stream, payload, _) in enumerate(rows, 1)]
    raw = [each for each, (_, _, divided) in zip(numbered, rows, strict=True) if not divided]
    divided = [each for each, (_, _, divided) in zip(numbered, rows, strict=True) if divided]
    streams = sorted({stream for stream, _, _ in rows})
    headers = [json.dumps({"n": stream}, separators=(",", ":")) for stream in streams]
    owned = [
        text if (owner := OWNERS[stream - 1]) is None else owned_headers(owner, text)
        for stream, text in zip(streams, headers, strict=True)
    ]
    count = len(streams)
    table = pa.table([streams, [0] * count, ["http"] * count, owned, [""] * count], schema=STREAM_COLUMNS)
    return MemoryEvents([_undivided(raw), _divided(divided)], table)


def _fixed(rows: Sequence[tuple[int, int, Payload]]) -> dict[Any, pa.Array[Any]]:
    return {
        Fixed.STREAM: pa.array([stream for _, stream, _ in rows], pa.int64()),
        Fixed.INDEX: pa.array([number for number, _, _ in rows], pa.int64()),
        Fixed.RECEIVED: pa.array([number * 1_000_000_000 for number, _, _ in rows], pa.int64()),
    }


def _undivided(rows: Sequence[tuple[int, int, Payload]]) -> MemoryPart:
    texts = pa.array([json.dumps(payload) for _, _, payload in rows], pa.string())
    return MemoryPart(Node(), {**_fixed(rows), Rest(()): texts})


def _divided(rows: Sequence[tuple[int, int, Payload]]) -> MemoryPart:
    payloads = [dict(payload) for _, _, payload in rows]
    columns: dict[Any, pa.Array[Any]] = {
        Present(("y",)): pa.array([isinstance(each.get("y"), dict) for each in payloads], pa.bool_()),
        Leaf(("y", "z")): pa.array(
            [each["y"]["z"] if isinstance(each.get("y"), dict) else None for each in payloads], pa.int64()
        ),
    }
    for name, kind in LEAVES.items():
        values = [each[name] if type(each.get(name)) is _PYTHON[kind] else None for each in payloads]
        array: Any = pa.array(values, pa.int64() if kind is LeafType.INT else pa.string())
        columns[Leaf((name,))] = array.dictionary_encode() if kind is LeafType.TEXT else array
    for each in payloads:
        for name, kind in LEAVES.items():
            if type(each.get(name)) is _PYTHON[kind]:
                del each[name]
        if isinstance(each.get("y"), dict):
            del each["y"]
    columns[Rest(())] = pa.array([json.dumps(each) if each else None for each in payloads], pa.string())
    node = Node(LEAVES, {"y": Node({"z": LeafType.INT}, rest=False)})
    return MemoryPart(node, {**_fixed(rows), **columns})


QUESTIONS = (
    "SELECT stream_event_index, payload FROM events ORDER BY ALL",
    "SELECT stream_event_index, payload.x, payload.y, payload.level FROM events ORDER BY 1",
    "SELECT stream_event_index, typeof(payload.x), typeof(payload.level), typeof(payload.y) FROM events ORDER BY 1",
    "SELECT payload.y.z, typeof(payload.y.z) FROM events ORDER BY ALL",
    "SELECT count(*), count(payload.x), max(stream_id) FROM events",
    "SELECT payload.level::INTEGER FROM events ORDER BY ALL",
    "SELECT * FROM streams ORDER BY 1",
    "SELECT headers.n, count(*) FROM streams GROUP BY ALL ORDER BY ALL",
    "SELECT severity, message, stream_id FROM logs ORDER BY ALL",
    "SELECT * FROM events ORDER BY stream_event_index DESC LIMIT 2",
    "SELECT stream_id FROM events WHERE stream_id <> 1 OR payload.level = 'theirs' LIMIT 3",
    "SELECT e.stream_event_index FROM events e JOIN streams s USING (stream_id) WHERE s.headers.n > 1 ORDER BY ALL",
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(QUESTIONS), PLAN)
def test_sql_sees_nothing_of_the_events_of_others(question: str, plan: Any) -> None:
    """What others send decides not even of which type a value is."""
    foreign = [(stream, payload | {"level": "theirs"}, where) for stream, payload, where in plan]
    rows = [own if own[0] == 1 else other for own, other in zip(plan, foreign, strict=True)]
    own = [(stream, payload, False) for stream, payload, _ in rows if stream == 1]
    kept = [number for number, (stream, _, _) in enumerate(rows, 1) if stream == 1]
    alone = events_of(own)
    part = alone.all_parts[0]
    assert isinstance(part, MemoryPart)
    renumbered = _fixed([(number, 1, {}) for number in kept])
    alone = MemoryEvents([MemoryPart(part.node, {**part.columns, **renumbered})], alone.all_streams)
    query = SqlQuery(question)
    everything = MemorySource.of([], events_of(rows))
    the_same(query, everything, MemorySource.of([], alone))
    answer = ask(query, everything, VIEW)
    assert isinstance(answer, bytes) or "INTEGER" in question, answer
    assert "theirs" not in repr(answer)


@pytest.mark.parametrize("form", list(SqlFormat))
def test_no_form_of_an_answer_carries_texts_of_others_along(form: SqlFormat) -> None:
    rows = [(1, {"level": "ours"}, True), (2, {"level": "theirs"}, True), (1, {"level": "ours"}, False)]
    source = MemorySource.of([], events_of(rows))
    for question in ("SELECT * FROM events", "SELECT payload.level FROM events", "SELECT headers FROM streams"):
        assert b"theirs" not in ask(SqlQuery(question, form), source, VIEW)


def test_texts_by_number_come_without_those_of_others() -> None:
    rows = [(1, {"level": "ours"}, True), (2, {"level": "theirs"}, True)]
    *_, part = restricted(MemorySource.of([], events_of(rows)), VIEW).events().parts()
    [batch] = part.read([Leaf(("level",))], EventRange())
    assert batch.column(0).to_pylist() == ["ours"]
    assert b"theirs" not in b"".join(bytes(each) for each in batch.column(0).buffers() if each is not None)
    assert not isinstance(batch.column(0), pa.DictionaryArray)


def test_an_owner_is_not_another_whose_name_begins_alike() -> None:
    rows = [(stream, {"n": stream}, False) for stream in range(1, len(OWNERS) + 1)]
    for number, owner in enumerate(OWNERS, 1):
        if owner is not None:
            events = restricted(MemorySource.of([], events_of(rows)), View((("team", "x"),), owner)).events()
            assert events.streams()["stream_id"].to_pylist() == [number]
            assert [batch.column(0).to_pylist() for batch in events.payloads(EventRange())] == [[number]]
            assert sum(part.rows for part in events.parts()) == 1


def test_ranges_of_streams_stay_within_what_is_asked_for() -> None:
    rows = [(1, {"n": number}, number % 2 == 0) for number in range(6)] + [(2, {"n": 9}, True)]
    events = restricted(MemorySource.of([], events_of(rows)), VIEW).events()
    wanted = EventRange(2_000_000_000, 4_000_000_000)
    found = np.concatenate([batch.column(1).to_numpy() for batch in events.payloads(wanted)])
    assert sorted(found.tolist()) == [2, 3, 4]
    assert not list(events.payloads(EventRange(first_stream=2)))
