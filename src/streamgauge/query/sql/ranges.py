"""What conditions of WHERE mean for what is read: ranges of times and streams, matchers of labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from streamgauge.model.event_source import EventRange, OneOf
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.query.sql import tree
from streamgauge.query.sql.database import Session
from streamgauge.query.sql.relations import Condition, View
from streamgauge.query.sql.syntax import written

LEAST, MOST = -(1 << 62), 1 << 62
"""Ends of time in ms: far from where something added to one overflows."""
_SLACK_NS = 1_000_000
"""A time in SQL has microseconds, those of events have ns."""
_FLOOR = "{0}::BIGINT - ({0}::BIGINT > {0})::BIGINT"
_CEILING = "{0}::BIGINT + ({0}::BIGINT < {0})::BIGINT"
"""Of a number, which a cast alone rounds, so that 2 would not be > 1.5."""
_SPECIAL = re.compile(r"[\\.+*?()\[\]{}|^$]")


@dataclass(frozen=True, slots=True)
class SampleRange:
    """Which samples are wanted. Times are ms, both ends inclusive."""

    matchers: tuple[Matcher, ...] = ()
    start: int = LEAST
    end: int = MOST


class Ranges:
    def __init__(self, session: Session) -> None:
        self._session = session

    def of_events(self, view: View) -> EventRange:
        whole = EventRange()
        first, last = self._bounds(view, "insert_datetime", "epoch_ns({}::TIMESTAMPTZ)")
        low, high = self._bounds(view, "stream_id", _FLOOR, _CEILING)
        return EventRange(
            whole.first_received if first is None else max(first - _SLACK_NS, whole.first_received),
            whole.last_received if last is None else min(last + _SLACK_NS, whole.last_received),
            whole.first_stream if low is None else max(low, whole.first_stream),
            whole.last_stream if high is None else min(high, whole.last_stream),
            tuple(_one_of(view)),
        )

    def of_samples(self, view: View) -> SampleRange:
        start, end = self._bounds(view, "time", "epoch_ms({}::TIMESTAMPTZ)")
        return SampleRange(
            tuple(_matchers(view)),
            LEAST if start is None else max(start - 1, LEAST),  # of a time in SQL ms are cut off
            MOST if end is None else min(end + 1, MOST),
        )

    def _bounds(self, view: View, column: str, form: str, upper: str = "") -> tuple[int | None, int | None]:
        """The least and the most that conditions leave of a column, where they do. form: makes a number of a side of
        one; upper: of one that bounds it above, where that is another."""
        low: list[int] = []
        high: list[int] = []
        for condition in view.conditions:
            if condition.column != column or condition.path:
                continue
            if condition.operator in (">", ">=", "=", "in") and (values := self._values(condition, form)):
                low.append(min(values) + (condition.operator == ">"))
            if condition.operator in ("<", "<=", "=", "in") and (values := self._values(condition, upper or form)):
                high.append(max(values) - (condition.operator == "<"))
        return max(low, default=None), min(high, default=None)

    def _values(self, condition: Condition, form: str) -> list[int] | None:
        """What the sides of a condition are. None when that cannot be told; the query then says why."""
        queries = [f"({written(self._session, tree.select(value))})" for value in condition.values]
        return self._session.numbers([form.format(query) for query in queries])


def _one_of(view: View) -> Iterator[OneOf]:
    for condition in view.conditions:
        path = tuple(step for step in condition.path if isinstance(step, str))
        if condition.column == "payload" and path and path == condition.path and (texts := _texts(condition)):
            yield OneOf(path, frozenset(texts))


def _matchers(view: View) -> Iterator[Matcher]:
    for condition in view.conditions:
        name = "__name__" if condition.column == "name" and not condition.path else None
        if condition.column == "labels" and condition.path:
            name = str(condition.path[0])
        texts = _texts(condition)
        if name is None or not texts or not all(texts):
            continue
        if len(texts) == 1:
            yield Matcher(name, MatchOp.EQUAL, texts[0])
        else:
            yield Matcher(name, MatchOp.MATCH, "|".join(_SPECIAL.sub(r"\\\g<0>", text) for text in texts))


def _texts(condition: Condition) -> list[str]:
    """Those of which what fulfils a condition is one; none where they are not all that it says."""
    found = [tree.literal(value) for value in condition.values] if condition.operator in ("=", "in") else []
    texts = [literal[1] for literal in found if literal is not None and literal[0] == "STRING"]
    return texts if len(texts) == len(found) else []
