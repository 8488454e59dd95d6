"""One SQL query, from its text to the bytes of the answer."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from streamgauge.model.source import Source
from streamgauge.query.budget import Budget
from streamgauge.query.requests import SqlQuery
from streamgauge.query.sql.answers import encoded
from streamgauge.query.sql.chosen import Chosen
from streamgauge.query.sql.database import session
from streamgauge.query.sql.prepared import prepared
from streamgauge.query.sql.promql_tables import PromqlTables
from streamgauge.query.sql.views import make_views


def run_sql(query: SqlQuery, source: Source, budget: Budget, kept: MutableMapping[str, object]) -> Iterator[bytes]:
    """The answer, which is computed while it is read.

    Raises BadInput for what is no query, or none that is answered; QueryFailed and the budget's errors.
    """
    with session(kept, budget) as opened:
        wanted = prepared(opened, query, kept)
        chosen = None
        if wanted.keys is not None:
            make_views(opened, source, budget, wanted.keys.views)
            chosen = Chosen.of(opened.reader(wanted.keys.sql).read_all())
        make_views(opened, source, budget, wanted.views, chosen)
        for call in wanted.calls:
            PromqlTables(opened, source, budget, query.lookback).make(call)
        yield from encoded(opened, wanted.sql, query.format)
