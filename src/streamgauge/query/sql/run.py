"""One SQL query, from its text to the bytes of the answer."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from streamgauge.model.source import Source
from streamgauge.query.budget import Budget
from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.allowed import check
from streamgauge.query.sql.answers import encoded
from streamgauge.query.sql.database import session
from streamgauge.query.sql.parameters import fill
from streamgauge.query.sql.promql_tables import PromqlTables
from streamgauge.query.sql.resolve import Resolver
from streamgauge.query.sql.syntax import parsed, written
from streamgauge.query.sql.views import make_views


def run_sql(query: SqlQuery, source: Source, budget: Budget, kept: MutableMapping[str, object]) -> Iterator[bytes]:
    """The answer, which is computed while it is read.

    Raises BadInput for what is no query, or none that is answered; QueryFailed and the budget's errors.
    """
    with session(kept, budget) as opened:
        statement = parsed(opened, query.query)
        check(statement)
        fill(statement, dict(query.parameters))
        resolver = Resolver(query.query.encode())
        resolver.resolve(statement)
        make_views(opened, source, budget, resolver.views)
        for call in resolver.calls:
            PromqlTables(opened, source, budget, query.lookback).make(call)
        yield from encoded(opened, written(opened, statement), query.format)
