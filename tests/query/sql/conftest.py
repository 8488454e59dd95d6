"""A small store with events of both kinds of parts, and SQL over it in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from streamgauge.model.event_source import Leaf, LeafType, Node, Present, Rest
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.run import run_sql
from streamgauge.testing import MemoryEvents, MemorySource
from streamgauge.testing.events import MemoryPart, divided_part, one_stream, raw_part

PAYLOADS = [
    {"type": "log", "level": "ERROR", "http": {"status": 500, "path": "/a"}, "ms": 1.5, "k": "x", "tags": ["a", "b"]},
    {"type": "log", "level": "INFO", "http": {"status": 200}, "ms": 2, "k": 5, "ok": True},
    {"type": "metric", "http": "gone", "k": {"a": 1}, "ok": "yes"},
    "text",
    [1, 2],
]
DIVIDED = [
    {"type": "log", "level": "ERROR", "ms": 3.5, "http": {"status": 503, "path": "/z"}, "k": "y"},
    {"type": "log", "level": "WARN", "http": {}},
    "plain",
    {"type": "metric", "ms": 4.0, "level": 7, "http": 3},
]
"""What is in `divided()`, as JSON."""


def divided() -> MemoryPart:
    """Events in columns, some of whose values are of other types than most: those are in the rests."""
    http = Node({"status": LeafType.INT})
    node = Node({"type": LeafType.TEXT, "level": LeafType.TEXT, "ms": LeafType.DOUBLE}, {"http": http})
    return divided_part(
        node,
        {
            Rest(()): pa.array(['{"k":"y"}', None, '"plain"', '{"level":7,"http":3}']),
            Leaf(("type",)): pa.array(["log", "log", None, "metric"]),
            Leaf(("level",)): pa.array(["ERROR", "WARN", None, None]),
            Leaf(("ms",)): pa.array([3.5, None, None, 4.0]),
            Present(("http",)): pa.array([True, True, False, False]),
            Leaf(("http", "status")): pa.array([503, None, None, None], pa.int64()),
            Rest(("http",)): pa.array(['{"path":"/z"}', None, None, None]),
        },
        received=1_000_000_000_000,
        stream=2,
    )


def events() -> MemoryEvents:
    return MemoryEvents([raw_part([json.dumps(each) for each in PAYLOADS]), divided()], one_stream())


SERIES: list[Any] = [
    ({"__name__": "up", "job": "a"}, [0, 60_000, 120_000], [1, 0, 1]),
    ({"__name__": "up", "job": "b"}, [0, 60_000], [1, 1]),
    ({"__name__": "requests_total"}, [60_000], [7]),
]

Ask = Callable[..., list[list[Any]]]


@pytest.fixture(scope="session")
def kept() -> dict[str, object]:
    """What a worker keeps from one query to the next."""
    return {}


@pytest.fixture
def answer(kept: dict[str, object]) -> Callable[..., Any]:
    """Columns and rows of an answer."""

    def ask(query: str, *parameters: Any, source: MemorySource | None = None, limits: Limits | None = None) -> Any:
        source = source or MemorySource.of(SERIES, events())
        named = tuple((str(number), value) for number, value in enumerate(parameters, 1))
        pieces = run_sql(SqlQuery(query, parameters=named), source, Budget(limits or Limits()), kept)
        return json.loads(b"".join(pieces))["data"]

    return ask


@pytest.fixture
def rows(answer: Callable[..., Any]) -> Ask:
    def ask(query: str, *parameters: Any, **settings: Any) -> list[list[Any]]:
        listed: list[list[Any]] = answer(query, *parameters, **settings)["rows"]
        return listed

    return ask
