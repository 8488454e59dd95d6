"""One SQL query, from its text to the bytes of the answer."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from streamgauge.model.source import Source
from streamgauge.query.budget import Budget
from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.allowed import check
from streamgauge.query.sql.answers import encoded
from streamgauge.query.sql.database import Session, session
from streamgauge.query.sql.latest import narrow, times_of_chosen
from streamgauge.query.sql.parameters import fill
from streamgauge.query.sql.promql_tables import PromqlTables
from streamgauge.query.sql.resolve import Resolver
from streamgauge.query.sql.syntax import Tree, parsed, written
from streamgauge.query.sql.views import make_views


def run_sql(query: SqlQuery, source: Source, budget: Budget, kept: MutableMapping[str, object]) -> Iterator[bytes]:
    """The answer, which is computed while it is read.

    Raises BadInput for what is no query, or none that is answered; QueryFailed and the budget's errors.
    """
    with session(kept, budget) as opened:
        statement = parsed(opened, query.query)
        check(statement)
        fill(statement, dict(query.parameters))
        run = _Run(opened, query, source, budget)
        chosen = times_of_chosen(statement)
        if chosen is not None:
            run.narrow(statement, *chosen)
        yield from encoded(opened, run.made(statement), query.format)


class _Run:
    def __init__(self, opened: Session, query: SqlQuery, source: Source, budget: Budget) -> None:
        self._session = opened
        self._query = query
        self._source = source
        self._budget = budget

    def made(self, statement: Tree, prefix: str = "") -> str:
        """A statement as SQL over views that have been made for it."""
        resolver = Resolver(self._query.query.encode(), prefix)
        resolver.resolve(statement)
        make_views(self._session, self._source, self._budget, resolver.views)
        for call in resolver.calls:
            PromqlTables(self._session, self._source, self._budget, self._query.lookback).make(call)
        return written(self._session, statement)

    def narrow(self, statement: Tree, times: Tree, count: int, latest: bool) -> None:
        """Add a condition to a statement that has an ORDER BY time and a LIMIT, if there are as many events."""
        rows = f"(FROM ({self.made(times, '_times')}) AS chosen(t) SELECT"
        found = self._session.numbers([f"{rows} count(*))", f"{rows} epoch_us({'min' if latest else 'max'}(t)))"])
        if found is not None and found[0] == count:
            narrow(statement, found[1], latest)
