"""Events of a real store: the same answers from the head, and from blocks that have them in columns."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.model.event_source import EVERY_EVENT, EventPart, EventRange, EventSource, Node
from streamgauge.model.source import Source
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.run import run_sql
from streamgauge.store.offline import compact_folder, open_folder
from streamgauge.testing import MemorySource
from streamgauge.testing.lives import NOON, opened

KEPT: dict[str, object] = {}
NAMES = ("a", "b", 'c "d', "é.f")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 40), 1 << 40)
    | st.floats(-1e9, 1e9)
    | st.sampled_from(["", "x", "7", "true", '"', "é\n"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
PATHS = [(name,) for name in NAMES] + [("a", "b"), ("a", 'c "d'), ("a", "b", "a"), ("b", "a")]


def answer(source: Source, query: str) -> list[list[Any]]:
    rows: list[list[Any]] = json.loads(b"".join(run_sql(SqlQuery(query), source, Budget(Limits()), KEPT)))["data"][
        "rows"
    ]
    return rows


def at(payload: object, path: tuple[str, ...]) -> object:
    for name in path:
        payload = payload.get(name) if isinstance(payload, dict) else None
    return payload


def check(source: Source, payloads: list[object]) -> None:
    """What SQL finds is what Python finds in the payloads."""
    ordered = "ORDER BY stream_event_index"
    assert [payload for (payload,) in answer(source, f"SELECT payload FROM events {ordered}")] == payloads
    expected: dict[str, int] = {}
    for path in PATHS:
        shown = "payload." + ".".join('"' + name.replace('"', '""') + '"' for name in path)
        values = [at(payload, path) for payload in payloads]
        expected[f"count({shown})"] = sum(value is not None for value in values)
        expected[f"count(*) FILTER (WHERE {shown} >= 7)"] = sum(_number(value) >= 7 for value in values)
        expected[f"count(*) FILTER (WHERE {shown})"] = sum(value is True or value == "true" for value in values)
        for wanted in ("x", "7", "true"):
            count = sum(_matches(value, wanted) for value in values)
            expected[f"count(*) FILTER (WHERE {shown} = '{wanted}')"] = count
            if len(path) < 3 and wanted == "x":
                expected[f"(SELECT count(*) FROM events WHERE {shown} = '{wanted}')"] = count
    (row,) = answer(source, f"SELECT {', '.join(expected)} FROM events")
    assert dict(zip(expected, row, strict=True)) == expected


def _matches(value: object, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == ("true" if value else "false")
    return value == wanted if isinstance(value, str) else isinstance(value, int) and str(value) == wanted


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return float("nan")
    try:
        return float(value)
    except ValueError:
        return float("nan")


@settings(max_examples=10, deadline=None)
@given(payloads=st.lists(VALUES, min_size=1, max_size=12))
def test_paths_are_found_wherever_an_event_is(payloads: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        texts = pa.array([json.dumps(payload).encode() for payload in payloads], pa.binary())

        async def write() -> None:
            async with opened(data, ManualClock(NOON)) as (store, _):
                stream = store.events.open_stream("http", "{}")
                await store.events.append_events(stream, 1, texts)
                snapshot, release = store.snapshot()
                try:
                    check(snapshot.open({}), payloads)
                finally:
                    release()

        asyncio.run(write())
        asyncio.run(compact_folder(data))
        with open_folder(data) as (snapshot, _):
            source = snapshot.open({})
            assert [part.rows for part in source.events().parts()] == [len(payloads)]
            check(source, payloads)
            check(MemorySource.of([], _Before(source.events())), payloads)


class _Before:
    """Blocks as they were before their footers told of mixed members."""

    def __init__(self, events: EventSource) -> None:
        self.streams, self.payloads, self.extents = events.streams, events.payloads, events.extents
        self._events = events

    def parts(self, wanted: EventRange = EVERY_EVENT) -> Sequence[EventPart]:
        return [_PartBefore(part) for part in self._events.parts(wanted)]


class _PartBefore:
    def __init__(self, part: EventPart) -> None:
        self.rows, self.node, self.read, self.schema = part.rows, _unknown(part.node), part.read, part.schema


def _unknown(node: Node) -> Node:
    return Node(node.leaves, {name: _unknown(child) for name, child in node.children.items()}, node.rest)


def test_a_path_is_found_in_an_event_that_is_too_large_to_be_divided(tmp_path: Path) -> None:
    large = {"http": {"status": 500}, "text": "x" * (2 << 20)}
    payloads = [*({"http": {"status": 200}} for _ in range(10)), large]
    texts = pa.array([json.dumps(payload).encode() for payload in payloads], pa.binary())

    async def write() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, _):
            await store.events.append_events(store.events.open_stream("http", "{}"), 1, texts)

    asyncio.run(write())
    asyncio.run(compact_folder(tmp_path / "data"))
    with open_folder(tmp_path / "data") as (snapshot, _):
        source = snapshot.open({})
        assert [set(part.node.children) for part in source.events().parts()] == [{"http"}]
        query = "SELECT payload.http.status, count(*) FROM events GROUP BY 1 ORDER BY 1"
        assert answer(source, query) == [[200, 10], [500, 1]]


TIMES = [
    "2026-01-02T03:04:05.123Z",
    "2026-01-02 03:04:05+02:00",
    "2026-01-02T03:04:05",
    "2026-01-02",
    "2026-01-02 03:04:05 Europe/Berlin",
    "2026-01-02 03:04:05,5",
    "1969-12-31T23:59:59.9999999Z",
    "2300-01-01T00:00:00Z",
    "1767323045",
    "17673230451234",
    "-5",
    "inf",
    "infinity",
    "x",
    "",
    1767323045,
    1767323045.25,
    1767323045123,
    1767323045123456789,
    -5,
    1e40,
    True,
    None,
    ["2026-01-02T03:04:05Z"],
]


def payloads_of(stamp: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    names = st.sampled_from(["time", "timestamp", "ts", "@timestamp", "z"])
    return st.lists(st.dictionaries(names, stamp, max_size=2), min_size=1, max_size=30)


@settings(max_examples=15, deadline=None, phases=[Phase.generate])
@given(payloads=payloads_of(st.sampled_from(TIMES)) | payloads_of(st.sampled_from(TIMES[:3])))
def test_times_are_the_same_from_columns_as_from_texts(payloads: list[dict[str, Any]]) -> None:
    texts = pa.array([json.dumps(payload).encode() for payload in payloads], pa.binary())
    query = "SELECT stream_event_index, time FROM events ORDER BY ALL"
    latest = "SELECT time, payload FROM events ORDER BY time DESC, stream_event_index LIMIT 4 OFFSET 1"
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"

        async def write() -> tuple[Any, Any]:
            async with opened(data, ManualClock(NOON)) as (store, _):
                await store.events.append_events(store.events.open_stream("http", "{}"), 1, texts)
                snapshot, release = store.snapshot()
                try:
                    return answer(snapshot.open({}), query), answer(snapshot.open({}), latest)
                finally:
                    release()

        expected = asyncio.run(write())
        asyncio.run(compact_folder(data))
        with open_folder(data) as (snapshot, _):
            source = snapshot.open({})
            assert (answer(source, query), answer(source, latest)) == expected
        ordered = sorted(expected[0], key=lambda row: (-datetime.fromisoformat(row[1]).timestamp(), row[0]))
        assert expected[1] == [[time, payloads[index - 1]] for index, time in ordered[1:5]]
