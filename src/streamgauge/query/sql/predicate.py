"""A condition on events, as a WHERE has it: which events of one part fulfil it. For deletion and retention."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Int64s
from streamgauge.model.event_source import EventPart, EventRange
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.sql.allowed import check
from streamgauge.query.sql.database import Session, session
from streamgauge.query.sql.events import EventViews
from streamgauge.query.sql.resolve import Resolver
from streamgauge.query.sql.syntax import Tree, nodes, parsed, written

_LIMITS = Limits(bytes=1 << 30, seconds=600.0)
"""Of one block, which holds a million events at most."""


def check_condition(condition: str) -> None:
    """Raises BadInput for what is no condition on events."""
    with session({}, Budget(_LIMITS)) as opened:
        _Selection(opened, condition).make([])


def fulfilling(part: EventPart, condition: str) -> tuple[Int64s, Int64s]:
    """Streams and indexes of the events of `part` for which the condition is true. Raises BadInput, QueryFailed and the
    budget's errors."""
    with session({}, Budget(_LIMITS)) as opened:
        rows = opened.reader(_Selection(opened, condition).make([part])).read_all()
        streams, indexes = (column.to_numpy().astype(np.int64, copy=False) for column in rows.columns)
        return streams, indexes


class _Selection:
    """`SELECT stream_id, stream_event_index FROM events WHERE` and the condition, and nothing else."""

    def __init__(self, opened: Session, condition: str) -> None:
        self._session = opened
        text = f"SELECT stream_id, stream_event_index FROM events WHERE (\n{condition}\n)"
        self._statement = parsed(opened, text)
        check(self._statement)
        _check_form(self._statement, condition)
        self._resolver = Resolver(text.encode())
        self._resolver.resolve(self._statement)

    def make(self, parts: list[EventPart]) -> str:
        """The query over these parts."""
        for view in self._resolver.views:
            EventViews(self._session, parts, Budget(_LIMITS)).make(view, EventRange())
        sql = written(self._session, self._statement)
        self._session.columns(sql)
        return sql


def _check_form(statement: Tree, condition: str) -> None:
    """A condition that closes the parenthesis could go on with something else."""
    root: dict[str, Any] = statement["node"]
    alone = root["type"] == "SELECT_NODE" and not root["modifiers"] and not root.get("group_expressions")
    if not alone or len(root["select_list"]) != 2 or any(node.get("class") == "SUBQUERY" for node in nodes(statement)):
        raise BadInput(f"{condition[:100]!r} is no condition on events: write what follows WHERE, without a subquery")
